//! `assay corpus`: import, seal and list conversations.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use super::{Failure, print_line};
use crate::chain::HotkeyPair;
use crate::cli::Corpus as Command;
use crate::clock;
use crate::dataset::{self, Corpus, DatasetError, Day, Signer};

/// Rejected lines that are listed one by one; the rest is only counted.
const LISTED_MAX: u64 = 1000;

/// Runs one of the corpus tools.
///
/// # Errors
/// [`Failure`]: 69 when a file is missing or the disk refuses.
pub async fn run(command: Command) -> Result<(), Failure> {
    let done = tokio::task::spawn_blocking(move || match command {
        Command::Import {
            corpus,
            file,
            created,
        } => import(&corpus, &file, created),
        Command::Seal {
            corpus,
            packs,
            hotkey_file,
            from,
            to,
        } => seal(&corpus, &packs, (from, to), &hotkey_file),
        Command::List { packs } => list(&packs),
    });
    done.await.map_err(Failure::bug)?
}

fn failure(error: DatasetError) -> Failure {
    match error {
        DatasetError::Empty => Failure::usage(error),
        other => Failure::unavailable(other),
    }
}

fn import(corpus: &Path, file: &Path, created: Option<Day>) -> Result<(), Failure> {
    let source = File::open(file)
        .map_err(|e| Failure::unavailable(format_args!("{}: {e}", file.display())))?;
    let mut corpus = Corpus::open(corpus).map_err(failure)?;
    let mut listed = 0;
    let mut output = Ok(());
    let summary = corpus
        .import(&mut BufReader::new(source), created, |line, reason| {
            listed += 1;
            if listed <= LISTED_MAX && output.is_ok() {
                output = print_line(format_args!("line {line}: {reason}"));
            }
        })
        .map_err(failure)?;
    output?;
    if listed > LISTED_MAX {
        print_line(format_args!("… and {} more", listed - LISTED_MAX))?;
    }
    print_line(format_args!(
        "added {}, duplicates {}, rejected {}; the corpus holds {}",
        summary.added,
        summary.duplicates,
        summary.rejected,
        corpus.len()
    ))
}

fn seal(
    corpus: &Path,
    packs: &Path,
    days: (Option<Day>, Option<Day>),
    hotkey_file: &Path,
) -> Result<(), Failure> {
    let signer = signer(hotkey_file)?;
    let corpus = Corpus::open(corpus).map_err(failure)?;
    let with = (&signer, clock::now_ms());
    let manifest = dataset::seal(&corpus, packs, days, with, &mut |_| {}).map_err(failure)?;
    print_line(manifest.to_json())
}

fn list(packs: &Path) -> Result<(), Failure> {
    for manifest in dataset::list_packs(packs).map_err(failure)? {
        print_line(manifest.to_json())?;
    }
    Ok(())
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
