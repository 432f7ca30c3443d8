//! Commitment text ⇄ submission. The text is the miner's and hostile.

use super::model_ref::{CompetitionId, ModelRef, RepoId, Revision};
use super::rejection::{Rejection, RejectionCode};
use super::template::Template;
use crate::bittensor::{BlockNumber, Commitment, Hotkey};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Longest text of our form in bytes: what fits one `Raw` field.
pub const TEXT_BYTES_MAX: usize = 128;
/// Longest text of the origin's form in bytes: what fits one `BigRaw` field.
const ORIGIN_TEXT_BYTES_MAX: usize = 512;

/// A parsed commitment: one model that a hotkey entered at a block.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Submission {
    /// Signer of the commitment.
    pub hotkey: Hotkey,
    /// Block that included the commitment; with the hotkey it identifies the submission.
    pub block: BlockNumber,
    /// The model. The origin's text carries no revision.
    pub model: ModelRef,
    /// Chat template that the model was trained on.
    pub template: Template,
    /// Competition that it enters.
    pub competition: CompetitionId,
}

/// Reads either text: ours, `2:namespace/name:<40-hex revision>:template:competition`, or the
/// origin's, `namespace:name:template:hotkey:hash:competition`.
///
/// # Errors
/// A [`Rejection`] that names the first violation.
pub fn parse(commitment: &Commitment) -> Result<Submission, Rejection> {
    let text = commitment
        .text()
        .map_err(|e| Rejection::new(RejectionCode::CommitmentUnreadable, sentence(&e)))?;
    if text.len() > ORIGIN_TEXT_BYTES_MAX {
        let detail = format!(
            "The text has {} bytes; {ORIGIN_TEXT_BYTES_MAX} are read.",
            text.len()
        );
        return Err(malformed(detail));
    }
    let parts: Vec<&str> = text.split(':').collect();
    match parts[..] {
        ["2", repo, revision, template, competition] => {
            if text.len() > TEXT_BYTES_MAX {
                let detail = format!("The text has {} bytes, more than 128.", text.len());
                return Err(malformed(detail));
            }
            let model = ModelRef {
                repo: repo.parse().map_err(malformed)?,
                revision: Some(revision.parse().map_err(malformed)?),
            };
            submission(commitment, model, template, competition)
        }
        [namespace, name, template, hotkey, hash, competition] => {
            check_signer(commitment, hotkey)?;
            let repo = RepoId::new(namespace, name).map_err(malformed)?;
            if hash != origin_hash(&repo, template, &commitment.hotkey).to_string() {
                let detail = "The hash does not follow from the text's own fields.";
                return Err(Rejection::new(RejectionCode::CommitmentHash, detail));
            }
            let model = ModelRef {
                repo,
                revision: None,
            };
            submission(commitment, model, template, competition)
        }
        _ => Err(malformed(format!(
            "The text {text:?} has {} parts.",
            parts.len()
        ))),
    }
}

fn submission(
    commitment: &Commitment,
    model: ModelRef,
    template: &str,
    competition: &str,
) -> Result<Submission, Rejection> {
    let template = template
        .parse()
        .map_err(|detail| Rejection::new(RejectionCode::TemplateUnknown, sentence(&detail)))?;
    Ok(Submission {
        hotkey: commitment.hotkey,
        block: commitment.block,
        model,
        template,
        competition: competition.parse().map_err(malformed)?,
    })
}

fn check_signer(commitment: &Commitment, named: &str) -> Result<(), Rejection> {
    if named == commitment.hotkey.to_string() {
        return Ok(());
    }
    let detail = format!(
        "The text names {named:?}, the signer is {}.",
        commitment.hotkey
    );
    Err(Rejection::new(RejectionCode::HotkeyMismatch, detail))
}

fn malformed(detail: impl std::fmt::Display) -> Rejection {
    Rejection::new(RejectionCode::CommitmentMalformed, sentence(&detail))
}

/// An error's text, which has neither capital nor full stop, as a sentence.
fn sentence(error: &impl std::fmt::Display) -> String {
    let text = error.to_string();
    let mut chars = text.chars();
    let first: String = chars
        .next()
        .into_iter()
        .flat_map(char::to_uppercase)
        .collect();
    let stop = if text.ends_with('.') { "" } else { "." };
    format!("{first}{}{stop}", chars.as_str())
}

/// The text that a miner commits.
///
/// # Errors
/// The length in bytes, when it exceeds [`TEXT_BYTES_MAX`].
pub fn format(
    repo: &RepoId,
    revision: &Revision,
    template: Template,
    competition: &CompetitionId,
) -> Result<String, usize> {
    let text = draft(
        &repo.to_string(),
        revision.as_str(),
        template.as_str(),
        competition.as_str(),
    );
    if text.len() > TEXT_BYTES_MAX {
        return Err(text.len());
    }
    Ok(text)
}

/// The same text from parts that nobody has checked yet: [`parse`] then says what is wrong with them.
#[must_use]
pub fn draft(repo: &str, revision: &str, template: &str, competition: &str) -> String {
    format!("2:{repo}:{revision}:{template}:{competition}")
}

/// The origin's text for the same model; it carries no revision.
#[must_use]
pub fn format_origin(
    repo: &RepoId,
    template: Template,
    hotkey: &Hotkey,
    competition: &CompetitionId,
) -> String {
    let hash = origin_hash(repo, template.as_str(), hotkey);
    let (namespace, name) = (repo.namespace(), repo.name());
    format!("{namespace}:{name}:{template}:{hotkey}:{hash}:{competition}")
}

/// First 16 hex digits of SHA-256 of `"namespace name template hotkey"`, as a number.
fn origin_hash(repo: &RepoId, template: &str, hotkey: &Hotkey) -> u64 {
    let text = format!("{} {} {template} {hotkey}", repo.namespace(), repo.name());
    let digest = Sha256::digest(text.as_bytes());
    digest[..8]
        .iter()
        .fold(0, |value, byte| value << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests;
