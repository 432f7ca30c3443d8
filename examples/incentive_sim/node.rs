//! What the node does with a field: the rules of this crate, called as the node calls them.

use super::judge::{Asked, Model, Trick, hash, uniform};
use assay::bittensor::{BlockNumber, Hotkey, RoundNumber};
use assay::incentive::early_stop::{hopeless, next_look};
use assay::incentive::era::RankingRule;
use assay::incentive::gates::{self, GateCounts};
use assay::incentive::ranking::{Contender, Evidence};
use assay::incentive::score::{ItemScore, ItemScores};
use assay::incentive::{Era, ItemVerdict, judge_checks};
use std::collections::HashSet;

/// Items of a round.
pub(crate) const ITEMS: usize = 512;
pub(crate) const ROUND_BLOCKS: u64 = 7_200;

/// The rules of the simulated subnet: those of `configs/validator.toml`, the title's shares aside.
pub(crate) fn era(ranking: &serde_json::Value) -> Era {
    let json = serde_json::json!({
        "from_block": 0,
        "scoring": {
            "image": format!("sha256:{}", "0".repeat(64)),
            "judge": "simulated", "prompt_version": 1, "round_blocks": ROUND_BLOCKS,
            "items": ITEMS, "max_tokens": 400, "max_prompt_tokens": 6144,
        },
        "admission": {
            "earliest_commit_block": 0, "competitions": ["d1"], "templates": ["chatml"],
            "architectures": ["LlamaForCausalLM"], "min_model_bytes": 0, "max_model_bytes": "72GiB",
        },
        "incentive": {"burn_share": 0.0, "ranking": ranking},
    });
    let mut era: Era = serde_json::from_value(json).expect("a valid era");
    if matches!(era.incentive.ranking, RankingRule::WinRate(_)) {
        // Nobody's result is ever open there; the three best are scored again.
        era.incentive.evidence.rescored_runners_up = 2;
    }
    assert!(era.validate().is_empty(), "{:?}", era.validate());
    era
}

pub(crate) fn hotkey(id: u64) -> Hotkey {
    let mut key = [0; 32];
    key[..8].copy_from_slice(&id.to_le_bytes());
    key[8..16].copy_from_slice(&hash(&[id]).to_le_bytes());
    Hotkey(key)
}

pub(crate) fn newcomer(model: &Model, block: u64) -> Contender {
    Contender {
        hotkey: hotkey(model.id),
        commit_block: BlockNumber(block),
        since: BlockNumber(block),
        evidence: Vec::new(),
        near: Vec::new(),
        held: None,
    }
}

/// The judge of one round, with its cache: a reply that was judged before costs nothing.
pub(crate) struct Judge {
    pub(crate) world: u64,
    pub(crate) round: u64,
    seen: HashSet<(u64, u64)>,
    /// Calls made.
    pub(crate) calls: u64,
}

/// A model's judged items, in the round's order.
pub(crate) type Judged = Vec<(ItemVerdict, ItemScore)>;

impl Judge {
    pub(crate) fn new(world: u64, round: u64) -> Self {
        Self {
            world,
            round,
            seen: HashSet::new(),
            calls: 0,
        }
    }

    fn ask(&mut self, model: &Model, item: usize) -> (ItemVerdict, ItemScore) {
        let at = Asked {
            world: self.world,
            round: self.round,
            item: item as u64,
        };
        if self.seen.insert((model.reply(at), at.item)) {
            self.calls += 2;
        }
        model.judged(at)
    }

    /// Every item.
    pub(crate) fn whole(&mut self, model: &Model) -> Judged {
        (0..ITEMS).map(|item| self.ask(model, item)).collect()
    }

    /// As many items as the early stop needs beside the champion's.
    pub(crate) fn beside(&mut self, model: &Model, champion: &Judged, era: &Era) -> Judged {
        let rule = &era.scoring.early_stop;
        let (mut judged, mut differences) = (Judged::new(), Vec::new());
        while judged.len() < ITEMS {
            let seen = judged.len();
            let until = next_look(seen, ITEMS, rule);
            for (item, theirs) in champion.iter().enumerate().take(until).skip(seen) {
                let answer = self.ask(model, item);
                differences.push(answer.1.value - theirs.1.value);
                judged.push(answer);
            }
            if hopeless(&differences, ITEMS, rule) {
                break;
            }
        }
        judged
    }
}

pub(crate) fn evidence(round: u64, judged: &Judged) -> Evidence {
    let named = (0..)
        .zip(judged)
        .map(|(i, (_, item)): (u32, _)| (format!("{i:04}"), *item));
    Evidence {
        round: RoundNumber(round),
        items: ItemScores::new(named).expect("judged items"),
    }
}

/// Whether a model's replies pass the gates before the judge.
pub(crate) fn passes_before(model: &Model, era: &Era) -> bool {
    let counts = GateCounts {
        replies: ITEMS,
        identical: if model.trick == Trick::Constant {
            ITEMS
        } else {
            0
        },
        ..GateCounts::default()
    };
    gates::check(&counts, &era.scoring.gates).is_ok()
}

/// Whether they pass what the judge has a word in.
pub(crate) fn passes(model: &Model, judged: &Judged, era: &Era) -> bool {
    let verdicts: Vec<ItemVerdict> = judged.iter().map(|(verdict, _)| *verdict).collect();
    let moved: Vec<f64> = (0..32).map(|item| transplanted(model, item)).collect();
    gates::check_judged(&judge_checks::count_judged(&verdicts), &era.scoring.gates).is_ok()
        && judge_checks::check_transplant(&moved, &era.scoring.judge_checks).is_ok()
}

/// What a reply is worth under another conversation: an honest one loses there, one made for the
/// judge does not.
fn transplanted(model: &Model, item: u64) -> f64 {
    let wins = if model.trick == Trick::Honest {
        0.05
    } else {
        model.quality
    };
    f64::from(u8::from(uniform(&[model.id, item, 99]) < wins))
}
