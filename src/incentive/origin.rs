//! The origin's formulas, for reports that compare with it. Nothing here decides a weight but
//! [`compute_wins`] and [`softmax`], which the `win-rate` rule uses; the quality terms are known to
//! fall where quality rises, and are kept as they were.

use super::statistics::count;

/// Logits that the origin keeps at each position, so that large vocabularies are not at a
/// disadvantage.
const KEPT_LOGITS: usize = 10;
/// Probability of a token outside them.
const OUTSIDE: f64 = 1e-9;
/// Longest run of tokens whose joint probability counts.
const GRAMS: usize = 4;
/// Size at which the size score is 0: 72 GiB.
const SIZE_LIMIT_BYTES: f64 = 72.0 * 1024.0 * 1024.0 * 1024.0;
/// Size score below which the penalty begins.
const SIZE_KNEE: f64 = 0.75;
/// Coherence below which the total is 0.
const COHERENCE_MIN: f64 = 0.95;

/// Softmax over the ten largest logits of one position: probabilities with their token numbers,
/// largest first, equal logits in order of token.
fn kept(logits: &[f64]) -> Vec<(usize, f64)> {
    let mut order: Vec<usize> = (0..logits.len()).collect();
    order.sort_by(|a, b| logits[*b].total_cmp(&logits[*a]).then(a.cmp(b)));
    order.truncate(KEPT_LOGITS);
    let largest = order.first().map_or(0.0, |i| logits[*i]);
    let powers: Vec<f64> = order.iter().map(|i| (logits[*i] - largest).exp()).collect();
    let sum: f64 = powers.iter().sum();
    let share = |(i, power): (usize, f64)| (i, power / sum);
    order.into_iter().zip(powers).map(share).collect()
}

/// Probability of the true token among the ten largest logits of its position, else 1e-9.
#[must_use]
pub fn token_probability(logits: &[f64], token: usize) -> f64 {
    let found = kept(logits).into_iter().find(|(i, _)| *i == token);
    found.map_or(OUTSIDE, |(_, p)| p)
}

/// Entropy in nats of the ten largest logits' softmax at one position.
#[must_use]
pub fn token_entropy(logits: &[f64]) -> f64 {
    let terms = kept(logits).into_iter().map(|(_, p)| p);
    -terms.filter(|p| *p > 0.0).map(|p| p * p.ln()).sum::<f64>()
}

/// Evaluation score of one batch: `Q = ¼ Σₖ₌₁⁴ (1/T) Σₜ pₜ pₜ₊₁ … pₜ₊ₖ₋₁` over the `T` target tokens;
/// each sum is divided by `T`, also where fewer runs fit. 0 for no token.
#[must_use]
pub fn evaluation(probabilities: &[f64]) -> f64 {
    if probabilities.is_empty() {
        return 0.0;
    }
    let gram = |k: usize| -> f64 {
        let joint = probabilities.windows(k).map(|w| w.iter().product::<f64>());
        joint.sum::<f64>() / count(probabilities.len())
    };
    (1..=GRAMS).map(gram).sum::<f64>() / count(GRAMS)
}

/// Creativity of one batch from its positions' entropies: `C = 1 − exp(−5 h)`, `h` the mean entropy
/// divided by ln 10.
#[must_use]
pub fn creativity(entropies: &[f64]) -> f64 {
    let mean = entropies.iter().sum::<f64>() / count(entropies.len().max(1));
    1.0 - (-5.0 * mean / 10f64.ln()).exp()
}

/// Mean over batches, as the origin takes both evaluation and creativity.
#[must_use]
pub fn batch_mean(batches: &[f64]) -> f64 {
    batches.iter().sum::<f64>() / count(batches.len().max(1))
}

/// Quality adjusted by creativity: `q′ = Q / (1 + e^{8(Q − ¼)} · e^{−8(C − ½)})`.
#[must_use]
pub fn adjusted_quality(evaluation: f64, creativity: f64) -> f64 {
    let confidence = (8.0 * (evaluation - 0.25)).exp();
    let sameness = (-8.0 * (creativity - 0.5)).exp();
    evaluation / (1.0 + confidence * sameness)
}

