//! `assay commit`: a miner's model on chain, after everything that can be known was checked.

mod draft;
mod report;

pub(super) use report::tao;

use super::run::{chain_settings, load_pair};
use super::{Failure, print_line};
use crate::bittensor::{BlockRef, Commitment, SubnetSnapshot};
use crate::chain::{
    Call, ChainClient, CommitmentTerms, HotkeyPair, Inclusion, Remedy, SignedCall, SubmitError,
};
use crate::cli::CommitOptions;
use crate::config::{self, Miner};
use crate::hub::{HubClient, HubError, HubSettings, RepoFacts};
use crate::incentive::eligibility::{self, RepoFile};
use crate::incentive::{Era, Rejection, Submission, era_at};
use crate::service::intake::rule_file;
use draft::Draft;
use report::{Committed, Cost, Model, Outcome, Present, Report};

/// Most signatures for one commitment: the first, and two more where the pool asks for it.
const SIGNATURES: usize = 3;

/// What the hub says about the model, as far as it was asked.
enum Listing {
    NotAsked,
    Public(RepoFacts),
    Unavailable(String),
}

/// Checks, shows, and unless it is a dry run commits and reads back.
///
/// # Errors
/// [`Failure`]: 64 for what the validator would reject, with its code and sentence, and for a
/// replacement that was not asked for; 69 when the chain or the hub cannot be reached or refuses.
pub async fn run(options: &CommitOptions) -> Result<(), Failure> {
    let config = config::load_miner(&options.config).map_err(Failure::usage)?;
    let pair = load_pair(&config.wallet)?;
    // What the text alone decides needs neither hub nor chain.
    if let Err(rejection) = draft::parse(&draft::provisional(options), pair.hotkey()) {
        return refuse(&rejection, options.json);
    }
    let listing = listing(&config, options).await?;
    let text = text(options, &listing)?;
    let client = ChainClient::connect(&chain_settings(&config.chain))
        .await
        .map_err(Failure::unavailable)?;
    let miner = Committer {
        client,
        pair,
        config,
    };
    let at = miner.client.finalised_head().await;
    let at = at.map_err(Failure::unavailable)?;
    let netuid = miner.config.chain.netuid;
    let snapshot = miner.client.snapshot(netuid, at).await;
    let snapshot = snapshot.map_err(Failure::unavailable)?;
    let draft = match miner.check(&text, &listing, &snapshot) {
        Ok(draft) => draft,
        Err(rejection) => return refuse(&rejection, options.json),
    };
    let (signed, mut report) = miner.prepare(&draft, &snapshot).await?;
    report.outcome = outcome(&draft, &report, options);
    if report.outcome == Outcome::Sent {
        report.committed = Some(miner.commit(signed, &draft).await?);
    }
    report.print(options.json)?;
    match report.outcome {
        Outcome::NoSpace => Err(report.cost.refusal()),
        Outcome::NotReplaced => Err(Failure::usage(
            "nothing was sent: there is a commitment already; add --replace to replace it",
        )),
        Outcome::AlreadyCommitted | Outcome::DryRun | Outcome::Sent => Ok(()),
    }
}

/// What happens with a draft that passed every check.
fn outcome(draft: &Draft<'_>, report: &Report, options: &CommitOptions) -> Outcome {
    if draft.is_on_chain() {
        Outcome::AlreadyCommitted
    } else if report.cost.space > report.cost.space_left {
        Outcome::NoSpace
    } else if options.dry_run {
        Outcome::DryRun
    } else if draft.present_stands && !options.replace {
        Outcome::NotReplaced
    } else {
        Outcome::Sent
    }
}

fn refuse(rejection: &Rejection, json: bool) -> Result<(), Failure> {
    if json {
        print_line(serde_json::json!({
            "outcome": "rejected",
            "code": rejection.code.as_str(),
            "detail": rejection.detail,
            "advice": rejection.code.advice(),
        }))?;
    }
    Err(Failure::usage(format_args!(
        "nothing was sent: the validator would reject this: {rejection}"
    )))
}

