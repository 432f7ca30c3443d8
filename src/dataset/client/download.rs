//! One pack from whoever has it, onto the disk, checked.

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::io::{BufReader, Write};
use std::path::{Path, PathBuf};

use futures::StreamExt;
use tokio::time::{Instant, timeout, timeout_at};

use super::super::manifest::FileFacts;
use super::super::object::{
    SignedManifest, form_path, index_path, is_whole, manifest_path, read_manifest,
};
use super::super::pack::{Plain, check_pack, decoder, file_facts};
use super::super::seal::write_whole;
use super::super::{DatasetError, Form, ObjectDigest};
use super::endpoint::{Endpoint, Refusal};
use super::{Inner, blocking};

/// Beginning of the names of unfinished downloads; they outlive the process and go on.
const PART_PREFIX: &str = ".part-";

fn part_path(cache: &Path, digest: ObjectDigest, form: Form) -> PathBuf {
    cache.join(format!("{PART_PREFIX}{}{}", digest.hex(), form.suffix()))
}

/// Removes unfinished downloads of packs that are not on offer.
pub(super) fn sweep(cache: &Path, listed: &HashSet<ObjectDigest>) -> Result<(), DatasetError> {
    for entry in fs::read_dir(cache).map_err(DatasetError::io(cache))? {
        let entry = entry.map_err(DatasetError::io(cache))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let hex = name
            .strip_prefix(PART_PREFIX)
            .and_then(|rest| rest.get(..64));
        let Some(digest) = hex.and_then(|hex| hex.parse::<ObjectDigest>().ok()) else {
            continue;
        };
        if !listed.contains(&digest) {
            let path = entry.path();
            fs::remove_file(&path).map_err(DatasetError::io(&path))?;
        }
    }
    Ok(())
}

impl Inner {
    /// Makes sure that a pack is on disk; true when it was fetched now. The caller holds the lock
    /// on writing.
    pub(super) async fn obtain(&self, manifest: &SignedManifest) -> Result<bool, DatasetError> {
        let (cache, digest) = (self.settings.cache.clone(), manifest.digest);
        let forms = [&[Form::Identity][..], self.settings.keep].concat();
        let there = blocking(move || {
            fs::create_dir_all(&cache).map_err(DatasetError::io(&cache))?;
            Ok(read_manifest(&cache, digest).is_ok_and(|m| is_whole(&cache, &m, &forms)))
        });
        if there.await? {
            return Ok(false);
        }
        if manifest.forms.zstd.bytes > self.settings.pack_bytes_max {
            return Err(DatasetError::TooLarge {
                what: format!("pack {digest}"),
                reason: "dataset.pack_size_max".to_owned(),
            });
        }
        let deadline = Instant::now() + self.settings.download_timeout;
        self.fetch(manifest, Form::Zstd, deadline).await?;
        if self.settings.keep.contains(&Form::Gzip) {
            self.fetch(manifest, Form::Gzip, deadline).await?;
        }
        let (cache, keep) = (self.settings.cache.clone(), self.settings.keep);
        let manifest = manifest.clone();
        blocking(move || unpack(&cache, &manifest, keep)).await?;
        Ok(true)
    }

    /// Downloads a form into its part file, from one endpoint after another, each going on where
    /// the last one stopped.
    async fn fetch(
        &self,
        manifest: &SignedManifest,
        form: Form,
        deadline: Instant,
    ) -> Result<(), DatasetError> {
        let part = part_path(&self.settings.cache, manifest.digest, form);
        let facts = manifest.forms.get(form);
        let mut reasons = Vec::new();
        self.health.earn();
        for i in self.health.order() {
            let endpoint = &self.endpoints[i];
            let attempt = self.attempt(endpoint, (manifest.digest, form, facts), &part);
            let ended = timeout_at(deadline, attempt).await;
            let late = |_| Err("the download did not end in time".to_owned().into());
            match ended.unwrap_or_else(late) {
                Ok(()) => {
                    self.health.succeeded(i);
                    return Ok(());
                }
                Err(refusal) => {
                    self.failed(i, refusal.wait);
                    let (endpoint, digest) = (endpoint.name(), manifest.digest);
                    tracing::warn!(%endpoint, reason = %refusal, %digest, "could not fetch a pack");
                    reasons.push(format!("{endpoint}: {refusal}"));
                }
            }
        }
        Err(DatasetError::Unavailable(reasons.join("; ")))
    }

