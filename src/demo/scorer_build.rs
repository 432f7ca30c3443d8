//! The static CPU scorer: where it is, or how it comes about.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

const BINARY: &str = "scorer-cpu";
const PACKAGE: &str = "assay-scorer-cpu";
const BUILD_LIMIT: Duration = Duration::from_mins(30);
/// Last lines of cargo's output that an error quotes.
const TAIL_LINES: usize = 20;
const BINARY_BYTES_MAX: u64 = 1 << 28;

/// There is no usable scorer.
#[derive(Debug, thiserror::Error)]
pub enum ScorerBuildError {
    /// A binary is there but an empty image could not run it.
    #[error(
        "{path} is not a static executable ({reason}); build it as docker/scorer-cpu/README.md says"
    )]
    NotStatic {
        /// The binary.
        path: PathBuf,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// No source tree to build it from.
    #[error(
        "no {BINARY} beside this program and no source tree of it above {from}; run from the source tree or name the binary"
    )]
    NoSource {
        /// Where the search began.
        from: PathBuf,
    },
    /// cargo ran and failed.
    #[error("building {BINARY} in {tree} failed: {output}")]
    Build {
        /// The source tree.
        tree: PathBuf,
        /// The end of cargo's output.
        output: String,
    },
    /// A file or process could not be used.
    #[error("{what}: {source}")]
    Io {
        /// What was being done, to what.
        what: String,
        /// Why it failed.
        source: std::io::Error,
    },
}

/// A static `scorer-cpu`: `explicit`, else the one beside the running program if it is static,
/// else freshly built from the source tree of the running `cargo` command or of the working
/// directory. `progress` is given cargo's output line by line.
///
/// Blocks, for minutes when it has to build.
///
/// # Errors
/// [`ScorerBuildError`]; a named binary that is not static is never replaced by another.
pub fn locate_or_build(
    explicit: Option<&Path>,
    mut progress: impl FnMut(&str),
) -> Result<PathBuf, ScorerBuildError> {
    if let Some(path) = explicit {
        return check_static(path).map(|()| path.to_owned());
    }
    let own = std::env::current_exe().ok();
    if let Some(sibling) = own.and_then(|own| Some(own.parent()?.join(BINARY)))
        && check_static(&sibling).is_ok()
    {
        return Ok(sibling);
    }
    let tree = source_tree()?;
    // Without the network first: a lock file whose crates are all there needs none.
    let offline = build(&tree, &["--locked", "--offline"], &mut progress);
    let built = match offline {
        Err(ScorerBuildError::Build { .. }) => build(&tree, &["--locked"], &mut progress)?,
        other => other?,
    };
    check_static(&built)?;
    Ok(built)
}

/// The innermost folder with the scorer's source at or above the place where cargo or the user is.
fn source_tree() -> Result<PathBuf, ScorerBuildError> {
    let from = match std::env::var_os("CARGO_MANIFEST_DIR") {
        Some(dir) => PathBuf::from(dir),
        None => std::env::current_dir().map_err(|source| ScorerBuildError::Io {
            what: "finding the working directory".to_owned(),
            source,
        })?,
    };
    let is_tree = |dir: &&Path| dir.join("docker/scorer-cpu/Cargo.toml").is_file();
    match from.ancestors().find(is_tree) {
        Some(tree) => Ok(tree.to_owned()),
        None => Err(ScorerBuildError::NoSource { from }),
    }
}

fn build(
    tree: &Path,
    extra: &[&str],
    progress: &mut impl FnMut(&str),
) -> Result<PathBuf, ScorerBuildError> {
    let triple = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let target = tree.join("target/scorer");
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo
        .current_dir(tree)
        .args([
            "build",
            "--release",
            "--package",
            PACKAGE,
            "--target",
            &triple,
        ])
        .arg("--target-dir")
        .arg(&target)
        .args(["--config", "profile.release.strip='symbols'"])
        .args(extra)
        .env("CARGO_ENCODED_RUSTFLAGS", flags(tree));
    let (success, output) = watch(&mut cargo, progress).map_err(|source| ScorerBuildError::Io {
        what: format!("running cargo in {}", tree.display()),
        source,
    })?;
    if success {
        return Ok(target.join(triple).join("release").join(BINARY));
    }
    Err(ScorerBuildError::Build {
        tree: tree.to_owned(),
        output,
    })
}

/// Static linking, and no folder of this machine in the binary.
fn flags(tree: &Path) -> OsString {
    let mut flags = OsString::from("-Ctarget-feature=+crt-static");
    let home = std::env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::home_dir().map(|home| home.join(".cargo")));
    for (folder, name) in [(home.as_deref(), "cargo"), (Some(tree), "assay")] {
        if let Some(folder) = folder {
            flags.push("\u{1f}--remap-path-prefix=");
            flags.push(folder);
            flags.push(format!("=/{name}"));
        }
    }
    flags
}

