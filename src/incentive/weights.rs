//! From shares to the vector that goes on chain, and every check that the chain will make.

use crate::bittensor::Uid;

mod allocate;
mod error;
mod last_good;
mod preflight;

pub use allocate::{allocate, burn};
pub use error::WeightError;
pub use last_good::{LastGood, StandIn, stand_in};
pub use preflight::preflight;

/// Weights of one validator, in the chain's own scale: ordered by uid, each uid once, never empty,
/// the largest value `u16::MAX`. Zeros are there only to reach the chain's smallest length.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WeightVector(Vec<(Uid, u16)>);

impl WeightVector {
    /// Orders the entries and raises them so that the largest is `u16::MAX`.
    ///
    /// # Errors
    /// [`WeightError`] when there is no entry, every value is 0, or a uid occurs twice.
    pub fn new(mut entries: Vec<(Uid, u16)>) -> Result<Self, WeightError> {
        if entries.is_empty() {
            return Err(WeightError::Empty);
        }
        entries.sort_unstable();
        if let Some(pair) = entries.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            return Err(WeightError::DuplicateUids(pair[0].0));
        }
        max_upscale(&mut entries)?;
        Ok(Self(entries))
    }

    /// Values in proportion to `shares`, `round(share / largest × 65535)`. Shares that round to 0
    /// are left out.
    ///
    /// # Errors
    /// As [`WeightVector::new`]; also when a share is negative, NaN or infinite.
    pub fn from_shares(shares: &[(Uid, f64)]) -> Result<Self, WeightError> {
        let largest = shares.iter().map(|(_, share)| *share).fold(0.0, f64::max);
        let mut entries = Vec::with_capacity(shares.len());
        for (uid, share) in shares {
            if !share.is_finite() || *share < 0.0 {
                return Err(WeightError::NotAShare(*uid));
            }
            if largest > 0.0 {
                entries.push((*uid, quantise(share / largest)));
            }
        }
        entries.retain(|(_, value)| *value > 0);
        Self::new(entries)
    }

    /// The entries, ordered by uid.
    #[must_use]
    pub fn entries(&self) -> &[(Uid, u16)] {
        &self.0
    }

    /// Whether a row read from chain holds these weights: the same uids have weight, and each value
    /// differs by at most 1 after both were raised as the chain does on storing. Zeros do not count.
    #[must_use]
    pub fn matches(&self, on_chain: &[(Uid, u16)]) -> bool {
        let weighty = |entries: &[(Uid, u16)]| {
            let mut kept: Vec<_> = entries.iter().copied().filter(|(_, v)| *v > 0).collect();
            kept.sort_unstable();
            kept
        };
        let Ok(theirs) = Self::new(weighty(on_chain)) else {
            return false;
        };
        let mine = weighty(&self.0);
        mine.len() == theirs.0.len()
            && mine
                .iter()
                .zip(&theirs.0)
                .all(|(a, b)| a.0 == b.0 && a.1.abs_diff(b.1) <= 1)
    }

    /// Adds zeros for the lowest free uids below `neurons` until there are `length` entries.
    fn pad(&mut self, length: usize, neurons: usize) {
        let free: Vec<Uid> = (0..neurons)
            .filter_map(|index| u16::try_from(index).ok().map(Uid))
            .filter(|uid| self.0.binary_search_by_key(uid, |(u, _)| *u).is_err())
            .take(length.saturating_sub(self.0.len()))
            .collect();
        self.0.extend(free.into_iter().map(|uid| (uid, 0)));
        self.0.sort_unstable();
    }

    /// Whether the largest entry's part of the sum is within `limit / 65535`
    /// (`check_vec_max_limited`).
    fn within_limit(&self, limit: u16) -> bool {
        let sum: u64 = self.0.iter().map(|(_, value)| u64::from(*value)).sum();
        let largest = self.0.iter().map(|(_, value)| *value).max().unwrap_or(0);
        u64::from(largest) * u64::from(u16::MAX) <= u64::from(limit) * sum
    }
}

/// `vec_u16_max_upscale_to_u16`: value × 65535 / largest, rounded.
fn max_upscale(entries: &mut [(Uid, u16)]) -> Result<(), WeightError> {
    let largest = entries.iter().map(|(_, value)| *value).max().unwrap_or(0);
    if largest == 0 {
        return Err(WeightError::AllZero);
    }
    for (_, value) in entries {
        *value = quantise(f64::from(*value) / f64::from(largest));
    }
    Ok(())
}

/// Part of the largest value, 0 to 1, in the chain's scale.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "clamped to the range of u16 just before"
)]
fn quantise(part: f64) -> u16 {
    (part * f64::from(u16::MAX))
        .round()
        .clamp(0.0, f64::from(u16::MAX)) as u16
}

#[cfg(test)]
mod tests;
