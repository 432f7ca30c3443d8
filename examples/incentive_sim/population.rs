//! Who commits what, round by round. The same seed gives the same population.

use super::judge::{Model, Trick, hash, uniform};
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
    /// Commits anything, and puts the champion's files there later.
    Sleeper,
    /// Works on the judge instead of the user.
    JudgeHacker,
    /// The champion's quality with much longer replies.
    LengthGamer,
}

impl Kind {
    pub(crate) const ALL: [Self; 8] = [
        Self::Improver,
        Self::Beginner,
        Self::ExactCopier,
        Self::NoiseCopier,
        Self::Resubmitter,
        Self::Sleeper,
        Self::JudgeHacker,
        Self::LengthGamer,
    ];

    pub(crate) fn copies(self) -> bool {
        matches!(
            self,
            Self::ExactCopier | Self::NoiseCopier | Self::Resubmitter | Self::Sleeper
        )
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Improver => "improver",
            Self::Beginner => "beginner",
            Self::ExactCopier => "exact copier",
            Self::NoiseCopier => "noise copier",
            Self::Resubmitter => "best-of-k resubmitter",
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
const ARRIVALS: [(Kind, f64); 9] = [
    (Kind::Improver, 0.7),
    (Kind::Beginner, 1.0),
    (Kind::Beginner, 1.0),
    (Kind::ExactCopier, 1.0),
    (Kind::NoiseCopier, 0.7),
    (Kind::Resubmitter, 1.0),
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
        copied: None,
        latent: OnceLock::new(),
    }
}

fn miner(kind: Kind, id: u64, champion: &Arc<Model>) -> Miner {
    let draw = |salt: u64| uniform(&[id, salt]);
    let copy = |same: f64, loss: f64| Model {
        quality: champion.quality - loss,
        copied: Some((Arc::clone(champion), same)),
        ..own(id, 0.0)
    };
    let model = match kind {
        // Between 6 points worse and 8 better, less where there is little left to gain.
        Kind::Improver => {
            let gain = (draw(1) * 0.14 - 0.06) * ((0.85 - champion.quality) / 0.45).max(0.0);
            own(id, (champion.quality + gain).clamp(0.05, 0.95))
        }
        Kind::Beginner => own(id, 0.05 + 0.25 * draw(1)),
        Kind::ExactCopier => copy(1.0, 0.0),
        Kind::NoiseCopier => copy(0.8, 0.01 * draw(1)),
        Kind::Resubmitter => copy(0.3, 0.0),
        Kind::Sleeper => own(id, 0.08),
        Kind::JudgeHacker => hacker(id, draw(1)),
        Kind::LengthGamer => Model {
            wordiness: 1.0,
            ..own(id, champion.quality - 0.01)
        },
    };
    let pinned = Arc::new(model);
    let head = match kind {
        Kind::Sleeper => Arc::new(copy(1.0, 0.0)),
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
