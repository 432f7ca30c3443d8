//! Simulates a subnet under the incentive rules of this crate, and under the origin's:
//! `cargo run --release --example incentive_sim [-- SEED]`. The same seed prints the same numbers.

#![expect(clippy::print_stdout, reason = "a program that reports")]

mod judge;
mod node;
mod population;
mod season;
mod tries;

use assay::incentive::Era;
use assay::incentive::statistics::mean_and_error;
use judge::hash;
use population::Kind;
use season::{Season, play, play_origin};
use serde_json::json;
use tries::{Rate, Setup};

const ROUNDS: u64 = 200;
/// Seasons that the shares are the mean of: most of them have no false title at all.
const SEASONS: u64 = 10;
/// Tries with an equal model, and with a better one.
const TRIES: u64 = 1_000;
const RUNS: u64 = 400;

fn main() {
    let seed = std::env::args()
        .nth(1)
        .map_or(1, |text| text.parse().expect("a seed: a number"));
    println!("machine: {}; seed {seed}", machine());
    let (paired, unpaired) = tries::standard_errors(seed);
    println!(
        "standard error of a difference over 512 items: {paired:.4} paired, {unpaired:.4} not"
    );
    let champion = node::era(&json!({"rule": "champion"}));
    let win_rate = node::era(&json!({"rule": "win-rate"}));
    let eras = [&champion, &win_rate];
    println!("\nof all tries: per ranking  |  of all challengers: within 3 rounds");
    challengers(eras, seed, ("an equal model", 0.0, TRIES));
    challengers(eras, seed, ("a model better by 6 points", 0.06, RUNS));
    seasons(eras, seed);
}

fn percent(rate: &Rate) -> String {
    let [value, low, high] = [rate.value, rate.low, rate.high].map(|r| r * 100.0);
    format!("{value:5.2} % ({low:.2} to {high:.2}, n {})", rate.of)
}

fn challengers([champion, win_rate]: [&Era; 2], seed: u64, (what, lift, n): (&str, f64, u64)) {
    println!("{what} takes the title");
    for (name, era, age, rivals) in [
        ("champion, young, alone", champion, 0, 0),
        ("champion, young, 8 rivals", champion, 0, 8),
        ("champion, old, alone", champion, 10, 0),
        ("champion, old, 8 rivals", champion, 10, 8),
        ("win-rate on paired items", win_rate, 10, 0),
    ] {
        let tries = tries::title(era, seed, Setup { lift, age, rivals }, n);
        let (look, challenger) = (percent(&tries.by_look), percent(&tries.by_challenger));
        println!("  {name:32} {look:34}  |  {challenger}");
    }
    let origin = percent(&tries::origin(seed, lift, n));
    println!("  {:32} {origin}", "origin (own sample, one score)");
}

fn seasons([champion, win_rate]: [&Era; 2], seed: u64) {
    println!(
        "\n{SEASONS} seasons of {ROUNDS} rounds: mean and its standard error; shares of emission in %"
    );
    let paid = node::era(&json!({"rule": "champion", "shares": [0.7, 0.2, 0.1]}));
    let all = [
        (
            "champion",
            several(seed, |seed| play(champion, seed, ROUNDS)),
        ),
        (
            "champion 70/20/10",
            several(seed, |seed| play(&paid, seed, ROUNDS)),
        ),
        (
            "win-rate",
            several(seed, |seed| play(win_rate, seed, ROUNDS)),
        ),
        ("origin", several(seed, |seed| play_origin(seed, ROUNDS))),
    ];
    print!("  {:26}", "");
    all.iter().for_each(|(name, _)| print!("{name:>20}"));
    println!();
    let print = |name: &str, value: &dyn Fn(&Season) -> f64| {
        print!("  {name:26}");
        for (_, seasons) in &all {
            let values: Vec<f64> = seasons.iter().map(value).collect();
            let (mean, error) = mean_and_error(&values);
            print!("{:>20}", format!("{mean:.2} ± {error:.2}"));
        }
        println!();
    };
    for kind in Kind::ALL {
        print(kind.name(), &|s| s.share(|k| k == kind) * 100.0);
    }
    print("copiers together", &|s| s.share(Kind::copies) * 100.0);
    print("copiers' submissions", &|s| s.tries as f64);
    print("of these, that led", &|s| s.false_titles as f64);
    print("honest models refused", &|s| s.accused as f64);
    print("last leader's quality, %", &|s| s.quality * 100.0);
    print("judge calls, % of fixed", &|s| s.cost() * 100.0);
}

fn several(seed: u64, play: impl Fn(u64) -> Season) -> Vec<Season> {
    (0..SEASONS).map(|i| play(hash(&[seed, i, 8]))).collect()
}

fn machine() -> String {
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name"));
    let name = model.map_or("unknown CPU", |text| {
        text.trim_start_matches([' ', '\t', ':'])
    });
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    format!("{name}, {cores} cores")
}
