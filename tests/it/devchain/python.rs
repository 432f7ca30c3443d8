//! A client that nobody here wrote: `async-substrate-interface` from PyPI.

use assay::devchain::{DevChain, Genesis, Options, Sealing};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The interpreter with the package, or `None`, said aloud.
fn interpreter() -> Option<PathBuf> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let python = root.join("target/venv/bin/python");
    if python.exists() {
        return Some(python);
    }
    println!(
        "SKIPPED: no {}; make it with: python3 -m venv target/venv && target/venv/bin/pip install -r tests/it/python/requirements.txt",
        python.display()
    );
    None
}

#[tokio::test(flavor = "multi_thread")]
async fn the_python_client_reads_commits_and_sees_refusals() {
    let Some(python) = interpreter() else { return };
    for options in super::checks::runtimes() {
        let options = Options {
            sealing: Sealing::Interval,
            finality_lag: 2,
            ..options
        };
        run_client(&python, options).await;
    }
}

async fn run_client(python: &Path, options: Options) {
    let genesis = Genesis {
        block_time: Duration::from_millis(250),
        ..Genesis::dev()
    };
    let chain = DevChain::start(genesis, options).await.unwrap();
    let script = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/it/python/devchain_client.py"
    );
    let output = tokio::process::Command::new(python)
        .arg(script)
        .arg(chain.url())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(Duration::from_secs(90), output)
        .await
        .unwrap()
        .unwrap();
    assert!(
        output.status.success(),
        "{}\n{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}
