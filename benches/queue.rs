//! Lease and finish through the store, beside a bare SQLite loop that writes the same rows to the
//! same disk in the same run.
//!
//! `cargo bench --bench queue [-- JOBS]`

#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

use assay::bittensor::{BlockNumber, Hotkey};
use assay::store::{
    Admission, Advance, Ask, ModelFacts, NewSubmission, Outcome, RetryPolicy, Stage, Store,
    WorkerId,
};
use futures::future::try_join_all;
use rusqlite::{Connection, params};
use std::path::Path;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

const LEASERS: usize = 64;

struct Figures {
    name: String,
    jobs: usize,
    wall: Duration,
    /// Microseconds from asking for a job until its result is recorded, per job.
    latencies: Vec<u128>,
}

impl Figures {
    fn rate(&self) -> f64 {
        f64::from(u32::try_from(self.jobs).unwrap_or(u32::MAX)) / self.wall.as_secs_f64()
    }

    fn percentile(&self, percent: usize) -> u128 {
        let last = self.latencies.len() - 1;
        self.latencies[(self.latencies.len() * percent / 100).min(last)]
    }

    fn print(&mut self, base: f64) {
        self.latencies.sort_unstable();
        let (rate, p50, p99) = (self.rate(), self.percentile(50), self.percentile(99));
        println!(
            "{:<40} {:>6} jobs {rate:>7.0} jobs/s {:>6.2}x  lease+finish p50 {p50:>6} µs p99 {p99:>6} µs",
            self.name,
            self.jobs,
            rate / base,
        );
    }
}

fn submission(number: usize) -> NewSubmission {
    let mut hotkey = [0; 32];
    hotkey[..8].copy_from_slice(&number.to_be_bytes());
    NewSubmission {
        hotkey: Hotkey(hotkey),
        commit_block: BlockNumber(u64::try_from(number).unwrap_or(0) / 3),
        registered_at: Some(BlockNumber(1)),
        raw: b"2:name/model:0123456789012345678901234567890123456789:chatml:c1".to_vec(),
        model: Some(ModelFacts {
            repo: "name/model".to_owned(),
            revision: None,
            template: "chatml".to_owned(),
            competition: "c1".to_owned(),
            weights_key: None,
        }),
        admission: Admission::Queued,
    }
}

async fn filled(path: &Path, jobs: usize) -> anyhow::Result<Store> {
    let store = Store::open(path, RetryPolicy::default())?;
    let all: Vec<usize> = (0..jobs).collect();
    for chunk in all.chunks(500) {
        try_join_all(chunk.iter().map(|i| store.record(submission(*i), 0))).await?;
    }
    Ok(store)
}

async fn drain(store: Store, worker: String) -> anyhow::Result<Vec<u128>> {
    let mut latencies = Vec::new();
    loop {
        let ask = Ask {
            stage: Stage::Fetch,
            worker: WorkerId(worker.clone()),
            committed_before: None,
            model_bytes_max: None,
            now_ms: 1,
            ttl: Duration::from_secs(600),
        };
        let begun = Instant::now();
        let Some(lease) = store.lease(ask).await? else {
            return Ok(latencies);
        };
        let outcome = Outcome::Advance(Advance::default());
        store.finish_stage(&lease, outcome, 2).await?;
        latencies.push(begun.elapsed().as_micros());
    }
}

fn through_store(dir: &Path, jobs: usize, leasers: usize) -> anyhow::Result<Figures> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let store = filled(&dir.join(format!("store-{leasers}.db")), jobs).await?;
        let begun = Instant::now();
        let mut tasks = JoinSet::new();
        for i in 0..leasers {
            tasks.spawn(drain(store.clone(), format!("w{i}")));
        }
        let mut latencies = Vec::with_capacity(jobs);
        while let Some(part) = tasks.join_next().await {
            latencies.extend(part??);
        }
        let name = format!("store, {leasers} leasers");
        Ok(Figures {
            name,
            jobs: latencies.len(),
            wall: begun.elapsed(),
            latencies,
        })
    })
}

