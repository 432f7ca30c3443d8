//! Equal models: the earliest claim owns the model, whenever its equals come to light, and by whatever
//! they are known.

use crate::clock::now_ms;
use crate::incentive::copies::{self, Behaviour, Kinship, Likeness};
use crate::incentive::duplicates::{self, Claim};
use crate::incentive::era::CopyRules;
use crate::incentive::{Rejection, RejectionCode};
use crate::store::{self, Alike, Fingerprint, Known, Seen, Store, StoreError, Submission};

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

/// Whether `submission` may keep its weights, beside all models of the same shape: equal values under
/// other names or in another precision are a copy, nearness is only reported. Without a kept sketch
/// nothing is compared.
///
/// # Errors
/// Trouble with the store.
pub async fn settle_weights(
    store: &Store,
    submission: &Submission,
    rules: &CopyRules,
) -> Result<Result<(), Rejection>, StoreError> {
    let Some((shape, mine)) = store.reader().sketch(submission.id).await? else {
        return Ok(Ok(()));
    };
    let others = store.reader().sketches(submission.id, &shape).await?;
    let mut found = Vec::new();
    for (i, other) in others.iter().enumerate() {
        let thirds = others.iter().enumerate().filter(|(j, _)| *j != i);
        let thirds = thirds.map(|(_, third)| &third.what);
        if let Some(likeness) = mine.beside(&other.what, thirds, rules) {
            found.push((other, likeness));
        }
    }
    conclude(store, submission, found).await
}

/// Keeps how `submission` behaved, and whether it may go on beside all models of the same round: what
/// behaves alike is the same model.
///
/// # Errors
/// Trouble with the store.
pub async fn settle_behaviour(
    store: &Store,
    submission: &Submission,
    seen: Seen,
    behaviour: &Behaviour,
    rules: &CopyRules,
) -> Result<Result<(), Rejection>, StoreError> {
    let id = submission.id;
    store.put_behaviour(id, seen.clone(), behaviour).await?;
    let others = store.reader().behaviours(id, seen).await?;
    let beside = |other: &'_ Known<Behaviour>| behaviour.beside(&other.what, rules);
    let found = others
        .iter()
        .filter_map(|other| Some((other, beside(other)?)));
    let found = found.collect();
    conclude(store, submission, found).await
}

/// Keeps the findings, rejects younger equals, and says whether `submission` is one itself.
async fn conclude<T>(
    store: &Store,
    submission: &Submission,
    found: Vec<(&Known<T>, Likeness)>,
) -> Result<Result<(), Rejection>, StoreError> {
    let mine = Claim {
        block: store.reader().since(submission).await?,
        hotkey: submission.hotkey,
    };
    let claim = |other: &Known<T>| Claim {
        block: other.since,
        hotkey: other.submission.hotkey,
    };
    let counts = |other: &Submission| {
        let code = other.rejection.as_ref().map(|r| r.code);
        matches!(code, None | Some(RejectionCode::Duplicate))
    };
    let found: Vec<_> = found
        .into_iter()
        .filter(|(other, _)| counts(&other.submission))
        .collect();
    let alike = |(other, likeness): &(&Known<T>, Likeness)| {
        let (own, theirs) = (submission.id, other.submission.id);
        let (younger, elder) = if claim(other) < mine {
            (own, theirs)
        } else {
            (theirs, own)
        };
        let likeness = *likeness;
        (younger, Alike { elder, likeness })
    };
    let foreign = |(other, _): &&(&Known<T>, _)| other.submission.hotkey != submission.hotkey;
    let kept = found.iter().filter(foreign).map(alike).collect();
    store.put_likenesses(kept, now_ms()).await?;
    let beside: Vec<_> = found.iter().map(|(other, l)| (claim(other), *l)).collect();
    if let Err(rejection) = copies::check(&mine, &beside) {
        return Ok(Err(rejection));
    }
    for (other, likeness) in found.iter().filter(|(_, l)| l.kinship == Kinship::Same) {
        let known = other.submission.rejection.is_some();
        let mut all = beside.clone();
        all.push((mine, *likeness));
        if let (false, Err(rejection)) = (known, copies::check(&claim(other), &all)) {
            let copy = other.submission.id;
            tracing::info!(submission = %copy, owner = %submission.id, "a later copy is rejected");
            store.reject(copy, rejection, now_ms()).await?;
        }
    }
    Ok(Ok(()))
}

#[cfg(test)]
mod tests;
