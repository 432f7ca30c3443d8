//! Samples of a past date for the origin's `GET /dataset`: drawn once, then a file like any other.
//!
//! Everyone who asks for the same dates gets the same bytes. One sample is drawn at a time, on a
//! file thread of the lane; who finds the place taken is told when to come back.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::answer::Way;
use super::client::{Class, Client};
use super::refusal::{Reason, Refusal};
use super::shelf::Shelf;
use crate::clock::now_ms;
use crate::dataset::object::list_packs;
use crate::dataset::rounds::LIST_DEFAULT;
use crate::dataset::{Conversation, DatasetError, Day, ItemId, Pack, sampling};
use crate::web::ApiError;

/// Samples kept.
const KEPT: usize = 32;
const DAY_MS: u64 = 86_400_000;

/// The days asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wanted {
    from: Option<Day>,
    to: Option<Day>,
    /// The day that counts as today.
    today: Option<Day>,
}

impl Wanted {
    /// Reads start, end, current and epoch date; the earlier of the last two counts as today.
    pub(super) fn read(dates: [&Option<String>; 4]) -> Result<Self, ApiError> {
        let mut days = [None; 4];
        for (day, text) in days.iter_mut().zip(dates) {
            let Some(text) = text.as_deref().filter(|t| !t.is_empty()) else {
                continue;
            };
            let wrong = |_| ApiError::bad_request("DATE", "A date is written YYYY-MM-DD.");
            *day = Some(text.parse::<Day>().map_err(wrong)?);
        }
        let [from, to, current, epoch] = days;
        let now = Day::from_unix_ms(now_ms());
        let today = [current, epoch].into_iter().flatten().min();
        Ok(Self {
            from,
            to: to.filter(|to| *to < now),
            today: today.filter(|today| *today < now),
        })
    }

    /// Whether the present round's list answers it: clients of the origin send a range that ends
    /// today.
    pub(super) fn is_present(&self) -> bool {
        self.to.is_none() && self.today.is_none()
    }

    fn last(&self) -> Option<Day> {
        [self.to, self.today].into_iter().flatten().min()
    }

    fn name(&self) -> String {
        let show = |day: Option<Day>| day.map_or_else(|| "any".to_owned(), |d| d.to_string());
        format!("sample-{}-{}.json", show(self.from), show(self.last()))
    }
}

static DRAWING: AtomicBool = AtomicBool::new(false);

struct Place;

impl Place {
    fn take() -> Option<Self> {
        let taken = DRAWING.swap(true, Ordering::AcqRel);
        (!taken).then_some(Self)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        DRAWING.store(false, Ordering::Release);
    }
}

/// Serves the sample of the days asked for.
pub(super) async fn serve(
    shelf: &Arc<Shelf>,
    wanted: &Wanted,
    limit: Option<usize>,
    (client, way): (Option<Client>, Way),
) -> Response {
    if client.is_some_and(|client| client.class == Class::Anonymous) && !wanted.is_present() {
        let detail = "Samples of past dates need a token; get one at /v1/auth/challenge.";
        let status = axum::http::StatusCode::UNAUTHORIZED;
        return ApiError::new(status, "TOKEN_NEEDED", detail).into_response();
    }
    let Some(place) = Place::take() else {
        return Refusal::after(Reason::Overload, 5).into_response();
    };
    let (folder, wanted) = (shelf.folder().to_owned(), *wanted);
    let drawn = tokio::task::spawn_blocking(move || {
        let _place = place;
        kept_or_drawn(&folder, &wanted, limit)
    });
    match drawn.await {
        Ok(Ok(bytes)) => {
            let mut response = way.bytes(vec![bytes]).into_response();
            let kind = HeaderValue::from_static("application/json");
            response.headers_mut().insert(header::CONTENT_TYPE, kind);
            response
        }
        Ok(Err(DatasetError::Empty)) => {
            let detail = "There is no conversation of these days.";
            ApiError::not_found("NO_CONVERSATIONS", detail).into_response()
        }
        Ok(Err(error)) => {
            tracing::error!(%error, "a sample cannot be drawn");
            ApiError::unavailable().into_response()
        }
        Err(error) => {
            tracing::error!(%error, "drawing a sample broke off");
            ApiError::unavailable().into_response()
        }
    }
}

