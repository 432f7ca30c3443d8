//! Signatures: what is checked before any curve arithmetic, and how much of that there is.

use std::time::Duration;

use axum::http::request::Parts;

use super::Gate;
use crate::clock::now_ms;
use crate::dataset_api::budgets::since_boot_ns;
use crate::dataset_api::client::Client;
use crate::dataset_api::gcra::{Quota, seconds_up};
use crate::dataset_api::head::Head;
use crate::dataset_api::identity::signature::{Claim, Unsigned};
use crate::dataset_api::lock;
use crate::dataset_api::prefix::Prefix;
use crate::dataset_api::refusal::{Reason, Refusal};
use crate::dataset_api::settings::LaneKind;

/// What a signature is about.
#[derive(Debug, Clone, Copy)]
pub struct Signed<'a> {
    /// Method.
    pub method: &'a str,
    /// Path and query as sent.
    pub target: &'a str,
    /// The whole body.
    pub body: &'a [u8],
}

impl Gate {
    pub(super) fn signed(
        &self,
        head: &Head<'_>,
        parts: &Parts,
        prefix: Prefix,
    ) -> Result<Client, Refusal> {
        let empty = parts.headers.get("content-length").is_none_or(|n| n == "0")
            && !parts.headers.contains_key("transfer-encoding");
        if !empty {
            return Err(Reason::Signature.into());
        }
        let claim = Claim::read(&parts.headers).map_err(|_| Refusal::from(Reason::Signature))?;
        let signed = Signed {
            method: parts.method.as_str(),
            target: head.target,
            body: b"",
        };
        self.prove(&claim, signed, prefix)?;
        Ok(self.shared.by_hotkey(claim.sender(), prefix))
    }

    /// Takes one verification out of the prefix's and the lane's budget for curve arithmetic.
    ///
    /// # Errors
    /// 429 for the prefix, 503 for the lane.
    pub fn may_verify(&self, prefix: Prefix) -> Result<(), Refusal> {
        let now = since_boot_ns();
        if !self.is_trusted(&prefix) {
            let many = |wait| Refusal::after(Reason::TooManySignatures, seconds_up(wait));
            lock(&self.prefixes).signature(prefix, now).map_err(many)?;
        }
        let quota = self.verifier_quota();
        let mut verifier = lock(&self.verifier);
        let busy = |wait| Refusal::after(Reason::VerifierBusy, seconds_up(wait));
        *verifier = quota.take(*verifier, now).map_err(busy)?;
        Ok(())
    }

    fn verifier_quota(&self) -> Quota {
        let rate = self.settings.signatures_per_s.max(1);
        Quota::new(rate, rate, Duration::from_secs(1))
    }

    /// The refusal for a signature that the lane's budget does not allow now; takes nothing.
    pub(super) fn verifier_busy(&self) -> Option<Refusal> {
        let taken = *lock(&self.verifier);
        let wait = self.verifier_quota().take(taken, since_boot_ns()).err()?;
        Some(Refusal::after(Reason::VerifierBusy, seconds_up(wait)))
    }

    /// Proves a claim: cheap checks, then the budget for curve arithmetic, then the curve, then
    /// the nonce.
    ///
    /// # Errors
    /// The refusal to answer with.
    pub fn prove(&self, claim: &Claim, signed: Signed<'_>, prefix: Prefix) -> Result<(), Refusal> {
        let shared = &self.shared;
        let Some(receiver) = shared.settings.receiver else {
            return Err(Reason::SignaturesOff.into());
        };
        let now = now_ms();
        let wrong = |_: Unsigned| Refusal::from(Reason::Signature);
        claim
            .check(&receiver, now, shared.started_ms)
            .map_err(wrong)?;
        // Strangers are not worth a verification where only members are served.
        if self.kind == LaneKind::Protected {
            let registry = shared.registry();
            let member = registry.hotkey(&claim.sender());
            if member.is_none_or(|m| !m.class.is_protected()) {
                return Err(Reason::WrongLane.into());
            }
        }
        self.may_verify(prefix)?;
        claim
            .verify(signed.method, signed.target, signed.body)
            .map_err(wrong)?;
        lock(&self.nonces)
            .spend(claim, now)
            .map_err(|why| match why {
                Unsigned::Full => Refusal::after(Reason::VerifierBusy, 13),
                _ => Reason::Signature.into(),
            })
    }
}
