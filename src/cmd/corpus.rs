//! `assay corpus`: import, seal and list conversations.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use super::{Failure, print_line};
use crate::cli::Corpus as Command;
use crate::clock;
use crate::dataset::{self, Corpus, DatasetError, Day};

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
            from,
            to,
        } => seal(&corpus, &packs, (from, to)),
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

fn seal(corpus: &Path, packs: &Path, days: (Option<Day>, Option<Day>)) -> Result<(), Failure> {
    let corpus = Corpus::open(corpus).map_err(failure)?;
    let manifest = dataset::seal(&corpus, packs, days, clock::now_ms()).map_err(failure)?;
    print_line(serde_json::to_string(&manifest).map_err(Failure::bug)?)
}

fn list(packs: &Path) -> Result<(), Failure> {
    for manifest in dataset::list_packs(packs).map_err(failure)? {
        print_line(serde_json::to_string(&manifest).map_err(Failure::bug)?)?;
    }
    Ok(())
}
