//! A judge and models that answer: the numbers behind every verdict of the simulation.
//!
//! Each verdict compares a latent value with a tie band. The value is the model's quality, plus the
//! item's difficulty (shared by all models), what the reply made of the item, what the criterion and
//! the order of the two replies add, and what the judge grants to longer replies. The parts are
//! chosen so that 12 % of verdicts are ties and the standard errors of a difference over 512 items
//! are near those measured for such judges: 0.0205 paired, 0.026 unpaired.

use assay::incentive::copies::Behaviour;
use assay::incentive::score::{Bucket, ItemScore, Lengths};
use assay::incentive::statistics::normal_quantile;
use assay::incentive::{ItemVerdict, Preference, Verdict};
use std::sync::{Arc, OnceLock};

const TIE: f64 = 0.15;
/// Standard deviations of the parts: item, reply, criterion, order. Their squares sum to 1.
const ITEM: f64 = 0.57;
const REPLY: f64 = 0.74;
const CRITERION: f64 = 0.25;
const ORDER: f64 = 0.255;
/// What a judge grants to length, in latent units for each unit of relative length.
const LENGTH: f64 = 0.2;
/// Characters of every reference.
const REFERENCE_CHARS: f64 = 400.0;

/// Whether a judge reads a model's tricks, and which.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trick {
    /// None.
    Honest,
    /// A note to the judge in each reply.
    Note,
    /// One reply to everything, made to please the judge.
    Constant,
    /// Replies that please the judge under any conversation.
    Adaptive,
}

/// A model: how good its replies are, and whose they are.
#[derive(Debug, Clone)]
pub(crate) struct Model {
    pub(crate) id: u64,
    /// Expected score beside the reference, 0 to 1; ½ is as good.
    pub(crate) quality: f64,
    /// Mean of ln(reply length / reference length).
    pub(crate) wordiness: f64,
    pub(crate) trick: Trick,
    /// The model it was made from, and how much of it is left.
    pub(crate) source: Option<(Arc<Model>, Change)>,
    /// [`Model::behaviour`], made once.
    pub(crate) probed: OnceLock<Behaviour>,
    /// [`latent_quality`], computed once.
    pub(crate) latent: OnceLock<f64>,
}

/// What was done to a model.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Change {
    /// Mean difference of log-probabilities, in nats per token.
    pub(crate) nats: f64,
    /// Its bytes were changed at all.
    pub(crate) bytes: bool,
}

impl Change {
    /// The share of greedy replies that come out the same. Of the table in `docs/incentive.md`: at
    /// 0.016 nats the likeliest token is another one in 2.2 % of places; replies have about 100.
    fn same_replies(self) -> f64 {
        (1.0 - 0.022 * (self.nats / 0.016)).max(0.0).powi(100)
    }
}

/// SplitMix64 over a few words: the same inputs give the same draw, in any order of asking.
pub(crate) fn hash(words: &[u64]) -> u64 {
    words.iter().fold(0x9e37_79b9_7f4a_7c15, |state, word| {
        let mut z = (state ^ word).wrapping_add(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    })
}

/// Uniform in 0 to 1, both ends excluded.
pub(crate) fn uniform(words: &[u64]) -> f64 {
    let high = u32::try_from(hash(words) >> 32).unwrap_or(0);
    (f64::from(high) + 0.5) / 4_294_967_296.0
}

/// Nearly normal with mean 0 and variance 1: the sum of four uniform parts of one hash.
fn normal(key: u64, salt: u64) -> f64 {
    let bytes = hash(&[key, salt]).to_le_bytes();
    let parts = bytes.as_chunks::<2>().0.iter();
    let sum: f64 = parts.map(|two| f64::from(u16::from_le_bytes(*two))).sum();
    (sum / 65_536.0 - 2.0) * 3f64.sqrt()
}

/// One item of one round.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked {
    pub(crate) world: u64,
    pub(crate) round: u64,
    pub(crate) item: u64,
}

