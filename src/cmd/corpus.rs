//! `assay corpus`: import, seal, list, verify, export, sync and count conversations.

use std::fs::File;
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use indicatif::{ProgressBar, ProgressStyle};

use super::lifetime::Lifetime;
use super::run::chain_settings;
use super::{Failure, print_line};
use crate::chain::{ChainClient, HotkeyPair};
use crate::cli::{Corpus as Command, Import, RoundLists, Seal, SyncPacks};
use crate::clock;
use crate::config;
use crate::dataset::client::{ClientSettings, DatasetClient};
use crate::dataset::object::{self, lookup};
use crate::dataset::sampling::Wanted;
use crate::dataset::source::Source;
use crate::dataset::{
    self, Corpus, DatasetError, Form, ImportOptions, ObjectDigest, Signer, Stats,
};
use crate::service::round_lists::RoundLists as RoundListBuilder;

/// Runs one of the corpus tools.
///
/// # Errors
/// [`Failure`]: 64 when there is nothing to seal or a digest is unknown, 69 when a file is missing,
/// the disk refuses, or a pack is not what was signed.
pub async fn run(command: Command) -> Result<(), Failure> {
    let command = match command {
        Command::Sync(options) => return sync(options).await,
        Command::Rounds(options) => return rounds(options).await,
        other => other,
    };
    let done = tokio::task::spawn_blocking(move || match command {
        Command::Import(options) => import(&options),
        Command::Seal(options) => seal(&options),
        Command::List { packs } => list(&packs),
        Command::Verify { packs, digests } => verify(&packs, digests),
        Command::Export { packs, digest, out } => export(&packs, digest, out.as_deref()),
        Command::Stats { corpus } => stats(&corpus),
        Command::Sync(_) | Command::Rounds(_) => Ok(()),
    });
    done.await.map_err(Failure::bug)?
}

fn failure(error: DatasetError) -> Failure {
    match error {
        DatasetError::Empty => Failure::usage(error),
        other => Failure::unavailable(other),
    }
}

/// A bar on standard error; nothing where that is no terminal.
fn bar(total: u64, template: &str) -> ProgressBar {
    let style = ProgressStyle::with_template(template);
    let bar = ProgressBar::new(total);
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar
}

/// Where an import lists what it did not take, unless told otherwise.
fn default_rejects(corpus: &Path, file: &Path) -> PathBuf {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    corpus.join(format!("rejects-{name}.jsonl"))
}

fn import(options: &Import) -> Result<(), Failure> {
    let mut source = Source::open(&options.file).map_err(failure)?;
    let mut corpus = Corpus::open(&options.corpus).map_err(failure)?;
    let rejects = options.rejects.clone();
    let rejects = rejects.unwrap_or_else(|| default_rejects(&options.corpus, &options.file));
    let how = ImportOptions {
        day: options.created,
        checkpoint_records: options.checkpoint,
        ..ImportOptions::new(rejects.clone())
    };
    let bar = bar(
        source.progress().1,
        "{bar:30} {percent}% {msg}, {elapsed} elapsed, {eta} left",
    );
    let mut seen = 0u64;
    let summary = corpus
        .import(&mut source, &how, &mut |source, summary| {
            seen += 1;
            if seen.is_multiple_of(1000) {
                bar.set_position(source.progress().0);
                bar.set_message(format!("{} added", summary.added));
            }
        })
        .map_err(failure)?;
    bar.finish_and_clear();
    print_line(format_args!(
        "added {}, duplicates {}, rejected {}; the corpus holds {}; what was not taken: {}",
        summary.added,
        summary.duplicates,
        summary.rejected,
        corpus.len(),
        rejects.display()
    ))
}

fn seal(options: &Seal) -> Result<(), Failure> {
    let signer = signer(&options.hotkey_file)?;
    let corpus = Corpus::open(&options.corpus).map_err(failure)?;
    let mut days = corpus.days().map_err(failure)?;
    days.retain(|day| {
        options.from.is_none_or(|from| from <= *day) && options.to.is_none_or(|to| *day <= to)
    });
    let stretches: Vec<_> = if options.each_day {
        days.iter().map(|day| (Some(*day), Some(*day))).collect()
    } else {
        vec![(options.from, options.to)]
    };
    if days.is_empty() {
        return Err(failure(DatasetError::Empty));
    }
    let bytes = corpus.bytes(&days).map_err(failure)?;
    let bar = bar(
        bytes,
        "{bar:30} {bytes} of {total_bytes}, {bytes_per_sec}, {eta} left",
    );
    let (mut sealed, mut shown) = (0, 0);
    for stretch in stretches {
        let with = (&signer, clock::now_ms());
        let mut on_line = |length| {
            sealed += length;
            if sealed - shown > 4 * 1024 * 1024 {
                shown = sealed;
                bar.set_position(sealed);
            }
        };
        let manifest = dataset::seal(&corpus, &options.packs, stretch, with, &mut on_line);
        let manifest = manifest.map_err(failure)?;
        bar.suspend(|| print_line(manifest.to_json()))?;
    }
    bar.finish_and_clear();
    Ok(())
}

fn list(packs: &Path) -> Result<(), Failure> {
    for manifest in dataset::list_packs(packs).map_err(failure)? {
        print_line(manifest.to_json())?;
    }
    Ok(())
}

