//! Length control: what a reply gains by being longer or shorter than the reference is taken off.
//! After AlpacaEval's length-controlled win rate (arXiv 2404.04475).

use crate::incentive::statistics::{logistic, logit};
use serde::{Deserialize, Serialize};

/// Strength of the ridge; every coefficient is held by it, so that a fit always exists.
const RIDGE: f64 = 1.0;
/// Characters added to both lengths, so that very short replies do not make extreme ratios.
const PAD_CHARS: f64 = 20.0;
/// A mean is kept this far from 0 and 1 before its logit is taken.
const EDGE: f64 = 0.02;
/// Steps of Newton's method; a strictly convex fit settles within ten.
const STEPS_MAX: usize = 50;

/// Lengths of a reply and of its reference, in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lengths {
    /// The miner's reply.
    pub reply: u32,
    /// The reference.
    pub reference: u32,
}

impl Lengths {
    /// The lengths of two texts.
    #[must_use]
    pub fn of(reply: &str, reference: &str) -> Self {
        let chars = |text: &str| u32::try_from(text.chars().count()).unwrap_or(u32::MAX);
        Self {
            reply: chars(reply),
            reference: chars(reference),
        }
    }

    /// `t = tanh(ln((reply + 20) / (reference + 20)))`, above −1 and below 1; 0 for equal lengths.
    #[must_use]
    pub fn relative(self) -> f64 {
        let ratio = (f64::from(self.reply) + PAD_CHARS) / (f64::from(self.reference) + PAD_CHARS);
        ratio.ln().tanh()
    }
}

/// One item of a fit: its value and its [`Lengths::relative`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Observation {
    /// 0 to 1.
    pub value: f64,
    /// Relative length, −1 to 1.
    pub length: f64,
}

/// How much a round's judge rewards length: the coefficient β of the fit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
#[serde(transparent)]
pub struct LengthEffect(f64);

impl LengthEffect {
    /// Fits `value ~ σ(a_model + β · length)` over all models of a round at once, by ridge logistic
    /// regression (λ = 1), and keeps β within ±`limit`. The order of the models does not matter
    /// beyond rounding.
    #[must_use]
    pub fn fit(models: &[Vec<Observation>], limit: f64) -> Self {
        let mut fit = Fit {
            intercepts: vec![0.0; models.len()],
            slope: 0.0,
        };
        let mut loss = fit.loss(models);
        for _ in 0..STEPS_MAX {
            let step = fit.newton_step(models);
            let Some((next, next_loss)) = fit.descend(&step, loss, models) else {
                break;
            };
            let settled = loss - next_loss < 1e-10 * (1.0 + loss.abs());
            (fit, loss) = (next, next_loss);
            if settled {
                break;
            }
        }
        Self(fit.slope.clamp(-limit, limit))
    }

    /// β.
    #[must_use]
    pub fn slope(self) -> f64 {
        self.0
    }

    /// `value − (σ(a + β · length) − σ(a))` with `a = logit` of the model's `mean`, cut to 0.02 to
    /// 0.98. May lie a little outside 0 to 1.
    #[must_use]
    pub fn controlled(self, item: Observation, mean: f64) -> f64 {
        let a = logit(mean.clamp(EDGE, 1.0 - EDGE));
        item.value - (logistic(a + self.0 * item.length) - logistic(a))
    }
}

/// A state of the fit, or a step between two.
struct Fit {
    intercepts: Vec<f64>,
    slope: f64,
}

impl Fit {
    /// Negative penalised log-likelihood.
    fn loss(&self, models: &[Vec<Observation>]) -> f64 {
        let mut loss = RIDGE / 2.0 * self.slope * self.slope;
        for (model, a) in models.iter().zip(&self.intercepts) {
            loss += RIDGE / 2.0 * a * a;
            for item in model {
                let x = a + self.slope * item.length;
                // ln(1 + eˣ) without overflow.
                loss += x.max(0.0) + (-x.abs()).exp().ln_1p() - item.value * x;
            }
        }
        loss
    }

    /// `−H⁻¹ g`. The Hessian is an arrow (one intercept for each model, one common slope), so its
    /// Schur complement is one number.
    fn newton_step(&self, models: &[Vec<Observation>]) -> Self {
        let (mut slope_gradient, mut slope_curvature) = (RIDGE * self.slope, RIDGE);
        let mut arrows = Vec::with_capacity(models.len());
        for (model, a) in models.iter().zip(&self.intercepts) {
            let (mut gradient, mut curvature, mut cross) = (RIDGE * a, RIDGE, 0.0);
            for item in model {
                let p = logistic(a + self.slope * item.length);
                let weight = p * (1.0 - p);
                gradient += p - item.value;
                curvature += weight;
                cross += weight * item.length;
                slope_gradient += (p - item.value) * item.length;
                slope_curvature += weight * item.length * item.length;
            }
            arrows.push((gradient, curvature, cross));
        }
        for (gradient, curvature, cross) in &arrows {
            slope_gradient -= cross * gradient / curvature;
            slope_curvature -= cross * cross / curvature;
        }
        let slope = -slope_gradient / slope_curvature;
        let intercept = |(gradient, curvature, cross): &(f64, f64, f64)| {
            -(gradient + cross * slope) / curvature
        };
        Self {
            intercepts: arrows.iter().map(intercept).collect(),
            slope,
        }
    }

