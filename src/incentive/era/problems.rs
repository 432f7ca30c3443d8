//! What is wrong with an era, all at once.

use super::{
    ChampionRule, CopyRules, EarlyStop, Era, EvidenceRules, JudgeChecks, RankingRule, WinRateRule,
};

/// One finding about an era's parameters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Key below the era, such as `scoring.items`.
    pub key: &'static str,
    /// What it must be.
    pub reason: String,
}

#[derive(Default)]
struct Findings(Vec<Problem>);

impl Findings {
    fn require(&mut self, ok: bool, key: &'static str, reason: &str) {
        if !ok {
            self.0.push(Problem {
                key,
                reason: reason.to_owned(),
            });
        }
    }

    fn share(&mut self, value: f64, key: &'static str) {
        self.require((0.0..=1.0).contains(&value), key, "must lie in 0 to 1");
    }
}

impl Era {
    /// Every problem of the era's parameters; empty when it is valid.
    #[must_use]
    pub fn validate(&self) -> Vec<Problem> {
        let mut found = Findings::default();
        self.check_scoring(&mut found);
        self.check_admission(&mut found);
        found.share(self.incentive.burn_share, "incentive.burn_share");
        check_evidence(&self.incentive.evidence, &mut found);
        check_copies(&self.copies, &mut found);
        match &self.incentive.ranking {
            RankingRule::Champion(rule) => check_champion(rule, &mut found),
            RankingRule::WinRate(rule) => check_win_rate(rule, &mut found),
        }
        found.0
    }

    fn check_scoring(&self, found: &mut Findings) {
        let rules = &self.scoring;
        found.require(
            is_pinned(&rules.image),
            "scoring.image",
            "must be sha256: and 64 hex digits, or name@sha256:…; a tag can move",
        );
        found.require(
            !rules.judge.is_empty(),
            "scoring.judge",
            "must name a model",
        );
        found.require(
            rules.round_blocks > 0,
            "scoring.round_blocks",
            "must be 1 or more",
        );
        found.require(
            (2..=100_000).contains(&rules.items),
            "scoring.items",
            "must lie in 2 to 100000; one item has no standard error",
        );
        found.require(
            (0.0..=1.0).contains(&rules.fresh_share),
            "scoring.fresh_share",
            "must lie in 0 to 1",
        );
        found.require(
            (1..=8192).contains(&rules.max_tokens),
            "scoring.max_tokens",
            "must lie in 1 to 8192",
        );
        found.require(
            (16..=131_072).contains(&rules.max_prompt_tokens),
            "scoring.max_prompt_tokens",
            "must lie in 16 to 131072",
        );
        found.share(rules.gates.empty_max, "scoring.gates.empty_max");
        found.share(rules.gates.cut_max, "scoring.gates.cut_max");
        found.share(rules.gates.identical_max, "scoring.gates.identical_max");
        found.share(rules.gates.degenerate_max, "scoring.gates.degenerate_max");
        found.share(rules.gates.refusals_max, "scoring.gates.refusals_max");
        found.share(
            rules.gates.addressing_judge_max,
            "scoring.gates.addressing_judge_max",
        );
        found.share(rules.gates.coherency_min, "scoring.gates.coherency_min");
        found.require(
            (0.0..=2.0).contains(&rules.length_effect_max),
            "scoring.length_effect_max",
            "must lie in 0 to 2",
        );
        check_judging(&rules.judge_checks, &rules.early_stop, found);
    }

    fn check_admission(&self, found: &mut Findings) {
        let rules = &self.admission;
        found.require(
            !rules.competitions.is_empty(),
            "admission.competitions",
            "must name at least one competition",
        );
        found.require(
            !rules.architectures.is_empty(),
            "admission.architectures",
            "must name at least one architecture",
        );
        found.require(
            !rules.templates.is_empty(),
            "admission.templates",
            "must name at least one chat template",
        );
        found.require(
            0 < rules.max_model_bytes && rules.min_model_bytes <= rules.max_model_bytes,
            "admission.max_model_bytes",
            "must be above 0 and not below min_model_bytes",
        );
    }
}

fn is_pinned(image: &str) -> bool {
    let digest = image.rsplit_once('@').map_or(image, |(_, digest)| digest);
    let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    digest
        .strip_prefix("sha256:")
        .is_some_and(|h| h.len() == 64 && h.bytes().all(hex))
}