    /// Goes on with what is there; should the whole then be wrong, starts once from nothing, for
    /// the fault may be another endpoint's.
    async fn attempt(
        &self,
        endpoint: &Endpoint,
        (digest, form, facts): (ObjectDigest, Form, FileFacts),
        part: &Path,
    ) -> Result<(), Refusal> {
        loop {
            let had = self.append(endpoint, (digest, form, facts), part).await?;
            let path = part.to_owned();
            let found = blocking(move || file_facts(&path)).await;
            if found.map_err(|e| e.to_string())? == facts {
                return Ok(());
            }
            fs::remove_file(part).map_err(|e| e.to_string())?;
            if had == 0 {
                return Err("its bytes are not what was signed".to_owned().into());
            }
        }
    }

    /// Appends to the part file until it has its full length; returns the length it had before.
    async fn append(
        &self,
        endpoint: &Endpoint,
        (digest, form, facts): (ObjectDigest, Form, FileFacts),
        part: &Path,
    ) -> Result<u64, Refusal> {
        let disk = |e: std::io::Error| Refusal::from(format!("{}: {e}", part.display()));
        let open = OpenOptions::new().create(true).append(true).open(part);
        let mut file = open.map_err(disk)?;
        let had = file.metadata().map_err(disk)?.len();
        if had >= facts.bytes {
            return Ok(had);
        }
        let patience = self.settings.request_timeout;
        let late = |_| Refusal::from("no answer in time".to_owned());
        let opened = timeout(patience, endpoint.open(digest, form, had)).await;
        let mut opened = opened.map_err(late)??;
        if opened.from > had {
            return Err("answered another range".to_owned().into());
        }
        file.set_len(opened.from).map_err(disk)?;
        let mut length = opened.from;
        while let Some(chunk) = timeout(patience, opened.bytes.next()).await.map_err(late)? {
            let chunk = chunk?;
            length += u64::try_from(chunk.len()).unwrap_or(u64::MAX);
            if length > facts.bytes {
                fs::remove_file(part).map_err(disk)?;
                return Err("sends more than was signed".to_owned().into());
            }
            file.write_all(&chunk).map_err(disk)?;
        }
        if length < facts.bytes {
            return Err(format!("ended after {length} of {} bytes", facts.bytes).into());
        }
        file.sync_all().map_err(disk)?;
        Ok(opened.from.min(had))
    }
}

/// Unpacks a checked zstd form, checks every conversation and the index, and gives everything its
/// name, the manifest last.
fn unpack(cache: &Path, manifest: &SignedManifest, keep: &[Form]) -> Result<(), DatasetError> {
    let digest = manifest.digest;
    let packed_path = part_path(cache, digest, Form::Zstd);
    let packed = File::open(&packed_path).map_err(DatasetError::io(&packed_path))?;
    // Named as a download that goes on: swept away with it, never by whoever seals there.
    let unpacked = cache.join(format!("{PART_PREFIX}{}.plain", digest.hex()));
    let mut file = File::create(&unpacked).map_err(DatasetError::io(&unpacked))?;
    let mut plain = decoder(packed, Form::Zstd).map_err(DatasetError::io(cache))?;
    std::io::copy(&mut plain, &mut file)
        .and_then(|_| file.sync_all())
        .map_err(DatasetError::io(&unpacked))?;
    let file = File::open(&unpacked).map_err(DatasetError::io(&unpacked))?;
    let mut plain = Plain::new(BufReader::with_capacity(256 * 1024, file));
    let index = check_pack(&mut plain, manifest)?;
    if plain.finish() != manifest.forms.identity {
        let reason = "its plain bytes are not what was signed";
        return Err(DatasetError::corrupt(format!("pack {digest}"), reason));
    }
    let path = form_path(cache, digest, Form::Identity);
    fs::rename(&unpacked, &path).map_err(DatasetError::io(&path))?;
    for form in [Form::Gzip, Form::Zstd] {
        let part = part_path(cache, digest, form);
        if keep.contains(&form) {
            let path = form_path(cache, digest, form);
            fs::rename(&part, &path).map_err(DatasetError::io(&path))?;
        } else {
            let _ = fs::remove_file(&part);
        }
    }
    write_whole(&index_path(cache, digest), &index)?;
    let path = manifest_path(cache, digest);
    write_whole(&path, manifest.to_json().as_bytes())
}