fn kept_or_drawn(
    folder: &Path,
    wanted: &Wanted,
    limit: Option<usize>,
) -> Result<Bytes, DatasetError> {
    let samples = folder.join("samples");
    let path = samples.join(wanted.name());
    if limit.is_none()
        && !wanted.is_present()
        && let Ok(bytes) = std::fs::read(&path)
    {
        return Ok(bytes.into());
    }
    let list = draw(folder, wanted, limit)?;
    let texts: Vec<String> = list.iter().map(Conversation::to_json).collect();
    let body = Bytes::from(format!("{{\"all_convos\":[{}]}}\n", texts.join(",")));
    if limit.is_none() && !wanted.is_present() {
        // A sample that cannot be kept is drawn again: slower, not wrong.
        if let Err(error) = keep(&samples, &path, &body) {
            tracing::warn!(%error, "a sample cannot be kept");
        }
    }
    Ok(body)
}

fn keep(samples: &Path, path: &Path, body: &Bytes) -> std::io::Result<()> {
    std::fs::create_dir_all(samples)?;
    let mut kept: Vec<(std::time::SystemTime, PathBuf)> = Vec::new();
    for entry in std::fs::read_dir(samples)? {
        let entry = entry?;
        kept.push((entry.metadata()?.modified()?, entry.path()));
    }
    kept.sort();
    for (_, old) in kept.iter().take((kept.len() + 1).saturating_sub(KEPT)) {
        std::fs::remove_file(old)?;
    }
    let draft = path.with_extension("draft");
    std::fs::write(&draft, body)?;
    std::fs::rename(&draft, path)
}

/// First moment of a day: the days are searched, for [`Day`] knows only the other direction.
fn start_of(day: Day) -> u64 {
    let (mut low, mut high) = (0u64, 3_000_000u64);
    while low < high {
        let middle = u64::midpoint(low, high);
        if Day::from_unix_ms(middle * DAY_MS) < day {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    low * DAY_MS
}

fn draw(
    folder: &Path,
    wanted: &Wanted,
    limit: Option<usize>,
) -> Result<Vec<Conversation>, DatasetError> {
    let last = wanted.last().unwrap_or_else(|| Day::from_unix_ms(now_ms()));
    let packs: Vec<Pack> = list_packs(folder)?
        .iter()
        .filter(|m| m.from <= last)
        .take(sampling::ROUND_PACKS_MAX)
        .map(|m| Pack::open(folder, m.digest))
        .collect::<Result<_, _>>()?;
    let seed: [u8; 32] = Sha256::digest(format!("assay-dataset-sample/1 {}", wanted.name())).into();
    let fits = |day: Day| day <= last && wanted.from.is_none_or(|from| from <= day);
    let entries = packs
        .iter()
        .flat_map(Pack::entries)
        .filter(|e| fits(e.created));
    let candidates = entries.map(|entry| (entry.id, entry.created));
    let fresh_from = sampling::fresh_from(start_of(last) + DAY_MS - 1);
    let mut ids = sampling::draw(seed, fresh_from, candidates, LIST_DEFAULT).mixed(seed);
    ids.truncate(limit.unwrap_or(usize::MAX));
    read(&packs, &ids)
}

fn read(packs: &[Pack], ids: &[ItemId]) -> Result<Vec<Conversation>, DatasetError> {
    if ids.is_empty() {
        return Err(DatasetError::Empty);
    }
    let wanted: HashSet<_> = ids.iter().copied().collect();
    let mut found = HashMap::with_capacity(wanted.len());
    for pack in packs {
        pack.read(&wanted, &mut found)?;
    }
    Ok(ids.iter().filter_map(|id| found.remove(id)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_begin_where_they_begin_and_the_dates_are_read() {
        let day: Day = "2026-11-25".parse().unwrap();
        assert_eq!(start_of(day), 1_795_564_800_000);
        let none = None;
        let wanted = Wanted::read([&none, &none, &none, &none]).unwrap();
        assert!(wanted.is_present());
        let (start, past) = (Some("2025-01-01".to_owned()), Some("2025-01-18".to_owned()));
        let wanted = Wanted::read([&start, &none, &past, &none]).unwrap();
        assert!(!wanted.is_present());
        assert_eq!(wanted.name(), "sample-2025-01-01-2025-01-18.json");
        let future = Some("9999-01-01".to_owned());
        assert!(
            Wanted::read([&start, &future, &none, &none])
                .unwrap()
                .is_present()
        );
        assert!(Wanted::read([&Some("x".to_owned()), &none, &none, &none]).is_err());
    }
}
