//! How well the model foresees the references.

use crate::failure::{Failure, OrFailure};
use crate::generate::{Generator, finite, index};
use crate::model::Cache;
use assay_protocol::{Likelihood, ReferenceLikelihood, ResultCode};

/// Probability that a token outside of the top set counts as.
const ABSENT: f64 = 1e-9;

/// Teacher-forced tokens of one reference.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Scored {
    /// Natural logs of the tokens' probabilities.
    log_probabilities: Vec<f64>,
    /// Probability of each token within the top set, [`ABSENT`] outside of it.
    top: Vec<f64>,
    /// Sum of the top sets' entropies in nats.
    entropy: f64,
    /// Bytes of text that the tokens cover.
    pub(crate) bytes: usize,
}

impl Scored {
    /// Negative log-likelihood in nats.
    pub(crate) fn nats(&self) -> f64 {
        -self.log_probabilities.iter().sum::<f64>()
    }

    /// The line of `likelihood.jsonl`; `top_k` is the size of the top set.
    #[expect(
        clippy::cast_precision_loss,
        reason = "token counts are far below 2^53"
    )]
    pub(crate) fn line(&self, id: &str, top_k: u32) -> ReferenceLikelihood {
        let tokens = self.top.len();
        let products = |k: usize| self.top.windows(k).map(|w| w.iter().product::<f64>()).sum();
        ReferenceLikelihood {
            id: id.to_owned(),
            tokens: u32::try_from(tokens).unwrap_or(u32::MAX),
            bytes: u64::try_from(self.bytes).unwrap_or(u64::MAX),
            nll: self.nats().max(0.0),
            ngram_sums: [products(1), products(2), products(3), products(4)],
            entropy: self.entropy / tokens.max(1) as f64 / f64::from(top_k.max(2)).ln(),
            lp_q16: ReferenceLikelihood::pack(&self.log_probabilities),
        }
    }

    fn add(&mut self, logits: &[f32], id: u32, top_k: usize) -> Result<(), Failure> {
        self.log_probabilities.push(log_probability(logits, id)?);
        let best = top_set(logits, top_k);
        let sum: f64 = best.iter().map(|(_, p)| p).sum();
        let own = best.iter().find(|(of, _)| *of == index(id));
        self.top
            .push(own.map_or(ABSENT, |(_, p)| (p / sum).max(ABSENT)));
        let entropy = |p: f64| if p > 0.0 { -p * p.ln() } else { 0.0 };
        self.entropy += best.iter().map(|(_, p)| entropy(p / sum)).sum::<f64>();
        Ok(())
    }
}

/// Positions of the `k` largest logits, with their exponentials relative to the largest.
fn top_set(logits: &[f32], k: usize) -> Vec<(usize, f64)> {
    let mut order: Vec<usize> = (0..logits.len()).collect();
    let k = k.clamp(1, order.len().max(1));
    let descending = |a: &usize, b: &usize| logits[*b].total_cmp(&logits[*a]).then(a.cmp(b));
    if k < order.len() {
        order.select_nth_unstable_by(k - 1, descending);
        order.truncate(k);
    }
    let most = order
        .iter()
        .map(|i| logits[*i])
        .fold(f32::NEG_INFINITY, f32::max);
    order
        .into_iter()
        .map(|i| (i, f64::from(logits[i] - most).exp()))
        .collect()
}

/// Bits per byte of `nats` over `bytes` of text; 0 for no text.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "byte counts are far below 2^53")]
pub(crate) fn bits_per_byte(nats: f64, bytes: usize) -> f64 {
    if bytes == 0 {
        return 0.0;
    }
    nats / std::f64::consts::LN_2 / bytes as f64
}

/// Teacher-forced likelihood of `reference` after `prompt`: its first `max_target_tokens` tokens,
/// the end of the reply not counted.
///
/// # Errors
/// As [`Generator::reply`] and [`Generator::prompt`].
pub(crate) fn score(
    generator: &Generator,
    prompt: &[u32],
    reference: &str,
    asked: &Likelihood,
) -> Result<Scored, Failure> {
    let max_tokens = index(asked.max_target_tokens);
    let (mut target, ends) = generator.encode(reference)?;
    let mut scored = Scored {
        bytes: reference.len(),
        ..Scored::default()
    };
    if target.len() > max_tokens {
        target.truncate(max_tokens);
        scored.bytes = max_tokens.checked_sub(1).map_or(0, |last| ends[last]);
    }
    let mut cache = Cache::default();
    let mut logits = generator.feed(prompt, &mut cache, &mut || Ok(()))?;
    for id in target {
        scored.add(&logits, id, index(asked.top_k))?;
        logits = generator.logits(&[id], &mut cache)?;
    }
    Ok(scored)
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
        assert!((bits_per_byte(std::f64::consts::LN_2 * 8.0, 4) - 2.0).abs() < 1e-12);
        assert!(bits_per_byte(0.0, 0).abs() < 1e-12);
    }

    #[test]
    fn the_top_set_alone_makes_the_n_gram_sums_and_the_entropy() {
        let mut scored = Scored::default();
        // Top 2 of e^0, e^0, e^-9: a half each; the third is outside.
        for id in [0, 1, 2] {
            scored.add(&[0.0, 0.0, -9.0], id, 2).unwrap();
        }
        let line = scored.line("a", 2);
        assert!((line.ngram_sums[0] - 1.0).abs() < 1e-8);
        assert!((line.ngram_sums[1] - 0.25).abs() < 1e-8);
        assert!(line.ngram_sums[2] < 1e-8 && line.ngram_sums[3].abs() < 1e-12);
        assert!((line.entropy - 1.0).abs() < 1e-12);
        assert_eq!(line.tokens, 3);
        assert!((line.log_probabilities().unwrap()[0] + 0.693).abs() < 1e-3);
    }
}