/// Coherence of `dialogues`: `exceptions` could not be judged, `zeros` were judged incoherent.
/// `None` when more than a tenth could not be judged: the origin gives up then.
#[must_use]
pub fn coherence(dialogues: usize, exceptions: usize, zeros: usize) -> Option<f64> {
    if exceptions * 10 > dialogues || exceptions >= dialogues {
        return None;
    }
    let judged = count(dialogues - exceptions);
    Some((judged - count(zeros)) / judged)
}

/// Latency score of the timed forward passes, in milliseconds: `L = 1 − 0.95 · mean / 10,000`. Not
/// cut off: it falls below 0 for very slow models.
#[must_use]
pub fn latency(passes_ms: &[f64]) -> f64 {
    1.0 - 0.95 * batch_mean(passes_ms) / 10_000.0
}

/// Size score: `Z = 1 − bytes / 72 GiB`.
#[must_use]
pub fn size(bytes: u64) -> f64 {
    // Model sizes lie far below 2⁵³ bytes; two halves keep the conversion exact.
    let high = f64::from(u32::try_from(bytes >> 32).unwrap_or(u32::MAX));
    let low = f64::from(u32::try_from(bytes & 0xffff_ffff).unwrap_or(u32::MAX));
    1.0 - (high * 4_294_967_296.0 + low) / SIZE_LIMIT_BYTES
}

/// Factor for large models: `(Z / ¾)⁸` below ¾, else 1. The origin computes and does not use it.
#[must_use]
pub fn size_penalty(size: f64) -> f64 {
    if size < SIZE_KNEE {
        (size / SIZE_KNEE).powi(8)
    } else {
        1.0
    }
}

/// Judge's win rate: verdicts for the generated reply of three per valid conversation; ties count
/// nothing. `None` when more than a tenth of the `asked` calls failed, or all did.
#[must_use]
pub fn judge_win_rate(generated: usize, valid: usize, asked: usize) -> Option<f64> {
    let failed = asked.saturating_sub(valid);
    if valid == 0 || failed * 10 > asked {
        return None;
    }
    Some(count(generated) / (3.0 * count(valid)))
}

/// The parts of the origin's former total.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Parts {
    /// [`adjusted_quality`].
    pub quality: f64,
    /// [`latency`].
    pub latency: f64,
    /// [`coherence`].
    pub coherence: f64,
    /// [`judge_win_rate`].
    pub judge: f64,
}

/// The origin's former total: `(0.84 q′ + 0.16 L)`, 0 below a coherence of 0.95, times 1.5 where the
/// judge's win rate lies strictly between 0.45 and 1; a win rate of 1 counts as faulty data, 0. Its
/// final total is the win rate alone.
#[must_use]
pub fn former_total(parts: &Parts) -> f64 {
    if parts.coherence < COHERENCE_MIN {
        return 0.0;
    }
    let boost = if parts.judge > 0.45 && parts.judge < 1.0 {
        1.5
    } else {
        1.0
    };
    (0.84 * parts.quality + 0.16 * parts.latency) * boost
}

/// Share of others that each model beats, for models given as (score, commit block). One beats
/// another when its score is strictly larger after the newer model's was multiplied by
/// `newer_factor`; models of one block are compared as they are. A lone model beats nobody: 0.
#[must_use]
pub fn compute_wins(models: &[(f64, u64)], newer_factor: f64) -> Vec<f64> {
    let weighted = |mine: &(f64, u64), other: &(f64, u64)| {
        if mine.1 > other.1 {
            mine.0 * newer_factor
        } else {
            mine.0
        }
    };
    let others = count(models.len().saturating_sub(1).max(1));
    let beats = |a: &(f64, u64), b: &(f64, u64)| weighted(a, b) > weighted(b, a);
    models
        .iter()
        .map(|a| count(models.iter().filter(|b| beats(a, b)).count()) / others)
        .collect()
}

/// `exp(rateᵢ / temperature) / Σ exp(rateⱼ / temperature)`.
#[must_use]
pub fn softmax(rates: &[f64], temperature: f64) -> Vec<f64> {
    // Shifted by the best rate, which cancels out, so that no exponent overflows.
    let best = rates.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let powers: Vec<f64> = rates
        .iter()
        .map(|rate| ((rate - best) / temperature).exp())
        .collect();
    let total: f64 = powers.iter().sum();
    powers.into_iter().map(|power| power / total).collect()
}

#[cfg(test)]
mod tests;