impl Model {
    /// The model that really wrote the reply to an item, down the chain of copies.
    fn author(&self, at: Asked) -> &Self {
        match &self.source {
            Some((source, change))
                if uniform(&[self.id, at.round, at.item, 77]) < change.same_replies() =>
            {
                source.author(at)
            }
            _ => self,
        }
    }

    /// Log-probabilities of the probes: the source's, as far as the change left them. Two models that
    /// have nothing in common differ by about 0.3 nats, as independent fine-tunes do.
    pub(crate) fn behaviour(&self) -> &Behaviour {
        self.probed.get_or_init(|| {
            let root = Self::own_behaviour(0, 1.0);
            let (from, nats) = match &self.source {
                Some((source, change)) => (source.behaviour(), change.nats),
                None => (&root, 0.2),
            };
            // The mean absolute value of a normal number is √(2/π) of its standard deviation.
            let own = Self::own_behaviour(self.id, nats * std::f64::consts::FRAC_PI_2.sqrt());
            let both = from.probes().zip(own.probes());
            Behaviour::new(both.map(|((id, a), (_, b))| {
                let sum = a.iter().zip(b).map(|(a, b)| a + b).collect();
                (id.to_owned(), sum)
            }))
        })
    }

    #[expect(clippy::cast_possible_truncation, reason = "rounding to f32 is meant")]
    fn own_behaviour(id: u64, size: f64) -> Behaviour {
        let token = |probe: u64, at: u64| (size * normal(hash(&[id, probe, at]), 50)) as f32;
        let probe = |p: u64| (format!("{p:02}"), (0..40).map(|t| token(p, t)).collect());
        Behaviour::new((0..64).map(probe))
    }

    /// Names the reply: equal for two models exactly when they wrote the same.
    pub(crate) fn reply(&self, at: Asked) -> u64 {
        self.author(at).id
    }

    /// What the judge says, as recorded with the item.
    pub(crate) fn judged(&self, at: Asked) -> (ItemVerdict, ItemScore) {
        let author = self.author(at);
        let key = hash(&[author.id, at.world, at.round, at.item]);
        let item = hash(&[at.world, at.round, at.item]);
        let longer = author.wordiness + 0.3 * normal(key, 1);
        let lengths = lengths(longer);
        let latent = author.latent.get_or_init(|| latent_quality(author.quality))
            + LENGTH * lengths.relative()
            + ITEM * normal(item, 2)
            + REPLY * normal(key, 3);
        let verdict = |order: u64| {
            let one = |criterion: u64| {
                let own = CRITERION * normal(key, 10 + criterion);
                let side = ORDER * normal(key, 20 + 10 * order + criterion);
                preference(latent + own + side)
            };
            Verdict {
                realism: one(0),
                entertainment: one(1),
                coherency: one(2),
                addresses_judge: author.trick == Trick::Note && uniform(&[key, 40 + order]) < 0.5,
            }
        };
        let verdict = ItemVerdict {
            miner_first: verdict(0),
            reference_first: verdict(1),
        };
        let score = ItemScore {
            value: verdict.value(),
            lengths: Some(lengths),
            bucket: if at.item % 4 == 3 {
                Bucket::Anchor
            } else {
                Bucket::Fresh
            },
        };
        (verdict, score)
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "clamped to 0 to 4,000"
)]
fn lengths(longer: f64) -> Lengths {
    Lengths {
        reply: (REFERENCE_CHARS * longer.exp()).clamp(0.0, 4_000.0) as u32,
        reference: 400,
    }
}

fn preference(latent: f64) -> Preference {
    if latent > TIE {
        Preference::Win
    } else if latent < -TIE {
        Preference::Loss
    } else {
        Preference::Tie
    }
}

/// The latent mean at which the expected score is `quality`: ties widen the curve by a hundredth.
fn latent_quality(quality: f64) -> f64 {
    normal_quantile(quality) / (-TIE * TIE / 2.0).exp()
}
