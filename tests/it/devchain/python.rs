//! A client that nobody here wrote: `async-substrate-interface` from PyPI.

use crate::harness::python;
use assay::devchain::{DevChain, Genesis, Options, Sealing};
use std::path::Path;
use std::time::Duration;

#[tokio::test(flavor = "multi_thread")]
async fn the_python_client_reads_commits_and_sees_refusals() {
    let Some(python) = python() else { return };
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
