//! Simulates a subnet under the incentive rules of this crate, and under the origin's:
//! `cargo run --release --example incentive_sim [-- SEED]`. The same seed prints the same numbers.

#![expect(clippy::print_stdout, reason = "a program that reports")]

mod judge;
mod node;
mod population;
mod season;
mod tries;

use assay::incentive::Era;
use population::Kind;
use season::{Season, play, play_origin};
use serde_json::json;
use tries::{Rate, Setup, Tries};

const ROUNDS: u64 = 200;
/// Seasons that the shares are the mean of: one of them has a false title or two, or none.
const SEASONS: u64 = 5;
const TRIES: u64 = 1_000;
const RUNS: u64 = 200;

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
    false_titles(&champion, &win_rate, seed);
    improvements(&champion, &win_rate, seed);
    seasons(&champion, &win_rate, seed);
}

fn percent(rate: &Rate) -> String {
    let [value, low, high] = [rate.value, rate.low, rate.high].map(|r| r * 100.0);
    format!("{value:5.2} % ({low:.2} to {high:.2}, n {})", rate.of)
}

fn print_tries(name: &str, tries: &Tries) {
    let (look, challenger) = (percent(&tries.by_look), percent(&tries.by_challenger));
    println!("  {name:44} {look}  |  {challenger}");
}

fn false_titles(champion: &Era, win_rate: &Era, seed: u64) {
    println!(
        "\nan equal model takes the title: per try (one ranking)  |  per submission (3 rounds)"
    );
    for (name, age, rivals) in [
        ("champion, young, alone", 0, 0),
        ("champion, old, alone", 10, 0),
        ("champion, old, 8 rivals", 10, 8),
    ] {
        let setup = Setup {
            lift: 0.0,
            age,
            rivals,
        };
        print_tries(name, &tries::title(champion, seed, setup, TRIES));
    }
    let setup = Setup {
        lift: 0.0,
        age: 10,
        rivals: 0,
    };
    print_tries(
        "win-rate on paired items",
        &tries::title(win_rate, seed, setup, TRIES),
    );
    println!(
        "  {:44} {}",
        "origin (own sample, one score)",
        percent(&tries::origin(seed, 0.0, TRIES))
    );
}

fn improvements(champion: &Era, win_rate: &Era, seed: u64) {
    println!("\na model better by 6 points takes the title: per try  |  within 3 rounds");
    for (name, age, rivals) in [
        ("champion, young, alone", 0, 0),
        ("champion, young, 8 rivals", 0, 8),
        ("champion, old, 8 rivals", 10, 8),
    ] {
        let setup = Setup {
            lift: 0.06,
            age,
            rivals,
        };
        print_tries(name, &tries::title(champion, seed, setup, RUNS));
    }
    let setup = Setup {
        lift: 0.06,
        age: 10,
        rivals: 8,
    };
    print_tries(
        "win-rate on paired items",
        &tries::title(win_rate, seed, setup, RUNS),
    );
    println!(
        "  {:44} {}",
        "origin (own sample, one score)",
        percent(&tries::origin(seed, 0.06, RUNS))
    );
}

fn seasons(champion: &Era, win_rate: &Era, seed: u64) {
    println!("\n{SEASONS} seasons of {ROUNDS} rounds: share of emission in %");
    let paid = node::era(&json!({"rule": "champion", "shares": [0.7, 0.2, 0.1]}));
    let of = |era: &Era| Season::several(SEASONS, seed, |seed| play(era, seed, ROUNDS));
    let all = [
        ("champion", of(champion)),
        ("champion 70/20/10", of(&paid)),
        ("win-rate", of(win_rate)),
        (
            "origin",
            Season::several(SEASONS, seed, |seed| play_origin(seed, ROUNDS)),
        ),
    ];
    let print = |name: &str, value: &dyn Fn(&Season) -> String| {
        print!("  {name:26}");
        for (_, season) in &all {
            print!("{:>20}", value(season));
        }
        println!();
    };
    print!("  {:26}", "");
    all.iter().for_each(|(name, _)| print!("{name:>20}"));
    println!();
    for kind in Kind::ALL {
        print(kind.name(), &|s| {
            format!("{:.2}", s.share(|k| k == kind).abs() * 100.0)
        });
    }
    print("copiers together", &|s| {
        format!("{:.2}", s.share(Kind::copies) * 100.0)
    });
    print("copies that led / tried", &|s| {
        format!("{} / {}", s.false_titles, s.tries)
    });
    print("honest models refused", &|s| s.accused.to_string());
    print("best last leader's quality", &|s| {
        format!("{:.3}", s.quality)
    });
    print("judge calls, % of fixed", &cost);
}

fn cost(season: &Season) -> String {
    if season.fixed_calls == 0 {
        return "-".to_owned();
    }
    let ratio = season.cost();
    format!("{:.1}", ratio * 100.0)
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
