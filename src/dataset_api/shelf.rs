//! What there is to hand out, looked up without touching the disk.
//!
//! The shelf is read whole every few seconds, off the request path; requests see the last reading.
//! The forms of the newest round's list are held in memory, checked against their digests; all
//! else is served from its files through the page cache.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, RwLock};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use serde_json::json;

use super::lock;
use super::shared::{read, write};
use crate::dataset::object::{self, Listing, Object, lookup};
use crate::dataset::rounds::{self, SignedRound};
use crate::dataset::{DatasetError, Form, ObjectDigest};
use crate::shutdown::Shutdown;

/// Time between two looks at the folder. A newly sealed pack is offered within it.
const FRESH: Duration = Duration::from_secs(2);
/// Forms of one list that are held in memory, all together; larger ones are served from files.
const READY_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// One object with what makes it quick to serve.
#[derive(Debug)]
pub struct Shown {
    /// Its files and manifest.
    pub object: Object,
    ready: Option<[Bytes; 3]>,
    /// Where each conversation of a JSON list ends in its plain bytes; empty for others.
    pub ends: Vec<usize>,
}

impl Shown {
    /// The bytes of a form, if they are held in memory.
    #[must_use]
    pub fn ready(&self, form: Form) -> Option<Bytes> {
        let place = Form::ALL.iter().position(|f| *f == form)?;
        Some(self.ready.as_ref()?[place].clone())
    }
}

/// One reading of the folder.
#[derive(Debug, Default)]
pub struct View {
    /// `{"packs":[…]}`.
    pub listing: Bytes,
    /// `{"rounds":[…]}`, newest first.
    pub rounds_listing: Bytes,
    /// Built rounds, newest first.
    pub rounds: Vec<SignedRound>,
    /// The newest round's list as the origin's clients read it.
    pub current: Option<Arc<Shown>>,
    objects: HashMap<ObjectDigest, Arc<Shown>>,
    packs: usize,
    newest: Option<ObjectDigest>,
    stamp: Option<SystemTime>,
}

impl View {
    /// The object of this digest.
    #[must_use]
    pub fn object(&self, digest: &ObjectDigest) -> Option<&Arc<Shown>> {
        self.objects.get(digest)
    }

    fn load(folder: &Path, last: &Self) -> Result<Self, DatasetError> {
        let stamp = std::fs::metadata(folder).and_then(|m| m.modified()).ok();
        // A change in the same tick of the file system's clock would not show in the stamp.
        let settled = |at: &SystemTime| at.elapsed().is_ok_and(|age| age > FRESH);
        let stamp = stamp.filter(settled);
        let packs = object::list_packs(folder)?;
        let rounds = rounds::list(folder)?;
        let mut view = Self {
            listing: json_bytes(&Listing { packs: &packs }),
            rounds_listing: json_bytes(&json!({ "rounds": rounds })),
            packs: packs.len(),
            newest: packs.first().map(|m| m.digest),
            stamp,
            ..Self::default()
        };
        let lists = rounds.iter().flat_map(|round| [round.json, round.ndjson]);
        for digest in packs.iter().map(|m| m.digest).chain(lists) {
            let held = rounds.first().is_some_and(|round| round.json == digest);
            match view.show(folder, digest, held, last) {
                Ok(shown) => view.objects.extend(shown.map(|shown| (digest, shown))),
                Err(error) => {
                    tracing::error!(%digest, %error, "an object cannot be offered; verify and fetch it again")
                }
            }
        }
        let whole = |round: &SignedRound| view.objects.contains_key(&round.json);
        view.rounds = rounds.into_iter().filter(whole).collect();
        let newest = view.rounds.first();
        view.current = newest
            .and_then(|round| view.objects.get(&round.json))
            .cloned();
        Ok(view)
    }

    fn show(
        &self,
        folder: &Path,
        digest: ObjectDigest,
        held: bool,
        last: &Self,
    ) -> Result<Option<Arc<Shown>>, DatasetError> {
        if let Some(known) = last.objects.get(&digest)
            && known.ready.is_some() == held
        {
            return Ok(Some(Arc::clone(known)));
        }
        let Some(object) = lookup(folder, digest)? else {
            return Ok(None);
        };
        for form in Form::ALL {
            object.path(form)?;
        }
        let forms = &object.manifest().forms;
        let bytes: u64 = Form::ALL.iter().map(|form| forms.get(*form).bytes).sum();
        let (mut ready, mut ends) = (None, Vec::new());
        if held && bytes <= READY_BYTES_MAX {
            let forms = [
                load_form(&object, Form::Identity)?,
                load_form(&object, Form::Gzip)?,
                load_form(&object, Form::Zstd)?,
            ];
            ends = ends_of_items(&forms[0]);
            ready = Some(forms);
        }
        Ok(Some(Arc::new(Shown {
            object,
            ready,
            ends,
        })))
    }
}

