//! Judging replies through an OpenAI-compatible endpoint, outside the container.
//!
//! Every item is judged twice, with the sides swapped, by a judge that is not told which side is
//! whose. Each verdict is keyed by everything that determines it, so none is ever paid for twice.
//! A judge that cannot answer is a fault of ours and never a loss for the miner.

mod answer;
mod client;
pub mod prompt;
mod sanitise;

pub use answer::{Preference, Verdict};
pub use client::{JudgeError, JudgeSettings};
pub use prompt::{ContentKey, JudgeItem, Order, PROMPT_VERSION, Turn};
pub use sanitise::{REPLY_CHARS_MAX, sanitise};

use crate::fault::{Fault, Party};
use crate::shutdown::Shutdown;
use client::Client;
use futures::{Stream, StreamExt};
use prompt::Prompt;
use std::collections::{HashMap, HashSet};
use std::future::ready;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::mpsc;

/// Verdicts by what they depend on.
pub type Verdicts = HashMap<ContentKey, Verdict>;

/// Both verdicts on one item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JudgedItem {
    /// The item.
    pub id: String,
    /// The miner's reply was shown first.
    pub reply_first: Verdict,
    /// The reference was shown first.
    pub reference_first: Verdict,
}

/// A judge with its bounds. Share one, so that its bound on calls in flight holds for all.
#[derive(Debug)]
pub struct Judge {
    client: Client,
    node_secret: [u8; 32],
}

impl Judge {
    /// `node_secret` makes the fences in prompts unguessable for miners; it has to stay the same
    /// over restarts only for byte-equal prompts, not for the cache.
    ///
    /// # Errors
    /// [`JudgeError::Settings`] when the settings cannot work, such as a key over plain HTTP.
    pub fn new(settings: JudgeSettings, node_secret: [u8; 32]) -> Result<Self, JudgeError> {
        Ok(Self {
            client: Client::new(settings)?,
            node_secret,
        })
    }

    /// The keys of both verdicts of every item, so that the caller can look up known ones.
    #[must_use]
    pub fn keys(&self, items: &[JudgeItem]) -> Vec<ContentKey> {
        let model = self.client.model();
        let both = |item| Order::BOTH.map(|order| prompt::content_key(item, model, order));
        items.iter().flat_map(both).collect()
    }

    /// Judges every item in both orders. What `known` holds is not asked; every fresh verdict goes
    /// through `fresh` as it comes, so that a crash or a later failure loses none. All or nothing:
    /// items come back in order and complete, or not at all. After a failure no new call is begun,
    /// and those in flight are finished.
    ///
    /// # Errors
    /// A fault of the judge after its bounded retries, or of the node when `stop` is triggered or
    /// nobody takes the fresh verdicts.
    pub async fn judge_all(
        &self,
        items: &[JudgeItem],
        known: &Verdicts,
        fresh: &mpsc::Sender<(ContentKey, Verdict)>,
        stop: &Shutdown,
    ) -> Result<Vec<JudgedItem>, Fault> {
        let failed = AtomicBool::new(false);
        let answers = std::pin::pin!(self.ask_missing(items, known, &failed));
        let asked = tokio::select! {
            biased;
            () = stop.signalled() => return Err(interrupted()),
            asked = collect(answers, fresh, &failed) => asked?,
        };
        let model = self.client.model();
        let verdict = |item: &JudgeItem, order| {
            let key = prompt::content_key(item, model, order);
            let found = known.get(&key).or_else(|| asked.get(&key));
            found.cloned().ok_or_else(|| {
                Fault::permanent(
                    Party::Node,
                    "JUDGE_LOST",
                    "a verdict was asked for and lost",
                )
            })
        };
        let judged = |item: &JudgeItem| {
            Ok(JudgedItem {
                id: item.id.clone(),
                reply_first: verdict(item, Order::ReplyFirst)?,
                reference_first: verdict(item, Order::ReferenceFirst)?,
            })
        };
        items.iter().map(judged).collect()
    }

    /// Answers to all that is not known, as they come; each distinct prompt is asked once.
    fn ask_missing<'a>(
        &'a self,
        items: &'a [JudgeItem],
        known: &'a Verdicts,
        failed: &'a AtomicBool,
    ) -> impl Stream<Item = Result<(ContentKey, Verdict), JudgeError>> + 'a {
        let mut seen = HashSet::new();
        let model = self.client.model();
        let missing = items
            .iter()
            .flat_map(|item| Order::BOTH.map(|order| (item, order)))
            .map(move |(item, order)| (item, order, prompt::content_key(item, model, order)))
            .filter(move |(_, _, key)| !known.contains_key(key) && seen.insert(*key));
        futures::stream::iter(missing)
            .take_while(|_| ready(!failed.load(Ordering::Relaxed)))
            .map(move |(item, order, key)| async move {
                let prompt = Prompt::new(item, order, &key.fence(&self.node_secret));
                let verdict = self.client.ask(&prompt, order).await?;
                Ok((key, verdict))
            })
            .buffer_unordered(self.client.in_flight())
    }
}

/// Passes each verdict on; remembers the first failure and drains the rest.
async fn collect(
    mut answers: std::pin::Pin<&mut impl Stream<Item = Result<(ContentKey, Verdict), JudgeError>>>,
    fresh: &mpsc::Sender<(ContentKey, Verdict)>,
    failed: &AtomicBool,
) -> Result<Verdicts, Fault> {
    let mut asked = Verdicts::new();
    let mut failure = None;
    while let Some(answer) = answers.next().await {
        match answer {
            Ok((key, verdict)) => {
                let sent = fresh.send((key, verdict.clone())).await;
                sent.map_err(|_| nobody_takes_verdicts())?;
                asked.insert(key, verdict);
            }
            Err(error) => {
                failed.store(true, Ordering::Relaxed);
                failure.get_or_insert(error);
            }
        }
    }
    match failure {
        Some(error) => Err(error.into()),
        None => Ok(asked),
    }
}

fn interrupted() -> Fault {
    let text = "judging was interrupted; the verdicts so far are kept";
    Fault::retryable(Party::Node, "INTERRUPTED", text)
}

fn nobody_takes_verdicts() -> Fault {
    let text = "judging stopped, because its verdicts are no longer stored";
    Fault::retryable(Party::Node, "VERDICTS_NOT_STORED", text)
}
