//! What is to be committed, checked by the validator's own rules and compared with what is there.

use super::report::{Change, Model};
use crate::bittensor::{BlockNumber, Commitment, CommitmentField, Hotkey, Uid};
use crate::cli::CommitOptions;
use crate::incentive::duplicates::{self, Claim};
use crate::incentive::{Era, Rejection, Submission, eligibility, submission};

/// A commitment that no rule known here rejects.
pub(super) struct Draft<'a> {
    pub(super) text: String,
    pub(super) submission: Submission,
    /// The rules that it was checked by, where they are known.
    pub(super) era: Option<&'a Era>,
    /// What the hub said.
    pub(super) model: Option<Model>,
    pub(super) uid: Option<Uid>,
    /// What the hotkey has on chain now.
    pub(super) present: Option<Commitment>,
    /// Whether that still counts.
    pub(super) present_stands: bool,
}

impl Draft<'_> {
    /// Whether the very same text is on chain and counts: to commit it again would only move its
    /// block, and the earlier of two equals wins.
    pub(super) fn is_on_chain(&self) -> bool {
        let kept = self.present.as_ref().and_then(|kept| kept.text().ok());
        self.present_stands && kept.is_some_and(|text| text == self.text)
    }

    /// How it differs from what is on chain, part by part.
    pub(super) fn changes(&self) -> Vec<Change> {
        let Some(present) = &self.present else {
            return Vec::new();
        };
        let old = match (present.text(), submission::parse(present)) {
            (_, Ok(old)) => old,
            (Ok(text), Err(_)) => return vec![Change::new("text", &text, &self.text)],
            (Err(error), Err(_)) => {
                return vec![Change::new("text", &error.to_string(), &self.text)];
            }
        };
        let new = &self.submission;
        let head = || "the head at first sight".to_owned();
        let revision = |s: &Submission| {
            s.model
                .revision
                .as_ref()
                .map_or_else(head, ToString::to_string)
        };
        let parts = [
            (
                "repository",
                old.model.repo.to_string(),
                new.model.repo.to_string(),
            ),
            ("revision", revision(&old), revision(new)),
            (
                "template",
                old.template.to_string(),
                new.template.to_string(),
            ),
            (
                "competition",
                old.competition.to_string(),
                new.competition.to_string(),
            ),
        ];
        parts
            .iter()
            .filter(|(_, from, to)| from != to)
            .map(|(part, from, to)| Change::new(part, from, to))
            .collect()
    }
}

/// Repository and revision that the hub is asked about; no repository where the text has none.
pub(super) fn repository(options: &CommitOptions) -> (Option<String>, Option<String>) {
    let Some(text) = &options.text else {
        return (options.repo.clone(), options.revision.clone());
    };
    match text.split(':').collect::<Vec<_>>()[..] {
        ["2", repo, revision, ..] => (Some(repo.to_owned()), Some(revision.to_owned())),
        [namespace, name, _, _, _, _] => (Some(format!("{namespace}/{name}")), None),
        _ => (None, None),
    }
}

/// The text, with zeros in the revision's place where the hub has yet to name it.
pub(super) fn provisional(options: &CommitOptions) -> String {
    let text = options.text.clone();
    text.unwrap_or_else(|| match &options.revision {
        Some(revision) => compose(options, revision),
        None => compose(options, &"0".repeat(40)),
    })
}

/// What the text alone decides.
pub(super) fn parse(text: &str, hotkey: Hotkey) -> Result<Submission, Rejection> {
    submission::parse(&as_commitment(text, hotkey, BlockNumber(0)))
}

fn as_commitment(text: &str, hotkey: Hotkey, block: BlockNumber) -> Commitment {
    Commitment {
        hotkey,
        block,
        fields: vec![CommitmentField::Raw(text.as_bytes().to_vec())],
    }
}

/// Our text from the command line's parts, unchecked.
pub(super) fn compose(options: &CommitOptions, revision: &str) -> String {
    let part = |part: &Option<String>| part.clone().unwrap_or_default();
    submission::draft(
        &part(&options.repo),
        revision,
        &part(&options.template),
        &part(&options.competition),
    )
}

/// The validator's verdict on `text`, if `hotkey` committed it in `block`.
pub(super) fn check(
    text: &str,
    hotkey: Hotkey,
    block: BlockNumber,
    registered_at: Option<BlockNumber>,
    era: Option<&Era>,
) -> Result<Submission, Rejection> {
    verdict(&as_commitment(text, hotkey, block), registered_at, era)
}

/// Whether a commitment on chain passes the rules that need nothing but the chain.
pub(super) fn stands(
    kept: &Commitment,
    registered_at: Option<BlockNumber>,
    era: Option<&Era>,
) -> bool {
    verdict(kept, registered_at, era).is_ok()
}

fn verdict(
    commitment: &Commitment,
    registered_at: Option<BlockNumber>,
    era: Option<&Era>,
) -> Result<Submission, Rejection> {
    let submission = submission::parse(commitment)?;
    match era {
        Some(era) => eligibility::check_commitment(&submission, registered_at, &era.admission)?,
        None => eligibility::check_registration(&submission, registered_at)?,
    }
    Ok(submission)
}

/// The same revision of the same repository holds the same weights. Copies in other repositories are
/// found by the validator alone.
pub(super) fn check_twins(mine: &Submission, on_chain: &[Commitment]) -> Result<(), Rejection> {
    if mine.model.revision.is_none() {
        return Ok(());
    }
    let claim = |s: &Submission| Claim {
        block: s.block,
        hotkey: s.hotkey,
    };
    let others: Vec<Claim> = on_chain
        .iter()
        .filter_map(|commitment| submission::parse(commitment).ok())
        .filter(|other| other.model == mine.model)
        .map(|other| claim(&other))
        .collect();
    duplicates::check(&claim(mine), &others)
}
