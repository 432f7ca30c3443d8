//! What an idle node takes: resident memory of each role of a running demo, and the binary's size.
//!
//! `cargo bench --bench footprint`. Roles are compared with the smallest of them, in the same run.

#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

const ROLES: [&str; 3] = ["score-api", "dataset-api", "validator"];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let binary = env!("CARGO_BIN_EXE_assay");
    let dir = tempfile::tempdir()?;
    let mut demo = Command::new(binary)
        .args(["demo", "--plain", "--scorer", "process", "--dir"])
        .arg(dir.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let output = demo.stdout.take().ok_or("the demo has no output")?;
    // Printed when the first weights were read back: from then on the validator only follows blocks.
    let idle = BufReader::new(output)
        .lines()
        .map_while(Result::ok)
        .any(|l| l.starts_with("score page"));
    let measured: Result<Vec<u64>, _> = ROLES
        .iter()
        .map(|role| resident_kib(dir.path(), role))
        .collect();
    demo.kill()?;
    demo.wait()?;
    if !idle {
        return Err("the demo ended before its first weights".into());
    }
    let measured = measured?;
    let smallest = measured.iter().copied().min().unwrap_or(1).max(1);
    println!(
        "machine: {} cores; command: cargo bench --bench footprint",
        std::thread::available_parallelism()?
    );
    println!(
        "binary: {:.1} MiB",
        mib(std::fs::metadata(binary)?.len() / 1024)
    );
    for (role, kib) in ROLES.iter().zip(measured) {
        let ratio = mib(kib) / mib(smallest);
        println!(
            "{role:<12} {:>6.1} MiB resident, {ratio:.2} x the smallest role",
            mib(kib)
        );
    }
    Ok(())
}

fn mib(kib: u64) -> f64 {
    f64::from(u32::try_from(kib).unwrap_or(u32::MAX)) / 1024.0
}

/// `VmRSS` of a role's process, by the id that the demo notes.
fn resident_kib(dir: &Path, role: &str) -> Result<u64, Box<dyn std::error::Error>> {
    let pid = std::fs::read_to_string(dir.join("run").join(format!("{role}.pid")))?;
    let status = std::fs::read_to_string(format!("/proc/{}/status", pid.trim()))?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .ok_or("no VmRSS")?;
    let digits: String = line.chars().filter(char::is_ascii_digit).collect();
    Ok(digits.parse()?)
}
