//! Every weights decision, from intent to the read-back, so that a restart knows what is unfinished
//! and nothing is believed to be on chain until it was read back.

use super::columns::{block, bounded, int, json, optional_block, to_json, uint};
use super::error::StoreError;
use super::ids::WeightEntryId;
use super::pages::MAX_PAGE;
use super::{Reader, Store};
use crate::bittensor::{BlockNumber, BlockRef, MechanismId, Netuid, Uid};
use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::{Deserialize, Serialize};

/// Bytes of text that are kept of a reason or an error.
const TEXT_LIMIT: usize = 1000;

/// Bytes of JSON for one vector: 4096 uids fit.
const VECTOR_LIMIT: usize = 64 * 1024;

/// A decision, before anything is signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewIntent {
    /// Names the window that the decision is for, such as its epoch; one entry per window.
    pub window: String,
    /// Subnet.
    pub netuid: Netuid,
    /// Mechanism.
    pub mechanism: MechanismId,
    /// Block of the snapshot that it was made from.
    pub block: BlockNumber,
    /// Block of the snapshot whose scores it follows: earlier than `block` when scoring was down and
    /// the last good weights are sent again; `None` when everything is burnt for want of scores.
    pub scored_block: Option<BlockNumber>,
    /// The vector; never empty.
    pub weights: Vec<(Uid, u16)>,
    /// Why these, one sentence.
    pub reason: String,
}

/// What was signed: enough to find out from the chain what became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedState {
    /// Hash of the extrinsic, hex.
    pub extrinsic: String,
    /// The account's nonce in it.
    pub nonce: u64,
    /// Block that its era is anchored at.
    pub born: BlockNumber,
    /// First block that can no longer include it.
    pub dies: BlockNumber,
    /// The signed bytes, hex. Sent again as they are when they were lost on the way: the chain can
    /// take them once only. Empty in entries older than this field.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub bytes: String,
    /// When a timelocked commit opens; absent for plain weights.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reveal: Option<Reveal>,
}

/// When a timelocked commit opens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reveal {
    /// The beacon's round that it was encrypted for.
    pub round: u64,
    /// First block that can reveal it.
    pub from: BlockNumber,
}

/// How far a decision has come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum WeightState {
    /// Decided, nothing signed.
    Intended,
    /// Signed; may be on its way.
    Signed(SignedState),
    /// The node's pool took it.
    Pooled,
    /// In a block that may still be replaced.
    InBlock {
        /// Where.
        block: BlockRef,
        /// The dispatch error by name, absent where it succeeded.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        failed: Option<String>,
    },
    /// Succeeded in a block that is final.
    Finalised {
        /// Where.
        block: BlockRef,
    },
    /// Read back from storage, equal to the intent.
    ReadBack {
        /// Block at which it was read.
        block: BlockRef,
    },
    /// Given up in this form.
    Failed {
        /// The chain's or our own error by name.
        error: String,
        /// First block at which the window may try again; absent: not before something changed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        retry_from: Option<BlockNumber>,
    },
}

impl WeightState {
    /// The state's name as stored and shown.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Intended => "intended",
            Self::Signed(_) => "signed",
            Self::Pooled => "pooled",
            Self::InBlock { .. } => "in_block",
            Self::Finalised { .. } => "finalised",
            Self::ReadBack { .. } => "read_back",
            Self::Failed { .. } => "failed",
        }
    }

    fn rank(&self) -> u8 {
        match self {
            Self::Intended => 0,
            Self::Signed(_) => 1,
            Self::Pooled => 2,
            Self::InBlock { .. } => 3,
            Self::Finalised { .. } => 4,
            Self::ReadBack { .. } => 5,
            Self::Failed { .. } => 6,
        }
    }

    /// Forward always, states may be skipped. Back: a block that was not final may be replaced by
    /// another or fall away (in the pool again); what failed may be intended anew. Read back is the
    /// end, and what was signed is never signed again before it is known to have failed.
    #[must_use]
    pub fn may_become(&self, next: &Self) -> bool {
        match (self, next) {
            (Self::Failed { .. }, Self::Intended)
            | (Self::InBlock { .. }, Self::InBlock { .. } | Self::Pooled) => true,
            (Self::ReadBack { .. } | Self::Failed { .. }, _) => false,
            _ => next.rank() > self.rank(),
        }
    }
}