/// The rows that a lease and a finish write, without guards, decoding or threads: two transactions
/// per job on one connection.
fn bare(dir: &Path, jobs: usize, synchronous: &str) -> anyhow::Result<Figures> {
    let path = dir.join(format!("bare-{synchronous}.db"));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    drop(runtime.block_on(filled(&path, jobs))?);
    let conn = Connection::open(&path)?;
    conn.busy_timeout(Duration::from_secs(5))?;
    conn.pragma_update(None, "synchronous", synchronous)?;
    conn.pragma_update(None, "foreign_keys", true)?;
    conn.set_prepared_statement_cache_capacity(32);
    let mut latencies = Vec::with_capacity(jobs);
    let begun = Instant::now();
    for _ in 0..jobs {
        let job = Instant::now();
        bare_job(&conn)?;
        latencies.push(job.elapsed().as_micros());
    }
    let name = format!("bare SQLite loop, synchronous={synchronous}");
    Ok(Figures {
        name,
        jobs,
        wall: begun.elapsed(),
        latencies,
    })
}

fn bare_job(conn: &Connection) -> rusqlite::Result<()> {
    let run = |sql: &str| conn.prepare_cached(sql)?.execute([]);
    run("BEGIN IMMEDIATE")?;
    let (job, submission): (i64, i64) = conn
        .prepare_cached(
            "UPDATE jobs SET state = 'leased', worker = 'w', token = token + 1, \
             attempts = attempts + 1, available_ms = 600001, updated_ms = 1 \
             WHERE id = (SELECT id FROM jobs WHERE stage = 'fetch' \
             AND state IN ('ready', 'leased') AND available_ms <= 1 \
             ORDER BY retry, commit_block, hotkey, id LIMIT 1) RETURNING id, submission_id",
        )?
        .query_row([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    bare_status(conn, submission, "fetching")?;
    run("COMMIT")?;
    run("BEGIN IMMEDIATE")?;
    conn.prepare_cached(
        "UPDATE jobs SET stage = 'score', state = 'ready', attempts = 0, available_ms = 2, \
         payload = 'null', worker = NULL, token = token + 1, updated_ms = 2 WHERE id = ?1",
    )?
    .execute([job])?;
    bare_status(conn, submission, "ready")?;
    run("COMMIT")?;
    Ok(())
}

fn bare_status(conn: &Connection, submission: i64, status: &str) -> rusqlite::Result<()> {
    conn.prepare_cached("UPDATE submissions SET status = ?2, updated_ms = 1 WHERE id = ?1")?
        .execute(params![submission, status])?;
    conn.prepare_cached(
        "INSERT INTO submission_events (submission_id, at_ms, status, note) \
         VALUES (?1, 1, ?2, 'attempt 1 by w')",
    )?
    .execute(params![submission, status])?;
    Ok(())
}

fn machine() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info
        .lines()
        .find_map(|line| line.strip_prefix("model name"));
    let model = model.map_or("unknown processor", |m| {
        m.trim_start_matches([' ', '\t', ':'])
    });
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').next().unwrap_or("?").to_owned();
    format!(
        "{model}, {cores} cores, load {load}, SQLite {}",
        rusqlite::version()
    )
}

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().collect();
    let jobs = arguments
        .iter()
        .find_map(|a| a.parse().ok())
        .unwrap_or(10_000);
    let dir = tempfile::tempdir()?;
    println!("machine: {}", machine());
    let profile = if cfg!(debug_assertions) {
        " --profile dev"
    } else {
        ""
    };
    println!("command: cargo bench{profile} --bench queue -- {jobs}");
    println!("the base of every ratio is the bare loop with the store's own synchronous=FULL");
    let mut base = bare(dir.path(), jobs, "FULL")?;
    let rate = base.rate();
    base.print(rate);
    bare(dir.path(), jobs, "NORMAL")?.print(rate);
    through_store(dir.path(), jobs, 1)?.print(rate);
    through_store(dir.path(), jobs, LEASERS)?.print(rate);
    Ok(())
}
