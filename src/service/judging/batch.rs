//! One model's batch from its replies to its item values: looks, hidden controls, transplants and the
//! second judge. Every rule is `incentive`'s; this asks and calls.

use super::hidden::Draw;
use super::session::{Session, Trouble};
use crate::fault::{Fault, Party};
use crate::incentive::early_stop::{hopeless, next_look};
use crate::incentive::era::ScoringRules;
use crate::incentive::gates::check_judged;
use crate::incentive::judge_checks::{
    Agreement, Controls, agreement, check_transplant, count_judged, transplant,
};
use crate::incentive::score::{ItemScore, Lengths};
use crate::incentive::{ItemVerdict, Preference, Rejection, Verdict};
use crate::scoring::judge::{self, Judge, JudgeItem, JudgedItem, prompt_sha256};
use serde::Serialize;
use std::collections::{BTreeMap, HashMap};

/// What a batch is judged by and against.
#[derive(Debug, Clone, Copy)]
pub(super) struct Batch<'a> {
    /// The judge that the era names.
    pub(super) session: Session<'a>,
    /// The one that reads a sample as well, where the era names one.
    pub(super) second: Option<&'a Judge>,
    pub(super) rules: &'a ScoringRules,
    pub(super) draw: Draw<'a>,
    /// The champion's item values of the same round; none while it has not got any.
    pub(super) rival: Option<&'a HashMap<String, f64>>,
}

/// What came of a batch.
#[derive(Debug)]
pub(super) enum Judged {
    /// Scores by item id, and how they came about.
    Scores(Vec<(String, ItemScore)>, Report),
    /// A verdict about the miner.
    Rejected(Rejection),
}

/// How a batch was judged; public with its score.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    /// SHA-256 of all that was ours in the questions.
    prompt_sha256: String,
    /// Who answered how often, as its provider says: model and fingerprint.
    answered_by: BTreeMap<String, usize>,
    controls: Controls,
    planned_items: usize,
    judged_items: usize,
    /// The rest was not judged: no better champion was in sight.
    stopped_early: bool,
    transplants: usize,
    transplants_won: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    second: Option<Second>,
}

/// What a second judge said.
#[derive(Debug, Serialize)]
struct Second {
    judge: String,
    items: usize,
    agreement: Agreement,
}

/// The judge's word on the alarm of a drift, for the ledger.
fn drift(second: &Second, first: &str) -> Fault {
    let found = second.agreement;
    let what = format!(
        "judges {first} and {} differ by {:.3} with kappa {:.2} over {} items; the score is the mean of \
         both; see docs/judge.md",
        second.judge, found.difference, found.kappa, second.items
    );
    Fault::permanent(Party::Judge, "JUDGE_DRIFT", what)
}

