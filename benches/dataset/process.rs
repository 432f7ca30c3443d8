//! What the kernel tells about a process, and about this machine.

#![allow(dead_code, reason = "each benchmark uses its part of it")]

use std::time::Duration;

use super::Outcome;

fn status_kib(pid: u32, field: &str) -> Outcome<u32> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = text.lines().find(|l| l.starts_with(field));
    let line = line.ok_or("no such field")?;
    let digits: String = line.chars().filter(char::is_ascii_digit).collect();
    Ok(digits.parse()?)
}

/// Resident memory now.
pub(crate) fn resident_kib(pid: u32) -> Outcome<u32> {
    status_kib(pid, "VmRSS:")
}

/// Most resident memory since [`reset_peak`].
pub(crate) fn peak_kib(pid: u32) -> Outcome<u32> {
    status_kib(pid, "VmHWM:")
}

/// Forgets the peak so far (proc(5), `clear_refs`).
pub(crate) fn reset_peak(pid: u32) -> Outcome<()> {
    Ok(std::fs::write(format!("/proc/{pid}/clear_refs"), "5")?)
}

/// Processor time of all threads that live, in ns: the scheduler's own count, finer than the ticks
/// of `stat`.
pub(crate) fn cpu(pid: u32) -> Outcome<Duration> {
    let mut ns = 0;
    for task in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        let text = std::fs::read_to_string(task?.path().join("schedstat"))?;
        let spent = text.split(' ').next().ok_or("no schedstat")?;
        ns += spent.parse::<u64>()?;
    }
    Ok(Duration::from_nanos(ns))
}

/// Processor, cores and load.
pub(crate) fn machine() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info
        .lines()
        .find_map(|line| line.strip_prefix("model name"));
    let model = model.map_or("unknown processor", |m| {
        m.trim_start_matches([' ', '\t', ':'])
    });
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    format!(
        "{model}, {cores} cores, load {}",
        load.split(' ').next().unwrap_or("?")
    )
}
