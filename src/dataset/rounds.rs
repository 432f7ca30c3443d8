//! A round's item list as ready objects: built once, off the request path, then only handed out.
//!
//! A built round is a signed statement, `round-<start block>.json`, that names two objects of kind
//! `items`: the list as one JSON document, `{"all_convos":[…]}` as the origin's clients read it, and
//! the same conversations as NDJSON. It appears only when both are whole, so a server that offers
//! the newest one never makes anybody wait.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::draft::{About, Draft, lock, sweep};
use super::manifest::{Kind, MediaType};
use super::object::{SignedManifest, list_packs, remove};
use super::pack::conversations;
use super::sampling::{self, Drawn, Wanted};
use super::seal::write_whole;
use super::signed::{Signed, Signer, Statement};
use super::{Conversation, DatasetError, Day, ItemId, ObjectDigest, Pack};
use crate::bittensor::{BlockRef, Netuid, RoundNumber};

/// Items of a round's list by default.
pub const LIST_DEFAULT: Wanted = Wanted {
    fresh: 2048,
    older: 2048,
};
/// Rounds whose lists are kept.
const ROUNDS_KEPT: usize = 32;
const ROUND_BYTES_MAX: u64 = 256 * 1024;

/// What a round's list is made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListSpec {
    /// The subnet.
    pub netuid: Netuid,
    /// Era, as hex.
    pub era_id: String,
    /// Number within the era.
    pub number: RoundNumber,
    /// Finalised block that the seed comes from.
    pub start: BlockRef,
    /// Time of that block, unix milliseconds.
    pub start_ms: u64,
    /// Seed of the draw.
    pub seed: [u8; 32],
    /// Items to draw.
    pub wanted: Wanted,
}

/// A built round.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoundList {
    /// Always `assay-round/1`.
    pub schema: String,
    /// The subnet.
    pub netuid: u16,
    /// Era, as hex.
    pub era_id: String,
    /// Number within the era.
    pub number: u64,
    /// Finalised block that the seed comes from.
    pub start_block: u64,
    /// Its hash, `0x` and hex.
    pub start_hash: String,
    /// Its time, unix milliseconds.
    pub start_ms: u64,
    /// Seed of the draw, hex.
    pub seed: String,
    /// Packs drawn from, by digest.
    pub packs: Vec<ObjectDigest>,
    /// First day that counts as fresh.
    pub fresh_from: Day,
    /// Fresh items in the list.
    pub fresh: u64,
    /// Older items in the list.
    pub older: u64,
    /// The list as one JSON document.
    pub json: ObjectDigest,
    /// The list as NDJSON.
    pub ndjson: ObjectDigest,
}

impl Statement for RoundList {
    const TYPE: &'static str = "application/vnd.assay.round+json";
}

/// A round's list whose signature holds.
pub type SignedRound = Signed<RoundList>;

const SCHEMA: &str = "assay-round/1";

fn round_path(folder: &Path, start_block: u64) -> PathBuf {
    folder.join(format!("round-{start_block:012}.json"))
}

/// Draws a round's list from the packs of `folder` and builds it there; a round that is there
/// already is returned as it is. Lists beyond the newest 32 rounds are removed. Memory: the index
/// of all packs and the list itself.
///
/// # Errors
/// [`DatasetError::Empty`] without packs; [`DatasetError::Locked`] while another process writes to
/// `folder`; else what disk and packs say.
pub fn build(
    folder: &Path,
    spec: &ListSpec,
    signer: &Signer,
    now_ms: u64,
) -> Result<SignedRound, DatasetError> {
    if let Some(built) = read(&round_path(folder, spec.start.number.0))? {
        return Ok(built);
    }
    let _lock = lock(folder)?;
    sweep(folder)?;
    let (packs, drawn) = draw(folder, spec)?;
    let ids = drawn.mixed(spec.seed);
    if ids.is_empty() {
        return Err(DatasetError::Empty);
    }
    let list = conversations(&packs, &ids)?;
    let json = write_list(folder, &list, MediaType::Json, (signer, now_ms))?;
    let ndjson = write_list(folder, &list, MediaType::Ndjson, (signer, now_ms))?;
    let round = RoundList {
        schema: SCHEMA.to_owned(),
        netuid: spec.netuid.0,
        era_id: spec.era_id.clone(),
        number: spec.number.0,
        start_block: spec.start.number.0,
        start_hash: spec.start.hash.to_string(),
        start_ms: spec.start_ms,
        seed: hex::encode(spec.seed),
        packs: packs.iter().map(Pack::digest).collect(),
        fresh_from: sampling::fresh_from(spec.start_ms),
        fresh: drawn.fresh.len().try_into().unwrap_or(u64::MAX),
        older: drawn.older.len().try_into().unwrap_or(u64::MAX),
        json: json.digest,
        ndjson: ndjson.digest,
    };
    let signed = Signed::new(round, signer);
    let path = round_path(folder, spec.start.number.0);
    write_whole(&path, signed.to_json().as_bytes())?;
    prune(folder)?;
    Ok(signed)
}