fn check_judging(checks: &JudgeChecks, stop: &EarlyStop, found: &mut Findings) {
    for (value, key) in [
        (
            checks.control_accuracy_min,
            "scoring.judge_checks.control_accuracy_min",
        ),
        (
            checks.transplant_honest,
            "scoring.judge_checks.transplant_honest",
        ),
        (checks.transplant_max, "scoring.judge_checks.transplant_max"),
        (
            checks.second_difference_max,
            "scoring.judge_checks.second_difference_max",
        ),
    ] {
        found.share(value, key);
    }
    found.require(
        (-1.0..=1.0).contains(&checks.second_kappa_min),
        "scoring.judge_checks.second_kappa_min",
        "must lie in -1 to 1",
    );
    found.require(
        (1..=16).contains(&stop.looks),
        "scoring.early_stop.looks",
        "must lie in 1 to 16",
    );
    found.require(
        (0.0..=6.0).contains(&stop.futility_z),
        "scoring.early_stop.futility_z",
        "must lie in 0 to 6",
    );
    found.require(
        (-1.0..=1.0).contains(&stop.futility_lead),
        "scoring.early_stop.futility_lead",
        "must lie in -1 to 1",
    );
}

fn check_evidence(rules: &EvidenceRules, found: &mut Findings) {
    found.require(
        (1..=100).contains(&rules.pool_rounds),
        "incentive.evidence.pool_rounds",
        "must lie in 1 to 100",
    );
    found.require(
        (rules.pool_rounds..=100).contains(&rules.proof_rounds),
        "incentive.evidence.proof_rounds",
        "must not be below pool_rounds and at most 100",
    );
    found.require(
        rules.live_rounds >= rules.proof_rounds && rules.live_rounds <= 10_000,
        "incentive.evidence.live_rounds",
        "must not be below proof_rounds and at most 10000",
    );
    found.require(
        rules.rescored_runners_up <= 64,
        "incentive.evidence.rescored_runners_up",
        "must be at most 64",
    );
}

fn check_copies(rules: &CopyRules, found: &mut Findings) {
    found.require(
        rules.probes <= 1024 && rules.probes_min >= 1,
        "copies.probes",
        "must be at most 1024, and probes_min at least 1",
    );
    found.require(
        0.0 <= rules.same_behaviour && rules.same_behaviour <= rules.near_behaviour,
        "copies.same_behaviour",
        "must be 0 or more and not above near_behaviour",
    );
    found.require(
        rules.near_behaviour.is_finite(),
        "copies.near_behaviour",
        "must be a number",
    );
    found.require(
        (1.0..=10.0).contains(&rules.near_margin),
        "copies.near_margin",
        "must lie in 1 to 10",
    );
    found.require(
        (-1.0..=1.0).contains(&rules.derived_cosine),
        "copies.derived_cosine",
        "must lie in -1 to 1",
    );
}

fn check_champion(rule: &ChampionRule, found: &mut Findings) {
    found.require(
        rule.false_win_probability > 0.0 && rule.false_win_probability <= 0.5,
        "incentive.ranking.false_win_probability",
        "must lie above 0 and at most at 0.5",
    );
    found.require(
        (0.0..=6.0).contains(&rule.z_max),
        "incentive.ranking.z_max",
        "must lie in 0 to 6",
    );
    found.require(
        0.0 <= rule.margin_end && rule.margin_end <= rule.margin_start && rule.margin_start <= 1.0,
        "incentive.ranking.margin_start",
        "must lie in 0 to 1 and not below margin_end, which is 0 or more",
    );
    let sum: f64 = rule.shares.iter().sum();
    found.require(
        rule.shares.iter().all(|s| *s > 0.0) && (sum - 1.0).abs() < 1e-9,
        "incentive.ranking.shares",
        "must be positive and sum to 1",
    );
    found.require(
        rule.shares.windows(2).all(|pair| pair[0] >= pair[1]),
        "incentive.ranking.shares",
        "must not rise from one place to the next",
    );
}

fn check_win_rate(rule: &WinRateRule, found: &mut Findings) {
    found.require(
        rule.newer_factor > 0.0 && rule.newer_factor <= 1.0,
        "incentive.ranking.newer_factor",
        "must lie above 0 and at most at 1",
    );
    found.require(
        (0.001..=100.0).contains(&rule.temperature),
        "incentive.ranking.temperature",
        "must lie in 0.001 to 100",
    );
}