/// Every object that is named, or every pack; the first that fails ends it with 69, after all were
/// looked at.
fn verify(packs: &Path, digests: Vec<ObjectDigest>) -> Result<(), Failure> {
    let digests = if digests.is_empty() {
        let listed = dataset::list_packs(packs).map_err(failure)?;
        listed.iter().map(|manifest| manifest.digest).collect()
    } else {
        digests
    };
    let mut first = None;
    for digest in digests {
        match dataset::verify(packs, digest) {
            Ok(manifest) => print_line(format_args!(
                "{digest} is whole, {} conversations, signed by {}",
                manifest.count,
                manifest.signer()
            ))?,
            Err(error) => {
                print_line(format_args!("{digest} FAILS: {error}"))?;
                first = first.or(Some(error));
            }
        }
    }
    first.map_or(Ok(()), |error| Err(failure(error)))
}

fn export(packs: &Path, digest: ObjectDigest, out: Option<&Path>) -> Result<(), Failure> {
    let unknown = || Failure::usage(format_args!("{} holds no {digest}", packs.display()));
    dataset::verify(packs, digest).map_err(failure)?;
    let object = lookup(packs, digest)
        .map_err(failure)?
        .ok_or_else(unknown)?;
    let (path, _) = object.path(Form::Identity).map_err(failure)?;
    let copy = || -> io::Result<u64> {
        let mut from = BufReader::new(File::open(&path)?);
        match out {
            Some(out) => io::copy(&mut from, &mut File::create_new(out)?),
            None => io::copy(&mut from, &mut io::stdout().lock()),
        }
    };
    copy().map_err(|e| Failure::unavailable(format_args!("cannot export {digest}: {e}")))?;
    Ok(())
}

fn stats(corpus: &Path) -> Result<(), Failure> {
    let corpus = Corpus::open(corpus).map_err(failure)?;
    let mut all = Stats::default();
    let line = |day: &str, stats: &Stats| {
        let mut entry = serde_json::json!({ "day": day });
        if let (Some(entry), Ok(serde_json::Value::Object(stats))) =
            (entry.as_object_mut(), serde_json::to_value(stats))
        {
            entry.extend(stats);
        }
        print_line(entry)
    };
    for day in corpus.days().map_err(failure)? {
        let stats = corpus.stats(day).map_err(failure)?;
        line(&day.to_string(), &stats)?;
        all = all.plus(stats);
    }
    line("all", &all)
}

/// Copies packs, in all forms, from other replicas, static hosts or buckets.
async fn sync(options: SyncPacks) -> Result<(), Failure> {
    let is_mirror = |url: &url::Url| options.static_host || url.scheme() == "s3";
    let (mirrors, endpoints) = options.from.iter().cloned().partition(is_mirror);
    let client = DatasetClient::new(ClientSettings {
        endpoints,
        mirrors,
        keep: &Form::COMPRESSED,
        operators: options.operators,
        token: std::env::var("ASSAY_DATASET_TOKEN").ok().map(Into::into),
        ..ClientSettings::new(options.packs.clone())
    });
    let client = client.map_err(failure)?;
    let report = client.sync().await.map_err(failure)?;
    let packs = options.packs;
    tokio::task::spawn_blocking(move || object::write_listing(&packs))
        .await
        .map_err(Failure::bug)?
        .map_err(failure)?;
    for (digest, reason) in &report.failed {
        print_line(format_args!("{digest} cannot be had: {reason}"))?;
    }
    print_line(format_args!(
        "{} packs on offer, {} fetched, {} failed",
        report.listed,
        report.fetched,
        report.failed.len()
    ))?;
    if report.failed.is_empty() {
        Ok(())
    } else {
        Err(Failure::unavailable(
            "some packs could not be had; run it again",
        ))
    }
}

/// Follows the chain until a signal. Apart from the Dataset API on purpose: serving goes on with
/// what is built when this process, or the chain, is down.
async fn rounds(options: RoundLists) -> Result<(), Failure> {
    let (chain, eras) = config::load_rounds(&options.config.config).map_err(Failure::usage)?;
    let signer = signer(&options.hotkey_file)?;
    let mut life = Lifetime::begin(options.config.with_parent)?;
    let connected = ChainClient::connect(&chain_settings(&chain)).await;
    let lists = RoundListBuilder {
        chain: connected.map_err(Failure::unavailable)?,
        netuid: chain.netuid,
        eras,
        packs: options.packs,
        signer: Arc::new(signer),
        wanted: Wanted {
            fresh: options.fresh,
            older: options.older,
        },
    };
    life.spawn("round lists", lists.run(life.shutdown.clone()));
    life.run().await
}

/// The operator's key as the dataset needs it.
pub(in crate::cmd) fn signer(hotkey_file: &Path) -> Result<Signer, Failure> {
    let (pair, loose) = HotkeyPair::load(hotkey_file, None).map_err(Failure::unavailable)?;
    if let Some(loose) = loose {
        let mode = format!("{:o}", loose.mode);
        tracing::warn!(mode, path = %hotkey_file.display(), "others may read the hotkey; chmod 600 it");
    }
    Ok(Signer::new(pair.hotkey(), move |message| {
        pair.sign(message)
    }))
}
