//! A short run of the tries of the incentive simulation (`examples/incentive_sim`), held against their
//! targets.

#[allow(dead_code, reason = "whole seasons take too long here")]
#[path = "../../examples/incentive_sim/judge.rs"]
mod judge;
#[allow(dead_code, reason = "whole seasons take too long here")]
#[path = "../../examples/incentive_sim/node.rs"]
mod node;
#[allow(dead_code, reason = "the report's names are not used here")]
#[path = "../../examples/incentive_sim/population.rs"]
mod population;
#[allow(dead_code, reason = "whole seasons take too long here")]
#[path = "../../examples/incentive_sim/season.rs"]
mod season;
#[allow(dead_code, reason = "the report's figures are not all used here")]
#[path = "../../examples/incentive_sim/tries.rs"]
mod tries;

use serde_json::json;
use tries::Setup;

const SEED: u64 = 7;

#[test]
fn luck_rarely_takes_the_title_and_six_points_do() {
    let era = node::era(&json!({"rule": "champion"}));
    let equal = Setup {
        lift: 0.0,
        age: 10,
        rivals: 0,
    };
    let luck = tries::title(&era, SEED, equal, 24);
    assert!(luck.by_look.value <= 0.015, "{luck:?}");
    let better = Setup {
        lift: 0.06,
        age: 0,
        rivals: 2,
    };
    let found = tries::title(&era, SEED, better, 20);
    assert!(found.by_challenger.value >= 0.8, "{found:?}");
    let origin = tries::origin(SEED, 0.0, 100);
    assert!(
        origin.low > 0.15,
        "the origin's rule is beaten by luck: {origin:?}"
    );
}