fn json_bytes(value: &impl serde::Serialize) -> Bytes {
    // Plain structs: there is no value in them that JSON lacks.
    serde_json::to_vec(value).unwrap_or_default().into()
}

fn load_form(object: &Object, form: Form) -> Result<Bytes, DatasetError> {
    let (path, facts) = object.path(form)?;
    let bytes = std::fs::read(&path).map_err(|source| DatasetError::Io {
        path: path.clone(),
        source,
    })?;
    if ObjectDigest::of(&bytes) != facts.sha256 {
        return Err(DatasetError::Corrupt {
            what: path.display().to_string(),
            reason: "its bytes are not those that were signed".to_owned(),
        });
    }
    Ok(bytes.into())
}

/// Where each element of `{"all_convos":[…]}` ends.
fn ends_of_items(bytes: &[u8]) -> Vec<usize> {
    let (mut ends, mut depth) = (Vec::new(), 0u32);
    let (mut text, mut escaped) = (false, false);
    for (place, byte) in bytes.iter().enumerate() {
        if text {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => text = false,
                _ => {}
            }
            continue;
        }
        match byte {
            b'"' => text = true,
            b'{' | b'[' => depth += 1,
            b'}' | b']' => {
                depth = depth.saturating_sub(1);
                if depth == 2 {
                    ends.push(place + 1);
                }
            }
            _ => {}
        }
    }
    ends
}

/// The folder and its last reading.
#[derive(Debug)]
pub struct Shelf {
    folder: PathBuf,
    view: RwLock<Arc<View>>,
    begun: Instant,
    /// The body of `/v1/status` and the second that it was made in.
    status: Mutex<(u64, Bytes)>,
}

impl Shelf {
    /// Reads the folder. One that cannot be read is offered as empty, and read again later.
    #[must_use]
    pub fn open(folder: &Path) -> Self {
        let shelf = Self {
            folder: folder.to_owned(),
            view: RwLock::default(),
            begun: Instant::now(),
            status: Mutex::new((u64::MAX, Bytes::new())),
        };
        shelf.refresh();
        shelf
    }

    /// The folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The last reading.
    #[must_use]
    pub fn view(&self) -> Arc<View> {
        Arc::clone(&read(&self.view))
    }

    /// Reads the folder again when it changed. Blocks.
    pub fn refresh(&self) {
        let last = self.view();
        let stamp = std::fs::metadata(&self.folder)
            .and_then(|m| m.modified())
            .ok();
        if stamp.is_some() && stamp == last.stamp {
            return;
        }
        match View::load(&self.folder, &last) {
            Ok(view) => {
                *write(&self.view) = Arc::new(view);
                lock(&self.status).0 = u64::MAX;
            }
            Err(error) => {
                tracing::error!(%error, "the packs cannot be listed; offering the last ones")
            }
        }
    }

    /// The body of `/v1/status`, made once a second.
    #[must_use]
    pub fn status(&self) -> Bytes {
        let uptime_s = self.begun.elapsed().as_secs();
        let mut made = lock(&self.status);
        if made.0 != uptime_s {
            *made = (uptime_s, self.status_at(uptime_s));
        }
        made.1.clone()
    }

    fn status_at(&self, uptime_s: u64) -> Bytes {
        let view = self.view();
        let round = view.rounds.first().map(|round| round.number);
        json_bytes(&json!({
            "service": "dataset-api",
            "version": env!("CARGO_PKG_VERSION"),
            "packs": view.packs,
            "newest": view.newest,
            "round": round,
            "uptime_s": uptime_s,
        }))
    }
}

/// Reads the folder again and again until `stop`.
///
/// # Errors
/// None.
pub async fn follow(shelf: Arc<Shelf>, stop: Shutdown) -> std::io::Result<()> {
    loop {
        tokio::select! {
            () = stop.signalled() => return Ok(()),
            () = tokio::time::sleep(FRESH) => {}
        }
        let reading = Arc::clone(&shelf);
        if let Err(error) = tokio::task::spawn_blocking(move || reading.refresh()).await {
            tracing::error!(%error, "reading the packs broke off");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_end_where_they_end() {
        let text = br#"{"all_convos":[{"a":"}]\"","b":[{}]},{"c":[1]}]}"#;
        let ends = ends_of_items(text);
        let cut: Vec<_> = ends.iter().map(|end| text[*end - 1]).collect();
        assert_eq!(cut, b"}}");
        for end in &ends {
            let part = [&text[..*end], b"]}"].concat();
            serde_json::from_slice::<serde_json::Value>(&part).unwrap();
        }
        assert_eq!(ends.len(), 2);
    }
}
