//! January 2025 again: `cargo bench --bench dataset_january`.
//!
//! Two client groups whose traffic grows exponentially, the Dataset API killed and started again in
//! the middle of it, score API and validator on the same machine. Then nothing but the public lane
//! was to be had; what is printed here is how little of it the others notice.

#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

#[path = "dataset/load.rs"]
mod load;
#[path = "dataset/neighbours.rs"]
mod neighbours;
#[path = "dataset/process.rs"]
mod process;
#[path = "dataset/server.rs"]
mod server;
#[path = "dataset/storm.rs"]
mod storm;

use std::time::{Duration, Instant};

use load::{Times, fetch};
use neighbours::Neighbours;
use server::Server;
use storm::Storm;

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

const CALM: Duration = Duration::from_secs(8);
const STORM: Duration = Duration::from_secs(20);
/// Each group's connections per second at the end: together 100 x capacity.
const PEAK: u32 = 2_500;
/// From 10 a second to [`PEAK`].
const DOUBLINGS: u32 = 8;
/// How long a client asks again before its round counts as lost.
const PATIENCE: Duration = Duration::from_secs(5);
const RESTARTS: [Duration; 3] = [
    Duration::from_secs(8),
    Duration::from_secs(13),
    Duration::from_secs(17),
];

fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().collect();
    if let Some(storm) = Storm::from_arguments(&arguments)? {
        return storm.rage();
    }
    println!("machine: {}", process::machine());
    println!("command: cargo bench --bench dataset_january");
    let mut server = Server::start(2048)?;
    let tokens = ["sn11", "sn58"].map(|group| server.token("miner", group));
    let [sn11, sn58] = tokens;
    let neighbours = Neighbours::start(server.protected)?;
    let calm = measure(&neighbours, &mut server, CALM, &[])?;
    calm.print("before", None);
    let storms = [(4, sn11?), (5, sn58?)].map(|(home, token)| {
        let head = format!("authorization: Bearer {token}\r\n");
        let steady = Storm::new(server.public, PEAK, 40, STORM, &head);
        let growing = Storm {
            doublings: DOUBLINGS,
            home,
            ..steady
        };
        growing.start()
    });
    let length = STORM.saturating_sub(Duration::from_millis(500));
    let stormy = measure(&neighbours, &mut server, length, &RESTARTS)?;
    for storm in storms {
        let offered = Storm::end(storm?)?;
        println!("a group offered {offered:.0} connections per s on average, {PEAK} at the end");
    }
    stormy.print("in the storm", Some(&calm));
    let begun = Instant::now();
    fetch(server.protected, "/dataset", "zstd")?;
    let ms = begun.elapsed().as_secs_f64() * 1e3;
    println!("first full answer after the storm: {ms:.1} ms");
    Ok(())
}

/// What was seen at the same time of the three that must not be affected.
struct Seen {
    scores: Times,
    samples: Times,
    blocks: Times,
    back_ms: Vec<f64>,
}

impl Seen {
    fn print(&self, when: &str, base: Option<&Self>) {
        let scores = self.scores.line("score API", base.map(|b| &b.scores));
        let samples = self
            .samples
            .line("protected lane", base.map(|b| &b.samples));
        let blocks = self.blocks.line(
            "validator, from one block's snapshot to the next",
            base.map(|b| &b.blocks),
        );
        let lost = self.samples.asked - self.samples.served.len() - self.samples.again.len();
        println!("{when}:\n  {scores}\n  {blocks}\n  {samples}; {lost} lost");
        for ms in &self.back_ms {
            println!("  kill -9: protected lane served {ms:.0} ms after the start");
        }
    }
}

fn measure(
    neighbours: &Neighbours,
    server: &mut Server,
    length: Duration,
    restarts: &[Duration],
) -> Outcome<Seen> {
    let (lane, page) = (server.protected, neighbours.score_api);
    let scores = std::thread::spawn(move || {
        Times::of(length, 20, || fetch(page, "/v1/leaderboard", "identity"))
    });
    // As the node's client does: what a kill -9 cut off is asked for again, a round has minutes.
    let samples = std::thread::spawn(move || {
        Times::patient(length, 5, PATIENCE, || fetch(lane, "/dataset", "zstd"))
    });
    let begun = Instant::now();
    neighbours.forget();
    let mut back_ms = Vec::new();
    for at in restarts {
        std::thread::sleep(at.saturating_sub(begun.elapsed()));
        server.kill_and_start()?;
        let started = server.started;
        while fetch(lane, "/dataset", "zstd").is_err() {
            if started.elapsed() > Duration::from_secs(20) {
                return Err("the protected lane did not come back".into());
            }
        }
        back_ms.push(started.elapsed().as_secs_f64() * 1e3);
    }
    let failed = |_| "a client failed";
    Ok(Seen {
        scores: scores.join().map_err(failed)?,
        samples: samples.join().map_err(failed)?,
        blocks: neighbours.blocks(),
        back_ms,
    })
}