/// A logged decision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct WeightEntry {
    /// Its number, in order of opening.
    pub id: WeightEntryId,
    /// The window it is for.
    pub window: String,
    /// Subnet.
    pub netuid: Netuid,
    /// Mechanism.
    pub mechanism: MechanismId,
    /// Block of the snapshot that it was made from.
    pub block: BlockNumber,
    /// Block of the snapshot whose scores it follows; `None`: burnt for want of scores.
    pub scored_block: Option<BlockNumber>,
    /// The vector.
    pub weights: Vec<(Uid, u16)>,
    /// Why these.
    pub reason: String,
    /// How far it has come.
    pub state: WeightState,
    /// Every state with its time in unix milliseconds, first to last.
    pub history: Vec<(u64, WeightState)>,
    /// Unix milliseconds.
    pub opened_ms: u64,
    /// Unix milliseconds.
    pub updated_ms: u64,
}

impl WeightEntry {
    /// What was signed for the present try, if anything was.
    #[must_use]
    pub fn signed(&self) -> Option<&SignedState> {
        let mut steps = self.history.iter().rev().map(|(_, state)| state);
        steps
            .by_ref()
            .take_while(|state| !matches!(state, WeightState::Intended))
            .find_map(|state| match state {
                WeightState::Signed(signed) => Some(signed),
                _ => None,
            })
    }
}

/// Answer of [`Store::open_intent`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Opened {
    /// Recorded now.
    New(WeightEntry),
    /// The window has its decision already: go on with this one.
    Known(WeightEntry),
}

fn from_row(row: &Row<'_>) -> Result<WeightEntry, rusqlite::Error> {
    Ok(WeightEntry {
        id: WeightEntryId(row.get("id")?),
        window: row.get("window_key")?,
        netuid: Netuid(row.get("netuid")?),
        mechanism: MechanismId(row.get("mechanism")?),
        block: block(row, "block")?,
        scored_block: optional_block(row, "scored_block")?,
        weights: json(row, "weights")?,
        reason: row.get("reason")?,
        state: json(row, "state")?,
        history: Vec::new(),
        opened_ms: uint(row, "opened_ms")?,
        updated_ms: uint(row, "updated_ms")?,
    })
}

fn with_history(conn: &Connection, mut entry: WeightEntry) -> Result<WeightEntry, StoreError> {
    let mut query = conn
        .prepare_cached("SELECT at_ms, state FROM weight_events WHERE entry_id = ?1 ORDER BY id")?;
    let rows = query.query_map([entry.id.0], |row| {
        Ok((uint(row, "at_ms")?, json(row, "state")?))
    })?;
    entry.history = rows.collect::<Result<_, _>>()?;
    Ok(entry)
}

fn select<P: rusqlite::Params>(
    conn: &Connection,
    rest: &str,
    params: P,
) -> Result<Vec<WeightEntry>, StoreError> {
    let mut query = conn.prepare_cached(&format!("SELECT * FROM weight_log {rest}"))?;
    let entries: Vec<WeightEntry> = query
        .query_map(params, from_row)?
        .collect::<Result<_, _>>()?;
    entries
        .into_iter()
        .map(|entry| with_history(conn, entry))
        .collect()
}

fn add_event(
    conn: &Connection,
    id: WeightEntryId,
    state: &str,
    now_ms: u64,
) -> Result<(), StoreError> {
    conn.prepare_cached("INSERT INTO weight_events (entry_id, at_ms, state) VALUES (?1, ?2, ?3)")?
        .execute(params![id.0, int(now_ms)?, state])?;
    Ok(())
}

fn one(conn: &Connection, id: WeightEntryId) -> Result<WeightEntry, StoreError> {
    let mut found = select(conn, "WHERE id = ?1", [id.0])?;
    found
        .pop()
        .ok_or_else(|| StoreError::NotFound(format!("weights entry {id}")))
}

fn open(conn: &Connection, new: &NewIntent, now_ms: u64) -> Result<Opened, StoreError> {
    if new.weights.iter().all(|(_, weight)| *weight == 0) {
        return Err(StoreError::Invalid(
            "a vector without weight is never sent".to_owned(),
        ));
    }
    let state = to_json(&WeightState::Intended, VECTOR_LIMIT)?;
    let id: Option<i64> = conn
        .prepare_cached(
            "INSERT INTO weight_log (window_key, netuid, mechanism, block, scored_block, weights, \
             reason, state_name, state, opened_ms, updated_ms) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?10) \
             ON CONFLICT (netuid, mechanism, window_key) DO NOTHING RETURNING id",
        )?
        .query_row(
            params![
                new.window,
                new.netuid.0,
                new.mechanism.0,
                int(new.block.0)?,
                new.scored_block.map(|block| int(block.0)).transpose()?,
                to_json(&new.weights, VECTOR_LIMIT)?,
                bounded(&new.reason, TEXT_LIMIT),
                WeightState::Intended.name(),
                state,
                int(now_ms)?,
            ],
            |row| row.get(0),
        )
        .optional()?;
    if let Some(id) = id.map(WeightEntryId) {
        add_event(conn, id, &state, now_ms)?;
        return one(conn, id).map(Opened::New);
    }
    let by_window = "WHERE netuid = ?1 AND mechanism = ?2 AND window_key = ?3";
    let mut known = select(
        conn,
        by_window,
        params![new.netuid.0, new.mechanism.0, new.window],
    )?;
    let known = known.pop().map(Opened::Known);
    known.ok_or_else(|| StoreError::NotFound(format!("window {}", new.window)))
}

