//! How well the model foresees the references.

use crate::failure::{Failure, OrFailure};
use crate::generate::{Generator, finite};
use crate::model::Cache;
use assay_protocol::ResultCode;

/// Negative log-likelihood of some text.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Surprise {
    /// In nats.
    pub(crate) nats: f64,
    /// Bytes of text that it covers.
    pub(crate) bytes: usize,
}

impl Surprise {
    /// Bits per byte; 0 for no text.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "byte counts are far below 2^53")]
    pub(crate) fn bits_per_byte(self) -> f64 {
        if self.bytes == 0 {
            return 0.0;
        }
        self.nats / std::f64::consts::LN_2 / self.bytes as f64
    }
}

/// Teacher-forced likelihood of `reference` after `prompt`: its first `max_tokens` tokens, the end
/// of the reply not counted.
///
/// # Errors
/// As [`Generator::reply`] and [`Generator::prompt`].
pub(crate) fn surprise(
    generator: &Generator,
    prompt: &[u32],
    reference: &str,
    max_tokens: usize,
) -> Result<Surprise, Failure> {
    let (mut target, ends) = generator.encode(reference)?;
    let bytes = if target.len() <= max_tokens {
        reference.len()
    } else {
        target.truncate(max_tokens);
        max_tokens.checked_sub(1).map_or(0, |last| ends[last])
    };
    let mut cache = Cache::default();
    let mut logits = generator.feed(prompt, &mut cache, &mut || Ok(()))?;
    let mut nats = 0.0;
    for id in target {
        nats -= log_probability(&logits, id)?;
        logits = generator.logits(&[id], &mut cache)?;
    }
    Ok(Surprise { nats, bytes })
}

/// Natural log of the softmax at `id`, summed in f64.
fn log_probability(logits: &[f32], id: u32) -> Result<f64, Failure> {
    logits.iter().try_for_each(|logit| finite(*logit))?;
    let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|l| f64::from(l - most).exp()).sum();
    let own = usize::try_from(id).ok().and_then(|id| logits.get(id));
    let own = own
        .ok_or("id outside of the logits")
        .or_failure(ResultCode::Vocab, id)?;
    Ok(f64::from(own - most) - sum.ln())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_probabilities_sum_to_one_and_survive_large_logits() {
        let logits = [1000.0, 999.0, -1000.0];
        let sum: f64 = (0..3)
            .map(|id| log_probability(&logits, id).unwrap().exp())
            .sum();
        assert!((sum - 1.0).abs() < 1e-12);
        assert!(log_probability(&logits, 3).is_err());
        assert!(log_probability(&[f32::NAN], 0).is_err());
    }

    #[test]
    fn a_nat_is_so_many_bits() {
        let one = Surprise {
            nats: std::f64::consts::LN_2 * 8.0,
            bytes: 4,
        };
        assert!((one.bits_per_byte() - 2.0).abs() < 1e-12);
        assert!(Surprise::default().bits_per_byte().abs() < 1e-12);
    }
}
