//! The status as lines or as one JSON object.

use crate::bittensor::{BlockHash, BlockNumber, BlockRef, Hotkey, Netuid, Tempo, Uid};
use crate::cmd::commit::tao;
use serde::Serialize;
use std::fmt;

/// What the chain says. Blocks are heights, amounts in the chain's 10⁻⁹ unit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Status {
    pub(super) network: Option<&'static str>,
    pub(super) genesis: BlockHash,
    pub(super) endpoint: String,
    pub(super) spec_version: u32,
    /// What of the runtime this program does not know; while there is any, it signs nothing.
    pub(super) unknown_shapes: Vec<String>,
    /// The finalised head.
    pub(super) head: BlockRef,
    /// By this machine's clock and the chain's.
    pub(super) head_age_ms: u64,
    /// The configured block time.
    pub(super) block_ms: u64,
    pub(super) netuid: Netuid,
    pub(super) neurons: usize,
    /// Epochs until a commit is revealed; none: weights are set in plain.
    pub(super) commit_reveal_epochs: Option<u64>,
    pub(super) tempo: Tempo,
    pub(super) next_epoch_block: Option<BlockNumber>,
    pub(super) hotkey: Hotkey,
    /// None: the hotkey is not registered on the subnet.
    pub(super) member: Option<Member>,
}

/// One neuron, as a validator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Member {
    pub(super) uid: Uid,
    pub(super) registered_at: BlockNumber,
    pub(super) active: bool,
    /// The subnet owner's hotkey needs neither stake nor permit.
    pub(super) is_owner: bool,
    pub(super) validator_permit: bool,
    pub(super) stake: u64,
    pub(super) stake_threshold: u64,
    pub(super) last_update: BlockNumber,
    pub(super) rate_limit: u64,
    /// First block at which the rate limit is over.
    pub(super) free_from: BlockNumber,
    pub(super) window: Option<Window>,
}

/// Blocks in which the node would set weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(super) struct Window {
    pub(super) opens: BlockNumber,
    pub(super) closes: BlockNumber,
    pub(super) epoch: BlockNumber,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let network = self.network.unwrap_or("a network without a name");
        writeln!(f, "network      {network}, genesis {}", self.genesis)?;
        writeln!(f, "endpoint     {}", self.endpoint)?;
        match self.unknown_shapes.as_slice() {
            [] => writeln!(
                f,
                "runtime      spec {}, every shape is known",
                self.spec_version
            )?,
            unknown => writeln!(
                f,
                "runtime      spec {}: UNKNOWN, nothing will be signed: {}",
                self.spec_version,
                unknown.join("; ")
            )?,
        }
        writeln!(
            f,
            "head         block {}, finalised, {} old",
            self.head.number,
            seconds(self.head_age_ms)
        )?;
        let weights = match self.commit_reveal_epochs {
            None => "weights in plain".to_owned(),
            Some(1) => "weights by commit-reveal, one epoch".to_owned(),
            Some(n) => format!("weights by commit-reveal, {n} epochs"),
        };
        writeln!(
            f,
            "subnet       {}, {} neurons, {weights}",
            self.netuid, self.neurons
        )?;
        match self.next_epoch_block {
            None => writeln!(f, "epoch        none: the tempo is 0")?,
            Some(next) => {
                let left = next.since(self.head.number);
                let tempo = u64::from(self.tempo.0);
                let done = tempo.saturating_sub(left);
                writeln!(
                    f,
                    "epoch        block {done} of {tempo}; the next fires at block {next}, {}",
                    self.ahead(next)
                )?;
            }
        }
        match &self.member {
            None => writeln!(
                f,
                "hotkey       {}: NOT REGISTERED on this subnet",
                self.hotkey
            ),
            Some(member) => self.neuron(member, f),
        }
    }
}

impl Status {
    fn neuron(&self, me: &Member, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let active = if me.active { "active" } else { "NOT ACTIVE" };
        writeln!(
            f,
            "hotkey       {}: uid {} since block {}, {active}",
            self.hotkey, me.uid, me.registered_at
        )?;
        let exempt = if me.is_owner {
            " (the subnet owner needs none)"
        } else {
            ""
        };
        let permit = if me.validator_permit { "yes" } else { "no" };
        writeln!(f, "permit       {permit}{exempt}")?;
        let below = me.stake < me.stake_threshold && !me.is_owner;
        let verdict = if below {
            ", BELOW: weights are refused"
        } else {
            ""
        };
        writeln!(
            f,
            "stake        {} of {} needed{verdict}{exempt}",
            tao(me.stake),
            tao(me.stake_threshold)
        )?;
        let free = if me.free_from <= self.head.number {
            "over".to_owned()
        } else {
            format!("over at block {}", me.free_from)
        };
        writeln!(
            f,
            "last update  block {}, {} blocks ago; the rate limit of {} blocks is {free}",
            me.last_update,
            self.head.number.since(me.last_update),
            me.rate_limit
        )?;
        match me.window {
            None => writeln!(f, "window       none"),
            Some(window) if window.opens <= self.head.number => writeln!(
                f,
                "window       open until block {} for the epoch of block {}",
                window.closes, window.epoch
            ),
            Some(window) => writeln!(
                f,
                "window       block {} to {} for the epoch of block {}; opens {}",
                window.opens,
                window.closes,
                window.epoch,
                self.ahead(window.opens)
            ),
        }
    }

    /// How far off a block is.
    fn ahead(&self, block: BlockNumber) -> String {
        let blocks = block.since(self.head.number);
        let ms = blocks.saturating_mul(self.block_ms);
        format!("in {blocks} blocks (about {})", seconds(ms))
    }
}

/// A duration to the second, or to the tenth below ten seconds.
fn seconds(ms: u64) -> String {
    match ms {
        0..10_000 => format!("{}.{} s", ms / 1000, ms % 1000 / 100),
        10_000..600_000 => format!("{} s", ms / 1000),
        _ => format!("{} min", ms / 60_000),
    }
}