/// Asks the hub for the model's files, where the configuration names a hub and nobody forbade it.
async fn listing(config: &Miner, options: &CommitOptions) -> Result<Listing, Failure> {
    let Some(hub) = config.hub.as_ref().filter(|_| !options.no_hub) else {
        return Ok(Listing::NotAsked);
    };
    let (repo, revision) = draft::repository(options);
    let Some(repo) = repo else {
        return Ok(Listing::NotAsked);
    };
    let settings = HubSettings {
        token: hub.token().map_err(Failure::usage)?,
        request_timeout: hub.request_timeout,
        ..HubSettings::new(hub.endpoint.clone())
    };
    let client = HubClient::new(settings).map_err(Failure::usage)?;
    match client.facts(&repo, revision.as_deref()).await {
        Ok(facts) => Ok(Listing::Public(facts)),
        Err(HubError::Unavailable { message, .. }) => Ok(Listing::Unavailable(message)),
        Err(error) => Err(Failure::unavailable(format_args!(
            "the model could not be looked up, which says nothing about it: {error}; try again, or \
             commit unchecked with --no-hub"
        ))),
    }
}

/// The text to commit; where no revision was given, of the repository's present head.
fn text(options: &CommitOptions, listing: &Listing) -> Result<String, Failure> {
    if let Some(text) = &options.text {
        return Ok(text.clone());
    }
    let revision = match (&options.revision, listing) {
        (Some(revision), _) => revision.as_str(),
        (None, Listing::Public(facts)) => &facts.revision,
        // Without a repository there is no head to pin.
        (None, Listing::Unavailable(reason)) => {
            return Err(Failure::usage(format_args!(
                "no --revision was given, and the hub has no head to take: {reason}"
            )));
        }
        (None, Listing::NotAsked) => {
            return Err(Failure::usage(
                "give --revision: without the hub nobody knows the repository's head",
            ));
        }
    };
    Ok(draft::compose(options, revision))
}

struct Committer {
    client: ChainClient,
    pair: HotkeyPair,
    config: Miner,
}

