//! Who commits what, round by round. The same seed gives the same population.

use super::judge::{Change, Model, Trick, hash, uniform};
use std::sync::{Arc, OnceLock};

/// What a miner is after.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// Trains on from the best there is; some succeed.
    Improver,
    /// Trains something of its own that is far behind.
    Beginner,
    /// The champion's files again.
    ExactCopier,
    /// The champion with a little noise in its weights.
    NoiseCopier,
    /// Slightly changed copies of the champion, one each round, waiting for luck.
    Resubmitter,
    /// The same by one who knows the thresholds: changed by no more than it takes to pass for another
    /// model, a merge or a touch of training that makes nothing better.
    Evader,
    /// Commits anything, and puts the champion's files there later.
    Sleeper,
    /// Works on the judge instead of the user.
    JudgeHacker,
    /// The champion's quality with much longer replies.
    LengthGamer,
}

impl Kind {
    pub(crate) const ALL: [Self; 9] = [
        Self::Improver,
        Self::Beginner,
        Self::ExactCopier,
        Self::NoiseCopier,
        Self::Resubmitter,
        Self::Evader,
        Self::Sleeper,
        Self::JudgeHacker,
        Self::LengthGamer,
    ];

    pub(crate) fn copies(self) -> bool {
        matches!(
            self,
            Self::ExactCopier
                | Self::NoiseCopier
                | Self::Resubmitter
                | Self::Evader
                | Self::Sleeper
        )
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Improver => "improver",
            Self::Beginner => "beginner",
            Self::ExactCopier => "exact copier",
            Self::NoiseCopier => "noise copier",
            Self::Resubmitter => "best-of-k resubmitter",
            Self::Evader => "evading resubmitter",
            Self::Sleeper => "sleeper",
            Self::JudgeHacker => "judge hacker",
            Self::LengthGamer => "length gamer",
        }
    }
}

/// A repository on the hub: what its committed revision holds, and what its head holds now.
#[derive(Debug, Clone)]
pub(crate) struct Miner {
    pub(crate) kind: Kind,
    /// The model at the committed revision.
    pub(crate) pinned: Arc<Model>,
    /// The model at the repository's head once it comes to be evaluated.
    pub(crate) head: Arc<Model>,
}

/// Chance of one newcomer of each kind in a round; weak models come in twos.
const ARRIVALS: [(Kind, f64); 10] = [
    (Kind::Improver, 0.7),
    (Kind::Beginner, 1.0),
    (Kind::Beginner, 1.0),
    (Kind::ExactCopier, 1.0),
    (Kind::NoiseCopier, 0.7),
    (Kind::Resubmitter, 1.0),
    (Kind::Evader, 0.3),
    (Kind::Sleeper, 0.3),
    (Kind::JudgeHacker, 0.4),
    (Kind::LengthGamer, 0.4),
];

/// The newcomers of a round, who all know the champion's files.
pub(crate) fn newcomers(seed: u64, round: u64, champion: &Arc<Model>) -> Vec<Miner> {
    let mut found = Vec::new();
    for (slot, (kind, chance)) in (0u64..).zip(ARRIVALS) {
        let key = [seed, round, slot];
        if uniform(&[key[0], key[1], key[2], 5]) < chance {
            found.push(miner(kind, hash(&key), champion));
        }
    }
    found
}

/// A model that has nothing in common with others.
pub(crate) fn own(id: u64, quality: f64) -> Model {
    Model {
        id,
        quality,
        wordiness: 0.0,
        trick: Trick::Honest,
        source: None,
        probed: OnceLock::new(),
        latent: OnceLock::new(),
    }
}

fn miner(kind: Kind, id: u64, champion: &Arc<Model>) -> Miner {
    let draw = |salt: u64| uniform(&[id, salt]);
    let made = |nats: f64, quality: f64| Model {
        quality: quality.clamp(0.05, 0.95),
        source: Some((Arc::clone(champion), Change { nats, bytes: true })),
        ..own(id, 0.0)
    };
    let exact = || Model {
        source: Some((
            Arc::clone(champion),
            Change {
                nats: 0.0,
                bytes: false,
            },
        )),
        ..own(id, champion.quality)
    };
    let model = match kind {
        // Between 6 points worse and 8 better, less where there is little left to gain; trained on from
        // the champion, a little or a lot.
        Kind::Improver => {
            let gain = (draw(1) * 0.14 - 0.06) * ((0.85 - champion.quality) / 0.45).max(0.0);
            made(0.05 + 0.25 * draw(2), champion.quality + gain)
        }
        Kind::Beginner => own(id, 0.05 + 0.25 * draw(1)),
        Kind::ExactCopier => exact(),
        // 0.1 to 5 % of noise in the weights.
        Kind::NoiseCopier => made(0.0003 * 50f64.powf(draw(1)), champion.quality),
        Kind::Resubmitter => made(0.001 + 0.039 * draw(1), champion.quality),
        Kind::Evader => made(0.036 + 0.114 * draw(1), champion.quality),
        Kind::Sleeper => own(id, 0.08),
        Kind::JudgeHacker => hacker(id, draw(1)),
        Kind::LengthGamer => Model {
            wordiness: 1.0,
            ..own(id, champion.quality - 0.01)
        },
    };
    let pinned = Arc::new(model);
    let head = match kind {
        Kind::Sleeper => Arc::new(exact()),
        _ => Arc::clone(&pinned),
    };
    Miner { kind, pinned, head }
}

fn hacker(id: u64, draw: f64) -> Model {
    let trick = [Trick::Note, Trick::Constant, Trick::Adaptive];
    let which = if draw < 0.33 {
        0
    } else {
        1 + usize::from(draw > 0.66)
    };
    Model {
        trick: trick[which],
        ..own(id, 0.85)
    }
}