impl Batch<'_> {
    /// Judges `items`, given in the round's order.
    ///
    /// # Errors
    /// [`Trouble`]: nothing was concluded. After failed controls the batch's verdicts are forgotten.
    pub(super) async fn run(
        &self,
        items: &[JudgeItem],
    ) -> Result<(Judged, Option<Fault>), Trouble> {
        let (judged, controls) = self.looks(items).await?;
        let planned_items = items.len();
        let items = &items[..judged.len()];
        let verdicts: Vec<_> = judged.iter().map(item_verdict).collect();
        if let Err(rejection) = check_judged(&count_judged(&verdicts), &self.rules.gates) {
            return Ok((Judged::Rejected(rejection), None));
        }
        let moved = self.transplants(items).await?;
        if let Err(rejection) = check_transplant(&moved, &self.rules.judge_checks) {
            return Ok((Judged::Rejected(rejection), None));
        }
        let mut values: Vec<_> = verdicts.iter().map(ItemVerdict::value).collect();
        let second = self.ask_second(items, &verdicts, &mut values).await?;
        let alarm = second.as_ref().filter(|s| s.agreement.drifted);
        let alarm = alarm.map(|second| drift(second, self.session.judge.model()));
        tracing::debug!(transplants = ?transplant(&moved, &self.rules.judge_checks), "transplants judged");
        let report = Report {
            prompt_sha256: prompt_sha256(),
            answered_by: answered_by(&judged),
            controls,
            planned_items,
            judged_items: judged.len(),
            stopped_early: judged.len() < planned_items,
            transplants: moved.len(),
            transplants_won: moved.iter().filter(|v| **v > 0.5).count(),
            second,
        };
        let score = |(item, value): (&JudgeItem, f64)| {
            let score = ItemScore {
                lengths: Some(Lengths::of(&item.reply, &item.reference)),
                ..value.into()
            };
            (item.id.clone(), score)
        };
        let scores = items.iter().zip(values).map(score).collect();
        Ok((Judged::Scores(scores, report), alarm))
    }

    /// Judges until the last look, or until one sees no hope. The controls hide among the first
    /// look's items.
    async fn looks(&self, items: &[JudgeItem]) -> Result<(Vec<JudgedItem>, Controls), Trouble> {
        let rule = &self.rules.early_stop;
        let mut hidden = self
            .draw
            .controls(items, self.rules.judge_checks.control_items);
        let mut controls = Controls::default();
        let mut judged: Vec<JudgedItem> = Vec::with_capacity(items.len());
        while judged.len() < items.len() {
            let to = match self.rival {
                Some(_) => next_look(judged.len(), items.len(), rule),
                None => items.len(),
            };
            let asked = &items[judged.len()..to];
            let first = judged.is_empty();
            let (mine, found) = self.ask(asked, std::mem::take(&mut hidden)).await?;
            judged.extend(mine);
            if first {
                found.iter().for_each(|pair| controls.count(pair));
                self.check_controls(controls).await?;
            }
            if self.hopeless(&judged, items.len()) {
                break;
            }
        }
        Ok((judged, controls))
    }

    /// Judges items with hidden ones in between; gives the items' in order, and the hidden ones'.
    async fn ask(
        &self,
        items: &[JudgeItem],
        hidden: Vec<JudgeItem>,
    ) -> Result<(Vec<JudgedItem>, Vec<ItemVerdict>), Trouble> {
        let all = items.iter().chain(&hidden);
        let mixed: Vec<_> = self
            .draw
            .shuffled("mix", all)
            .into_iter()
            .cloned()
            .collect();
        let judged = self.session.judge(&mixed).await?;
        let mut by_id: HashMap<_, _> = judged.into_iter().map(|j| (j.id.clone(), j)).collect();
        let hidden = hidden.iter().filter_map(|item| by_id.get(&item.id));
        let hidden = hidden.map(item_verdict).collect();
        let mine = items
            .iter()
            .filter_map(|item| by_id.remove(&item.id))
            .collect();
        Ok((mine, hidden))
    }

    async fn check_controls(&self, controls: Controls) -> Result<(), Trouble> {
        let Err(failed) = controls.check(&self.rules.judge_checks) else {
            return Ok(());
        };
        let forgotten = self.session.forget().await?;
        let model = self.session.judge.model();
        let what = format!(
            "{model}: {failed}; {forgotten} verdicts of this batch were dropped and it is judged again \
             later"
        );
        Err(Fault::retryable(Party::Judge, "JUDGE_CONTROLS", what).into())
    }

    fn hopeless(&self, judged: &[JudgedItem], planned: usize) -> bool {
        let Some(rival) = self.rival else {
            return false;
        };
        let difference =
            |item: &JudgedItem| Some(item_verdict(item).value() - rival.get(&item.id)?);
        let differences: Vec<_> = judged.iter().filter_map(difference).collect();
        // Without the champion's value of every item the two are not compared alike.
        differences.len() == judged.len() && hopeless(&differences, planned, &self.rules.early_stop)
    }

    /// Values of replies under conversations that they do not belong to.
    async fn transplants(&self, items: &[JudgeItem]) -> Result<Vec<f64>, Trouble> {
        let wanted = self.rules.judge_checks.transplant_items;
        let judged = self
            .session
            .judge(&self.draw.transplants(items, wanted))
            .await?;
        Ok(judged
            .iter()
            .map(|item| item_verdict(item).value())
            .collect())
    }

    /// Lets the second judge read a sample; where the two disagree, all items, and the values become
    /// the mean of both.
    async fn ask_second(
        &self,
        items: &[JudgeItem],
        verdicts: &[ItemVerdict],
        values: &mut [f64],
    ) -> Result<Option<Second>, Trouble> {
        let Some(judge) = self.second else {
            return Ok(None);
        };
        let session = Session {
            judge,
            ..self.session
        };
        let wanted = self
            .rules
            .judge_checks
            .second_items
            .try_into()
            .unwrap_or(usize::MAX);
        let sample = self.draw.shuffled("second", items).into_iter().take(wanted);
        let sample: Vec<_> = sample.cloned().collect();
        let place: HashMap<_, _> = items
            .iter()
            .zip(0..)
            .map(|(item, at)| (&item.id, at))
            .collect();
        let judged = session.judge(&sample).await?;
        let pair = |item: &JudgedItem| {
            let at: &usize = place.get(&item.id)?;
            Some((verdicts[*at], item_verdict(item)))
        };
        let pairs: Vec<_> = judged.iter().filter_map(pair).collect();
        let agreement = agreement(&pairs, &self.rules.judge_checks);
        if agreement.drifted {
            let all = session.judge(items).await?;
            for (value, item) in values.iter_mut().zip(&all) {
                *value = f64::midpoint(*value, item_verdict(item).value());
            }
        }
        Ok(Some(Second {
            judge: judge.model().to_owned(),
            items: pairs.len(),
            agreement,
        }))
    }
}

fn answered_by(judged: &[JudgedItem]) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for verdict in judged
        .iter()
        .flat_map(|j| [&j.reply_first, &j.reference_first])
    {
        let name = format!("{} {}", verdict.judge_model, verdict.system_fingerprint);
        *counts.entry(name.trim_end().to_owned()).or_default() += 1;
    }
    counts
}

/// A judge's answers as the rules read them.
pub(super) fn item_verdict(judged: &JudgedItem) -> ItemVerdict {
    ItemVerdict {
        miner_first: rule_verdict(&judged.reply_first),
        reference_first: rule_verdict(&judged.reference_first),
    }
}

fn rule_verdict(verdict: &judge::Verdict) -> Verdict {
    let side = |preference: judge::Preference| match preference {
        judge::Preference::Reply => Preference::Win,
        judge::Preference::Tie => Preference::Tie,
        judge::Preference::Reference => Preference::Loss,
    };
    Verdict {
        realism: side(verdict.realism),
        entertainment: side(verdict.entertainment),
        coherency: side(verdict.coherency),
        addresses_judge: verdict.reply_addresses_judge,
    }
}