impl Committer {
    /// The validator's rules, as far as chain and hub answer them, in the validator's order.
    fn check<'a>(
        &'a self,
        text: &str,
        listing: &Listing,
        snapshot: &SubnetSnapshot,
    ) -> Result<Draft<'a>, Rejection> {
        let next = snapshot.at.number.plus(1);
        let era = era_at(&self.config.eras, next);
        let hotkey = self.pair.hotkey();
        let neuron = snapshot.metagraph.by_hotkey(&hotkey);
        let registered_at = neuron.map(|neuron| neuron.registered_at);
        let submission = draft::check(text, hotkey, next, registered_at, era)?;
        let model = check_files(&submission, listing, era)?;
        draft::check_twins(&submission, &snapshot.commitments)?;
        let kept = snapshot.commitments.iter().find(|c| c.hotkey == hotkey);
        Ok(Draft {
            text: text.to_owned(),
            submission,
            era,
            model,
            uid: neuron.map(|neuron| neuron.uid),
            present: kept.cloned(),
            present_stands: kept.is_some_and(|kept| draft::stands(kept, registered_at, era)),
        })
    }

    /// Signs the call and asks the chain what it costs. Nothing is sent.
    async fn prepare(
        &self,
        draft: &Draft<'_>,
        snapshot: &SubnetSnapshot,
    ) -> Result<(SignedCall, Report), Failure> {
        let (at, netuid) = (snapshot.at, self.config.chain.netuid);
        let hotkey = self.pair.hotkey();
        let terms = self.client.commitment_terms(at, netuid, &hotkey).await;
        let terms = terms.map_err(Failure::unavailable)?;
        let signed = self.sign(draft).await?;
        let fee = self.client.fee(at, &signed).await;
        let cost = cost(draft, &terms, fee.map_err(Failure::unavailable)?, snapshot);
        let report = Report {
            outcome: Outcome::DryRun,
            network: crate::bittensor::network_name(&self.client.genesis()),
            genesis: self.client.genesis(),
            endpoint: self.client.endpoint().to_owned(),
            netuid,
            block: at.number,
            hotkey,
            uid: draft.uid,
            text: draft.text.clone(),
            bytes: draft.text.len(),
            era_from: draft.era.map(|era| era.from_block),
            model: draft.model,
            present: draft.present.as_ref().map(Present::new),
            present_stands: draft.present_stands,
            changes: draft.changes(),
            cost,
            committed: None,
        };
        Ok((signed, report))
    }

    async fn sign(&self, draft: &Draft<'_>) -> Result<SignedCall, Failure> {
        let call = Call::SetCommitment {
            netuid: self.config.chain.netuid,
            text: draft.text.clone(),
        };
        let signed = self.client.sign(&self.pair, &call).await;
        signed.map_err(Failure::unavailable)
    }

    /// Sends it, waits for finality, and reads it back from that very block.
    async fn commit(&self, first: SignedCall, draft: &Draft<'_>) -> Result<Committed, Failure> {
        let mut signed = first;
        for left in (0..SIGNATURES).rev() {
            match self.client.carry_out(signed).await {
                Ok(inclusion) => return self.read_back(inclusion, draft).await,
                Err(error) if left > 0 && may_sign_anew(&error) => {
                    tracing::warn!(%error, "signing the commitment anew");
                }
                Err(error) => return Err(Failure::unavailable(error)),
            }
            signed = self.sign(draft).await?;
        }
        Err(Failure::bug("more signatures than there are"))
    }

    async fn read_back(
        &self,
        Inclusion { block, index, .. }: Inclusion,
        draft: &Draft<'_>,
    ) -> Result<Committed, Failure> {
        let netuid = self.config.chain.netuid;
        let kept = self
            .client
            .commitment(block, netuid, &self.pair.hotkey())
            .await
            .map_err(|e| {
                Failure::unavailable(format_args!(
                    "committed in block {} ({}), but it could not be read back: {e}",
                    block.number, block.hash
                ))
            })?;
        match kept {
            Some(kept) if is(&kept, draft, block) => Ok(Committed { block, index }),
            other => Err(Failure::unavailable(format_args!(
                "the call succeeded in block {}, but the chain holds {other:?} there; another \
                 process may commit with this hotkey",
                block.number
            ))),
        }
    }
}

fn is(kept: &Commitment, draft: &Draft<'_>, block: BlockRef) -> bool {
    kept.block == block.number && kept.text().is_ok_and(|text| text == draft.text)
}

/// Whether the error proves that nothing of the call is on chain, and a new signature may help.
fn may_sign_anew(error: &SubmitError) -> bool {
    match error {
        SubmitError::Pool { refusal, .. } => refusal.remedy() == Remedy::SignAnew,
        SubmitError::NeverIncluded(_) => true,
        _ => false,
    }
}

fn check_files(
    submission: &Submission,
    listing: &Listing,
    era: Option<&Era>,
) -> Result<Option<Model>, Rejection> {
    let facts = match listing {
        Listing::NotAsked => return Ok(None),
        Listing::Unavailable(reason) => return Err(eligibility::unavailable(submission, reason)),
        Listing::Public(facts) => facts,
    };
    let files: Vec<RepoFile> = facts.files.iter().map(rule_file).collect();
    let mut model = Model {
        files: files.len(),
        weight_bytes: None,
    };
    if let Some(era) = era {
        let chosen = eligibility::select_files(&files, &era.admission)?;
        model.files = chosen.all().count();
        model.weight_bytes = Some(chosen.weight_bytes());
    }
    Ok(Some(model))
}

fn cost(draft: &Draft<'_>, terms: &CommitmentTerms, fee: u64, snapshot: &SubnetSnapshot) -> Cost {
    Cost {
        fee_rao: fee,
        deposit_rao: terms.initial_deposit.saturating_add(terms.field_deposit),
        space: CommitmentTerms::space_of(draft.text.len()),
        space_left: terms.space_left(),
        space_max: terms.space_max,
        next_epoch_block: snapshot.next_epoch_block,
    }
}
