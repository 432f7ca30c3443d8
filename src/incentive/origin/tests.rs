//! Golden values, each written from the formula with the Python line that gives it.

use super::*;
use proptest::prelude::*;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

fn near(found: f64, wanted: f64) {
    assert!((found - wanted).abs() < 1e-12, "{found} is not {wanted}");
}

#[test]
fn probabilities_are_of_the_ten_largest_logits() {
    // z = [0.1 * i for i in range(20)]; e = [exp(v) for v in sorted(z)[-10:]]; exp(1.9) / sum(e)
    let logits: Vec<f64> = (0..20).map(|i| 0.1 * f64::from(i)).collect();
    near(token_probability(&logits, 19), 0.150_544_988_032_655);
    near(token_probability(&logits, 10), 0.061_207_024_560_089_12);
    near(token_probability(&logits, 9), 1e-9);
    // -sum(v / s * log(v / s) for v in e), s = sum(e)
    near(token_entropy(&logits), 2.262_349_803_265_187);
    near(token_entropy(&[1.0; 30]), 10f64.ln());
    near(token_probability(&[5.0], 0), 1.0);
}

#[test]
fn runs_of_tokens_are_divided_by_all_tokens() {
    // p = [.5, .25, 1, .5]; (2.25/4 + (.125+.25+.5)/4 + (.125+.125)/4 + .0625/4) / 4
    near(evaluation(&[0.5, 0.25, 1.0, 0.5]), 3.4375 / 16.0);
    near(
        evaluation(&[1.0; 200]),
        (1.0 + 199.0 / 200.0 + 198.0 / 200.0 + 197.0 / 200.0) / 4.0,
    );
    near(evaluation(&[0.8]), 0.2);
    near(evaluation(&[]), 0.0);
}

#[test]
fn creativity_and_quality() {
    // 1 - exp(-5 * 0.5 * log(10) / log(10))
    near(
        creativity(&[0.25 * 10f64.ln(), 0.75 * 10f64.ln()]),
        0.917_915_001_376_101_2,
    );
    near(creativity(&[0.0, 0.0]), 0.0);
    // 0.3 / (1 + exp(8 * (0.3 - 0.25)) * exp(-8 * (0.6 - 0.5)))
    near(adjusted_quality(0.3, 0.6), 0.179_606_298_033_735_6);
    // The confident model: 0.9 / (1 + exp(8 * 0.65) * exp(8 * 0.5))
    near(adjusted_quality(0.9, 0.0), 0.000_090_926_274_516_995_52);
    near(batch_mean(&[0.1, 0.2, 0.6]), 0.3);
}

#[test]
fn the_other_parts() {
    near(coherence(128, 3, 6).unwrap(), 119.0 / 125.0);
    assert_eq!(coherence(128, 13, 0), None);
    assert_eq!(coherence(0, 0, 0), None);
    near(latency(&[100.0, 300.0]), 1.0 - 0.019);
    near(latency(&[20_000.0]), -0.9);
    near(size(0), 1.0);
    near(size(72 << 30), 0.0);
    near(size(18 << 30), 0.75);
    near(size_penalty(0.75), 1.0);
    // (0.5 / 0.75) ** 8
    near(size_penalty(0.5), 0.039_018_442_310_623_36);
    near(judge_win_rate(640, 500, 512).unwrap(), 640.0 / 1500.0);
    assert_eq!(judge_win_rate(10, 460, 512), None);
    assert_eq!(judge_win_rate(0, 0, 0), None);
}

#[test]
fn the_former_total_has_its_steps() {
    let parts = Parts {
        quality: 0.5,
        latency: 0.75,
        coherence: 0.95,
        judge: 0.45,
    };
    near(former_total(&parts), 0.54);
    near(
        former_total(&Parts {
            judge: 0.46,
            ..parts
        }),
        0.81,
    );
    near(
        former_total(&Parts {
            judge: 1.0,
            ..parts
        }),
        0.54,
    );
    near(
        former_total(&Parts {
            coherence: 0.949,
            ..parts
        }),
        0.0,
    );
}

/// The formula read aloud, one pair after the other, without shifting the exponent.
fn naive(models: &[(f64, u64)]) -> (Vec<f64>, Vec<f64>) {
    let n = models.len();
    let mut rates = vec![0.0; n];
    for i in 0..n {
        let mut wins = 0;
        for j in 0..n {
            if i == j {
                continue;
            }
            let (mut mine, mut other) = (models[i].0, models[j].0);
            if models[i].1 > models[j].1 {
                mine *= 0.97;
            } else if models[i].1 < models[j].1 {
                other *= 0.97;
            }
            if mine > other {
                wins += 1;
            }
        }
        rates[i] = if n > 1 {
            f64::from(wins) / f64::from(u32::try_from(n - 1).unwrap())
        } else {
            0.0
        };
    }
    let sum: f64 = rates.iter().map(|r: &f64| (r / 0.075).exp()).sum();
    let shares = rates.iter().map(|r| (r / 0.075).exp() / sum).collect();
    (rates, shares)
}

#[test]
fn a_thousand_random_fields_come_out_as_the_formula_says() {
    let mut random = ChaCha8Rng::seed_from_u64(31);
    for field in 0..1_000 {
        let n = random.random_range(1..=256);
        // Coarse scores and few blocks, so that equal ones and the edge of the factor occur.
        let models: Vec<(f64, u64)> = (0..n)
            .map(|_| {
                let score = f64::from(random.random_range(0..=100u32)) / 100.0;
                (score, random.random_range(0..40))
            })
            .collect();
        let (rates, shares) = naive(&models);
        let found = compute_wins(&models, 0.97);
        assert_eq!(found, rates, "field {field}");
        for (share, wanted) in softmax(&found, 0.075).iter().zip(shares) {
            assert!(
                (share - wanted).abs() < 1e-12,
                "field {field}: {share} {wanted}"
            );
        }
    }
}

proptest! {
    #[test]
    fn probabilities_lie_between_nothing_and_one(
        logits in prop::collection::vec(-50.0..50.0f64, 1..40), token in 0usize..50,
    ) {
        let p = token_probability(&logits, token);
        prop_assert!((0.0..=1.0).contains(&p));
        let h = token_entropy(&logits);
        prop_assert!(h >= -1e-12 && h <= 10f64.ln() + 1e-9);
    }
}
