//! Likelihood numbers: diagnostics and fingerprints, never reward. They are made inside the sealed
//! container, so a model that breaks out could write any; nothing in the ranking reads them.

use serde::{Deserialize, Serialize};

/// Likelihood of reference texts under a model.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Likelihood {
    /// Sum of −ln p over all tokens, in nats.
    pub nats: f64,
    /// UTF-8 bytes of the texts: makes tokenizers comparable.
    pub bytes: u64,
}

impl Likelihood {
    /// Two texts together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            nats: self.nats + other.nats,
            bytes: self.bytes.saturating_add(other.bytes),
        }
    }

    /// `nats / (ln 2 · bytes)`: the lower, the better the model knows the texts. `None` without
    /// bytes or without a finite sum.
    #[must_use]
    pub fn bits_per_byte(self) -> Option<f64> {
        let bytes = f64::from(u32::try_from(self.bytes).ok().filter(|b| *b > 0)?);
        let bits = self.nats / std::f64::consts::LN_2 / bytes;
        bits.is_finite().then_some(bits)
    }
}

/// How much better a model knows old items than fresh ones, in bits per byte: what
/// [`super::score::contamination::outliers`] compares across the field.
#[must_use]
pub fn gap(fresh: Likelihood, anchor: Likelihood) -> Option<f64> {
    Some(fresh.bits_per_byte()? - anchor.bits_per_byte()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_per_byte_do_not_depend_on_the_tokenizer() {
        // One byte costs ln 256 nats under a model that knows nothing: 8 bits.
        let none = Likelihood {
            nats: 256f64.ln() * 100.0,
            bytes: 100,
        };
        assert!((none.bits_per_byte().unwrap() - 8.0).abs() < 1e-12);
        assert!((none.plus(none).bits_per_byte().unwrap() - 8.0).abs() < 1e-12);
        assert_eq!(Likelihood::default().bits_per_byte(), None);
        let broken = Likelihood {
            nats: f64::NAN,
            bytes: 1,
        };
        assert_eq!(broken.bits_per_byte(), None);
        let learnt = Likelihood {
            nats: 100.0 * std::f64::consts::LN_2,
            bytes: 100,
        };
        assert!((gap(none, learnt).unwrap() - 7.0).abs() < 1e-12);
        assert_eq!(gap(none, broken), None);
    }
}