fn draw(folder: &Path, spec: &ListSpec) -> Result<(Vec<Pack>, Drawn), DatasetError> {
    let chosen = sampling::packs_of_round(list_packs(folder)?, spec.start_ms);
    let packs: Vec<Pack> = chosen
        .iter()
        .map(|m| Pack::open(folder, m.digest))
        .collect::<Result<_, _>>()?;
    let drawn = draw_from(&packs, spec.seed, spec.start_ms, spec.wanted);
    Ok((packs, drawn))
}

/// The draw of a round that starts at `start_ms`, from the round's packs.
#[must_use]
pub fn draw_from(packs: &[Pack], seed: [u8; 32], start_ms: u64, wanted: Wanted) -> Drawn {
    let entries = packs.iter().flat_map(Pack::entries);
    let candidates = entries.map(|entry| (entry.id, entry.created));
    sampling::draw(seed, sampling::fresh_from(start_ms), candidates, wanted)
}

fn write_list(
    folder: &Path,
    list: &[Conversation],
    media_type: MediaType,
    (signer, now_ms): (&Signer, u64),
) -> Result<SignedManifest, DatasetError> {
    let (open, between, close) = match media_type {
        MediaType::Json => ("{\"all_convos\":[", ",", "]}\n"),
        MediaType::Ndjson => ("", "\n", "\n"),
    };
    let mut draft = Draft::new(folder)?;
    draft.write(open.as_bytes())?;
    for (i, conversation) in list.iter().enumerate() {
        if i > 0 {
            draft.write(between.as_bytes())?;
        }
        draft.write(conversation.to_json().as_bytes())?;
    }
    draft.write(close.as_bytes())?;
    let days = list.iter().map(Conversation::created);
    let from = days.clone().min().ok_or(DatasetError::Empty)?;
    let about = About {
        kind: Kind::Items,
        media_type,
        count: list.len().try_into().unwrap_or(u64::MAX),
        days: (from, days.max().unwrap_or(from)),
        sealed_ms: now_ms,
        index: None,
    };
    draft.finish(folder, about, signer)
}

fn read(path: &Path) -> Result<Option<SignedRound>, DatasetError> {
    match fs::metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(DatasetError::io(path)(e)),
        Ok(facts) if facts.len() > ROUND_BYTES_MAX => {
            let what = path.display().to_string();
            return Err(DatasetError::corrupt(what, "it is larger than 256 KiB"));
        }
        Ok(_) => {}
    }
    let bytes = fs::read(path).map_err(DatasetError::io(path))?;
    let round = SignedRound::from_json(&bytes)
        .map_err(|e| DatasetError::corrupt(path.display().to_string(), e.to_string()))?;
    Ok(Some(round).filter(|round| round.schema == SCHEMA))
}

/// Start blocks of the rounds built in `folder`, newest first; a missing folder holds none.
fn starts(folder: &Path) -> Result<Vec<u64>, DatasetError> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(DatasetError::io(folder)(e)),
    };
    let mut starts = Vec::new();
    for entry in entries {
        let name = entry.map_err(DatasetError::io(folder))?.file_name();
        let number = name.to_str().and_then(|name| {
            let digits = name.strip_prefix("round-")?.strip_suffix(".json")?;
            digits.parse::<u64>().ok()
        });
        starts.extend(number);
    }
    starts.sort_unstable_by_key(|start| std::cmp::Reverse(*start));
    Ok(starts)
}

/// The built rounds of `folder`, newest first, at most 32. Reads every one: keep the answer for a
/// while where many ask. One that cannot be read is logged and left out.
///
/// # Errors
/// When the folder cannot be listed.
pub fn list(folder: &Path) -> Result<Vec<SignedRound>, DatasetError> {
    let mut rounds = Vec::new();
    for start in starts(folder)?.into_iter().take(ROUNDS_KEPT) {
        match read(&round_path(folder, start)) {
            Ok(round) => rounds.extend(round),
            Err(error) => tracing::warn!(%error, "a round's list cannot be used; left out"),
        }
    }
    Ok(rounds)
}

/// Removes old rounds and the lists that no kept round names.
fn prune(folder: &Path) -> Result<(), DatasetError> {
    for start in starts(folder)?.into_iter().skip(ROUNDS_KEPT) {
        let path = round_path(folder, start);
        fs::remove_file(&path).map_err(DatasetError::io(&path))?;
    }
    let kept: Vec<ObjectDigest> = list(folder)?
        .iter()
        .flat_map(|round| [round.json, round.ndjson])
        .collect();
    for manifest in super::object::list(folder, Kind::Items)? {
        if !kept.contains(&manifest.digest) {
            remove(folder, manifest.digest)?;
        }
    }
    Ok(())
}

/// Ids of the conversations of a list, in its order.
///
/// # Errors
/// The reason, when it is no list.
pub fn ids_of_json(bytes: &[u8]) -> Result<Vec<ItemId>, String> {
    #[derive(Deserialize)]
    struct Known {
        id: ItemId,
    }
    #[derive(Deserialize)]
    struct List {
        all_convos: Vec<Known>,
    }
    let list: List = serde_json::from_slice(bytes).map_err(|e| e.to_string())?;
    Ok(list.all_convos.into_iter().map(|known| known.id).collect())
}
