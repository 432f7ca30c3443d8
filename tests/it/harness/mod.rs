//! Shared parts of the integration tests: temporary folders, child processes, small servers.

pub(crate) mod chaos;
pub(crate) mod demo;
pub(crate) mod probe;

use std::io::Write as _;
use std::path::{Path, PathBuf};

/// The interpreter with the packages of `tests/it/python/requirements.txt`; `None`, said aloud, where
/// there is none.
pub(crate) fn python() -> Option<PathBuf> {
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/venv/bin/python");
    if python.exists() {
        return Some(python);
    }
    // Not by a macro, whose output the test harness keeps to itself.
    let said = writeln!(
        std::io::stderr(),
        "SKIPPED: no {}; make it with: python3 -m venv target/venv && target/venv/bin/pip install -r \
         tests/it/python/requirements.txt",
        python.display()
    );
    said.ok();
    None
}
