//! What `assay commit` says, as lines or as one JSON object.

use crate::bittensor::{BlockHash, BlockNumber, BlockRef, Commitment, Hotkey, Netuid, Uid};
use crate::cmd::{Failure, print_line};
use crate::config::Bytes;
use crate::telemetry::is_deceptive;
use serde::Serialize;
use std::fmt;

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Outcome {
    /// Checked and signed, not sent.
    DryRun,
    /// The same text is there already.
    AlreadyCommitted,
    /// The pallet has no room for it in this epoch.
    NoSpace,
    /// Another commitment is there, and to replace it was not asked for.
    NotReplaced,
    /// On chain, final, read back.
    Sent,
}

/// One part of the commitment that changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Change {
    part: String,
    from: String,
    to: String,
}

impl Change {
    pub(super) fn new(part: &str, from: &str, to: &str) -> Self {
        Self {
            part: part.to_owned(),
            from: plain(from),
            to: plain(to),
        }
    }
}

/// What is on chain now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Present {
    block: BlockNumber,
    text: String,
}

impl Present {
    pub(super) fn new(commitment: &Commitment) -> Self {
        let text = commitment.text().unwrap_or_else(|error| error.to_string());
        Self {
            block: commitment.block,
            text: plain(&text),
        }
    }
}

/// What the hub lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(super) struct Model {
    /// Files that a validator fetches; without rules, all that are listed.
    pub(super) files: usize,
    /// Sum of the weight files, where the rules choose them.
    pub(super) weight_bytes: Option<u64>,
}

/// What it costs. Amounts in the chain's 10⁻⁹ unit, space in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(super) struct Cost {
    pub(super) fee_rao: u64,
    pub(super) deposit_rao: u64,
    /// Charged for this commitment.
    pub(super) space: u64,
    /// Left before it, in the present epoch.
    pub(super) space_left: u64,
    pub(super) space_max: u64,
    /// When the space is whole again.
    pub(super) next_epoch_block: Option<BlockNumber>,
}

impl Cost {
    /// The pallet's refusal, said before it could.
    pub(super) fn refusal(&self) -> Failure {
        let (space, left, most) = (self.space, self.space_left, self.space_max);
        let from = self
            .next_epoch_block
            .map_or_else(|| "the next epoch".to_owned(), |b| format!("block {b}"));
        Failure::unavailable(format_args!(
            "nothing was sent: the chain would refuse with Commitments.SpaceLimitExceeded: it takes \
             {space} bytes, and {left} of {most} are left in this epoch; try again from {from} on"
        ))
    }
}

/// Where it is now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(super) struct Committed {
    #[serde(flatten)]
    pub(super) block: BlockRef,
    /// Position of the call in the block.
    pub(super) index: u32,
}

/// All of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Report {
    pub(super) outcome: Outcome,
    pub(super) network: Option<&'static str>,
    pub(super) genesis: BlockHash,
    pub(super) endpoint: String,
    pub(super) netuid: Netuid,
    /// The finalised block that everything was read at.
    pub(super) block: BlockNumber,
    pub(super) hotkey: Hotkey,
    pub(super) uid: Option<Uid>,
    pub(super) text: String,
    pub(super) bytes: usize,
    /// First block of the era whose rules it passed; none: the configuration has none.
    pub(super) era_from: Option<BlockNumber>,
    /// None: the hub was not asked.
    pub(super) model: Option<Model>,
    pub(super) present: Option<Present>,
    /// Whether the present commitment counts under the rules.
    pub(super) present_stands: bool,
    pub(super) changes: Vec<Change>,
    pub(super) cost: Cost,
    pub(super) committed: Option<Committed>,
}

impl Report {
    /// Prints it on standard output.
    pub(super) fn print(&self, json: bool) -> Result<(), Failure> {
        if json {
            let text = serde_json::to_string(self).map_err(Failure::bug)?;
            return print_line(text);
        }
        print_line(self.to_string().trim_end())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let network = self.network.unwrap_or("a network without a name");
        writeln!(f, "network     {network}, genesis {}", self.genesis)?;
        writeln!(f, "endpoint    {}, block {}", self.endpoint, self.block)?;
        write!(f, "hotkey      {}", self.hotkey)?;
        match self.uid {
            Some(uid) => writeln!(f, ", uid {uid} of subnet {}", self.netuid)?,
            None => writeln!(f, ", not on subnet {}", self.netuid)?,
        }
        writeln!(
            f,
            "commitment  {} ({} bytes)",
            plain(&self.text),
            self.bytes
        )?;
        self.checked(f)?;
        self.compared(f)?;
        self.priced(f)?;
        match (&self.committed, self.outcome) {
            (Some(Committed { block, index }), _) => writeln!(
                f,
                "committed   block {}, hash {}, extrinsic {index}; final and read back",
                block.number, block.hash
            ),
            (None, Outcome::AlreadyCommitted) => writeln!(
                f,
                "unchanged   nothing was sent: to commit the same again would only move its block"
            ),
            (None, Outcome::DryRun) => writeln!(f, "dry run     signed, not sent"),
            (None, _) => Ok(()),
        }
    }
}