fn advance(
    conn: &Connection,
    id: WeightEntryId,
    next: &WeightState,
    now_ms: u64,
) -> Result<WeightEntry, StoreError> {
    let entry = one(conn, id)?;
    if entry.state == *next {
        return Ok(entry);
    }
    if !entry.state.may_become(next) {
        let (from, to) = (entry.state.name(), next.name());
        return Err(StoreError::Invalid(format!(
            "weights entry {id} is {from}, never {to} next"
        )));
    }
    let state = to_json(next, VECTOR_LIMIT)?;
    conn.prepare_cached(
        "UPDATE weight_log SET state_name = ?2, state = ?3, updated_ms = ?4 WHERE id = ?1",
    )?
    .execute(params![id.0, next.name(), state, int(now_ms)?])?;
    add_event(conn, id, &state, now_ms)?;
    one(conn, id)
}

impl Store {
    /// Logs a decision before anything is signed. One per subnet, mechanism and window: a restart
    /// gets the logged one back and goes on from its state.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] for a vector that is empty or all zero.
    pub async fn open_intent(&self, new: NewIntent, now_ms: u64) -> Result<Opened, StoreError> {
        self.writer.call(move |conn| open(conn, &new, now_ms)).await
    }

    /// Records the next state of a decision; the same state again changes nothing.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] for a step that [`WeightState::may_become`] excludes,
    /// [`StoreError::NotFound`] for an unknown number.
    pub async fn advance_weights(
        &self,
        id: WeightEntryId,
        mut next: WeightState,
        now_ms: u64,
    ) -> Result<WeightEntry, StoreError> {
        if let WeightState::Failed { error, .. } = &mut next {
            *error = bounded(error, TEXT_LIMIT);
        }
        self.writer
            .call(move |conn| advance(conn, id, &next, now_ms))
            .await
    }
}

impl Reader {
    /// Decisions that are neither read back nor failed, oldest first: what a start must settle.
    ///
    /// # Errors
    /// Trouble with the store.
    pub async fn unfinished_weights(&self) -> Result<Vec<WeightEntry>, StoreError> {
        let rest = "WHERE state_name NOT IN ('read_back', 'failed') ORDER BY id";
        self.read(move |conn| select(conn, rest, [])).await
    }

    /// The last decision that was read back from chain.
    ///
    /// # Errors
    /// Trouble with the store.
    pub async fn last_confirmed(
        &self,
        netuid: Netuid,
        mechanism: MechanismId,
    ) -> Result<Option<WeightEntry>, StoreError> {
        let rest = "WHERE netuid = ?1 AND mechanism = ?2 AND state_name = 'read_back' \
                    ORDER BY id DESC LIMIT 1";
        let params = (netuid.0, mechanism.0);
        self.read(move |conn| Ok(select(conn, rest, params)?.pop()))
            .await
    }

    /// The last decision that was read back from chain and follows scores.
    ///
    /// # Errors
    /// Trouble with the store.
    pub async fn last_scored_weights(
        &self,
        netuid: Netuid,
        mechanism: MechanismId,
    ) -> Result<Option<WeightEntry>, StoreError> {
        let rest = "WHERE netuid = ?1 AND mechanism = ?2 AND state_name = 'read_back' \
                    AND scored_block IS NOT NULL ORDER BY id DESC LIMIT 1";
        let params = (netuid.0, mechanism.0);
        self.read(move |conn| Ok(select(conn, rest, params)?.pop()))
            .await
    }

    /// Decisions, newest first: at most `limit`, only those older than `before`.
    ///
    /// # Errors
    /// Trouble with the store.
    pub async fn weight_log(
        &self,
        before: Option<WeightEntryId>,
        limit: u32,
    ) -> Result<Vec<WeightEntry>, StoreError> {
        let before = before.map_or(i64::MAX, |id| id.0);
        let rest = "WHERE id < ?1 ORDER BY id DESC LIMIT ?2";
        self.read(move |conn| select(conn, rest, (before, limit.min(MAX_PAGE))))
            .await
    }
}