/// Runs to the end or the limit; returns success and the end of stderr.
fn watch(
    command: &mut Command,
    progress: &mut impl FnMut(&str),
) -> std::io::Result<(bool, String)> {
    let ends = Instant::now() + BUILD_LIMIT;
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    let (sender, lines) = channel();
    if let Some(stderr) = child.stderr.take() {
        // Ends with the pipe, at the latest when the child is killed below.
        std::thread::spawn(move || {
            let all = BufReader::new(stderr).lines().map_while(Result::ok);
            all.map_while(|line| sender.send(line).ok()).count()
        });
    }
    let mut tail = std::collections::VecDeque::new();
    loop {
        match lines.recv_timeout(ends.saturating_duration_since(Instant::now())) {
            Ok(line) => {
                progress(&line);
                tail.push_back(line);
                if tail.len() > TAIL_LINES {
                    tail.pop_front();
                }
            }
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {
                child.kill()?;
                tail.push_back(format!(
                    "stopped after {} minutes",
                    BUILD_LIMIT.as_secs() / 60
                ));
                break;
            }
        }
    }
    let success = child.wait()?.success();
    let output: Vec<String> = tail.into();
    Ok((success, output.join("\n")))
}

/// Refuses what is not a 64-bit little-endian ELF executable without interpreter and without
/// needed libraries.
fn check_static(path: &Path) -> Result<(), ScorerBuildError> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(BINARY_BYTES_MAX).read_to_end(&mut bytes))
        .map_err(|source| ScorerBuildError::Io {
            what: format!("reading {}", path.display()),
            source,
        })?;
    let path = path.to_owned();
    let refuse = |reason| Err(ScorerBuildError::NotStatic { path, reason });
    match linkage(&bytes) {
        Some(Linkage {
            interpreter: false,
            needed: false,
        }) => Ok(()),
        Some(Linkage {
            interpreter: true, ..
        }) => refuse("it asks for an interpreter"),
        Some(_) => refuse("it needs shared libraries"),
        None => refuse("it is no 64-bit ELF file"),
    }
}

struct Linkage {
    interpreter: bool,
    needed: bool,
}

/// Reads the program headers (ELF-64 specification, figures 2-3, 5-1 and 5-10).
fn linkage(elf: &[u8]) -> Option<Linkage> {
    const DYNAMIC: u64 = 2;
    const INTERPRETER: u64 = 3;
    const NEEDED: u64 = 1;
    let number = |at: usize, width: usize| {
        let bytes = elf.get(at..at.checked_add(width)?)?;
        Some(bytes.iter().rev().fold(0, |n, b| n << 8 | u64::from(*b)))
    };
    let offset = |at: usize, width: usize| usize::try_from(number(at, width)?).ok();
    if !elf.starts_with(b"\x7fELF\x02\x01") {
        return None;
    }
    let (table, width, count) = (offset(32, 8)?, offset(54, 2)?, offset(56, 2)?);
    let mut found = Linkage {
        interpreter: false,
        needed: false,
    };
    for header in (0..count).map(|i| table.checked_add(i.checked_mul(width)?)) {
        let header = header?;
        match number(header, 4)? {
            INTERPRETER => found.interpreter = true,
            DYNAMIC => {
                let start = offset(header.checked_add(8)?, 8)?;
                let entries = elf
                    .get(start..)?
                    .get(..offset(header.checked_add(32)?, 8)?)?;
                let needs = |entry: &[u8; 16]| entry[..8] == NEEDED.to_le_bytes();
                found.needed |= entries.as_chunks::<16>().0.iter().any(needs);
            }
            _ => {}
        }
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dynamic_program_and_a_text_are_refused() {
        let own = std::env::current_exe().unwrap();
        let refused = locate_or_build(Some(&own), |_| ()).unwrap_err();
        assert!(
            matches!(refused, ScorerBuildError::NotStatic { reason, .. } if reason.contains("interpreter"))
        );

        let dir = tempfile::tempdir().unwrap();
        let text = dir.path().join("scorer-cpu");
        std::fs::write(&text, "#!/bin/sh\n").unwrap();
        let refused = locate_or_build(Some(&text), |_| ()).unwrap_err();
        assert!(
            matches!(refused, ScorerBuildError::NotStatic { reason, .. } if reason.contains("ELF"))
        );
        let missing = locate_or_build(Some(&dir.path().join("none")), |_| ()).unwrap_err();
        assert!(matches!(missing, ScorerBuildError::Io { .. }));
    }

    #[test]
    fn a_damaged_header_is_no_elf_file() {
        let own = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        assert!(linkage(&own).is_some());
        for cut in [0, 5, 40, 64, 100] {
            assert!(linkage(&own[..cut]).is_none(), "{cut}");
        }
        let mut far = own[..4096].to_vec();
        far[32..40].fill(0xff);
        assert!(linkage(&far).is_none());
    }
}