    /// The first of the step's halvings that lowers the loss.
    fn descend(&self, step: &Self, loss: f64, models: &[Vec<Observation>]) -> Option<(Self, f64)> {
        let mut part = 1.0;
        for _ in 0..30 {
            let moved = |(a, s): (&f64, &f64)| a + part * s;
            let next = Self {
                intercepts: self
                    .intercepts
                    .iter()
                    .zip(&step.intercepts)
                    .map(moved)
                    .collect(),
                slope: self.slope + part * step.slope,
            };
            let next_loss = next.loss(models);
            if next_loss < loss {
                return Some((next, next_loss));
            }
            part /= 2.0;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    #[test]
    fn relative_length_is_the_formula() {
        let of = |reply, reference| Lengths { reply, reference }.relative();
        assert!(of(300, 300).abs() < 1e-12);
        // tanh(ln r) = (r² − 1) / (r² + 1); here r = 3.
        assert!((of(340, 100) - 0.8).abs() < 1e-12);
        assert!((of(100, 340) + 0.8).abs() < 1e-12);
        assert!(of(u32::MAX, 0) <= 1.0);
        assert_eq!(
            Lengths::of("äö", "x"),
            Lengths {
                reply: 2,
                reference: 1
            }
        );
    }

    /// A model of quality `a` whose replies are longer by `longer`, before a judge with slope `beta`.
    fn model(random: &mut ChaCha8Rng, a: f64, longer: f64, beta: f64) -> Vec<Observation> {
        (0..512)
            .map(|_| {
                let length = (longer + random.random_range(-0.5..0.5f64)).tanh();
                let win = random.random_bool(logistic(a + beta * length));
                Observation {
                    value: f64::from(u8::from(win)),
                    length,
                }
            })
            .collect()
    }

    fn mean(effect: LengthEffect, model: &[Observation]) -> f64 {
        let raw = model.iter().map(|o| o.value).sum::<f64>() / 512.0;
        model
            .iter()
            .map(|o| effect.controlled(*o, raw))
            .sum::<f64>()
            / 512.0
    }

    #[test]
    fn a_long_winded_twin_gains_little() {
        let mut random = ChaCha8Rng::seed_from_u64(5);
        let mut field: Vec<_> = (0..8)
            .map(|i| model(&mut random, f64::from(i) / 10.0 - 0.4, 0.0, 0.45))
            .collect();
        let plain: Vec<_> = (0..4).map(|_| model(&mut random, 0.0, 0.0, 0.45)).collect();
        let long: Vec<_> = (0..4).map(|_| model(&mut random, 0.0, 1.0, 0.45)).collect();
        field.extend(plain.iter().cloned().chain(long.iter().cloned()));
        let effect = LengthEffect::fit(&field, 0.5);
        assert!((effect.slope() - 0.45).abs() < 0.06, "{effect:?}");
        let of = |effect, models: &[Vec<Observation>]| {
            models.iter().map(|m| mean(effect, m)).sum::<f64>() / 4.0
        };
        let gain = |effect| of(effect, &long) - of(effect, &plain);
        assert!(gain(LengthEffect::default()) > 0.05);
        assert!(
            gain(effect) < gain(LengthEffect::default()) / 2.0,
            "{}",
            gain(effect)
        );
    }

    #[test]
    fn the_slope_is_capped_and_hopeless_fields_have_a_fit() {
        let steep: Vec<Observation> = (0..200)
            .map(|i| {
                let length = if i % 2 == 0 { 0.9 } else { -0.9 };
                Observation {
                    value: f64::from(u8::from(i % 2 == 0)),
                    length,
                }
            })
            .collect();
        assert!((LengthEffect::fit(&[steep], 0.5).slope() - 0.5).abs() < 1e-12);
        let zero = Observation {
            value: 0.0,
            length: 0.3,
        };
        let slope = LengthEffect::fit(&[vec![zero; 64]], 0.5).slope();
        assert!(slope.is_finite());
        assert!(LengthEffect::fit(&[], 0.5).slope().abs() < 1e-12);
    }

    proptest! {
        #[test]
        fn equal_lengths_change_nothing(values in prop::collection::vec(0.0..=1.0f64, 1..60)) {
            let model: Vec<_> = values.iter().map(|v| Observation { value: *v, length: 0.0 }).collect();
            let effect = LengthEffect::fit(std::slice::from_ref(&model), 0.5);
            for item in model {
                prop_assert!((effect.controlled(item, 0.4) - item.value).abs() < 1e-12);
            }
        }

        #[test]
        fn the_fit_stays_finite_and_within_its_limit(
            field in prop::collection::vec(prop::collection::vec((0.0..=1.0f64, -1.0..1.0f64), 0..40), 0..6),
        ) {
            let models: Vec<Vec<_>> = field
                .iter()
                .map(|m| m.iter().map(|&(value, length)| Observation { value, length }).collect())
                .collect();
            let slope = LengthEffect::fit(&models, 0.5).slope();
            prop_assert!((-0.5..=0.5).contains(&slope));
            let mut turned = models;
            turned.reverse();
            prop_assert!((LengthEffect::fit(&turned, 0.5).slope() - slope).abs() < 1e-6);
        }
    }
}