impl Report {
    fn checked(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.era_from {
            Some(block) => writeln!(f, "rules       passes those of the era from block {block}")?,
            None => writeln!(
                f,
                "rules       NOT CHECKED beyond form and registration: the configuration has no [[era]]"
            )?,
        }
        match self.model {
            Some(Model {
                files,
                weight_bytes: Some(weights),
            }) => {
                writeln!(
                    f,
                    "model       public, {files} files to fetch, weights of {}",
                    size(weights)
                )
            }
            Some(Model { files, .. }) => writeln!(f, "model       public, {files} files listed"),
            None => writeln!(f, "model       NOT LOOKED UP at the hub"),
        }
    }

    fn compared(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(present) = &self.present else {
            return writeln!(f, "on chain    nothing yet");
        };
        let counts = if self.present_stands {
            ""
        } else {
            ", which no longer counts"
        };
        writeln!(
            f,
            "on chain    {} since block {}{counts}",
            present.text, present.block
        )?;
        for Change { part, from, to } in &self.changes {
            writeln!(f, "changes     {part}: {from} -> {to}")?;
        }
        if self.outcome != Outcome::AlreadyCommitted && self.present_stands {
            writeln!(
                f,
                "warning     this replaces it, and the block moves from {} to the new one: against \
                 equal weights the earlier block wins",
                present.block
            )?;
        }
        Ok(())
    }

    fn priced(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cost = &self.cost;
        writeln!(
            f,
            "cost        fee {} TAO, deposit {} TAO",
            tao(cost.fee_rao),
            tao(cost.deposit_rao)
        )?;
        let after = cost
            .next_epoch_block
            .map_or_else(String::new, |b| format!(", whole again from block {b}"));
        writeln!(
            f,
            "space       takes {} of {} bytes left in this epoch (of {}{after})",
            cost.space, cost.space_left, cost.space_max
        )
    }
}

/// Bytes in the largest unit that leaves a readable number.
fn size(bytes: u64) -> String {
    let mib = bytes / Bytes::mib(1).0;
    match (bytes / Bytes::gib(1).0, mib) {
        (0, 0) => format!("{bytes} bytes"),
        (0, mib) => format!("{mib} MiB"),
        (gib, _) => format!("{gib} GiB"),
    }
}

/// An amount of 10⁻⁹ units, without trailing zeros.
pub(in crate::cmd) fn tao(rao: u64) -> String {
    let text = format!("{}.{:09}", rao / 1_000_000_000, rao % 1_000_000_000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// One line, nothing that drives the terminal.
fn plain(text: &str) -> String {
    let shown = |c: char| if is_deceptive(c) { '\u{fffd}' } else { c };
    text.chars().take(600).map(shown).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_exact() {
        let cases = [
            (0, "0"),
            (1, "0.000000001"),
            (1_500_000_000, "1.5"),
            (2_000_000_000, "2"),
        ];
        for (rao, text) in cases {
            assert_eq!(tao(rao), text);
        }
        assert_eq!(size(900), "900 bytes");
        assert_eq!(size(3 * 1024 * 1024), "3 MiB");
        assert_eq!(size(15 * 1024 * 1024 * 1024), "15 GiB");
    }

    #[test]
    fn too_little_space_is_the_pallets_refusal() {
        let cost = Cost {
            fee_rao: 0,
            deposit_rao: 0,
            space: 100,
            space_left: 99,
            space_max: 3100,
            next_epoch_block: Some(BlockNumber(40)),
        };
        let refusal = cost.refusal().to_string();
        for part in ["Commitments.SpaceLimitExceeded", "99 of 3100", "block 40"] {
            assert!(refusal.contains(part), "{refusal}");
        }
    }
}
