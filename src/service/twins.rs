//! Equal models: the earliest claim owns the weights, whenever its equals come to light.

use crate::clock::now_ms;
use crate::incentive::duplicates::{self, Claim};
use crate::incentive::{Rejection, RejectionCode};
use crate::store::{self, Fingerprint, Store, StoreError, Submission};

/// Most claims looked at; far above what one model attracts.
const CLAIMS_MAX: u32 = 500;

/// Whether `submission` may keep the fingerprint. When it owns it, later claims that were accepted
/// before it came to light are rejected now.
///
/// # Errors
/// Trouble with the store.
pub async fn settle(
    store: &Store,
    submission: &Submission,
    fingerprint: Fingerprint,
) -> Result<Result<(), Rejection>, StoreError> {
    let claims = store.reader().claims(fingerprint, CLAIMS_MAX).await?;
    let standing: Vec<_> = claims.iter().filter(|claim| stands(claim)).collect();
    let mine = Claim {
        block: submission.commit_block,
        hotkey: submission.hotkey,
    };
    let others: Vec<_> = standing.iter().map(|claim| rule_claim(claim)).collect();
    if let Err(rejection) = duplicates::check(&mine, &others) {
        return Ok(Err(rejection));
    }
    let with_mine: Vec<_> = others.iter().copied().chain([mine]).collect();
    for claim in standing
        .iter()
        .filter(|claim| claim.submission != submission.id)
    {
        if let Err(rejection) = duplicates::check(&rule_claim(claim), &with_mine) {
            tracing::info!(submission = %claim.submission, owner = %submission.id, "a later equal is rejected");
            store.reject(claim.submission, rejection, now_ms()).await?;
        }
    }
    Ok(Ok(()))
}

/// A claim counts unless it was rejected for another reason than being a duplicate: a copy of a
/// rejected model gains nothing, and a copy of a copy still is one.
fn stands(claim: &store::Claim) -> bool {
    matches!(claim.rejection, None | Some(RejectionCode::Duplicate))
}

fn rule_claim(claim: &store::Claim) -> Claim {
    Claim {
        block: claim.commit_block,
        hotkey: claim.hotkey,
    }
}
