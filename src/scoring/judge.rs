//! Judging replies through OpenAI-compatible endpoints, outside the container.
//!
//! Every item is judged twice, with the sides swapped, by a judge that is not told which side is
//! whose. Each verdict is keyed by everything that determines it, so none is ever paid for twice.
//! A judge that cannot answer is a fault of ours and never a loss for the miner.

mod answer;
mod client;
mod error;
mod health;
mod limits;
pub mod pool;
pub mod prompt;
mod sanitise;
pub mod spend;

pub use answer::{Preference, Verdict};
pub use client::ProviderSettings;
pub use error::{JudgeError, JudgeFailure};
pub use prompt::{ContentKey, JudgeItem, Order, PROMPT_VERSION, Turn, prompt_sha256};
pub use sanitise::{REPLY_CHARS_MAX, sanitise};

use crate::shutdown::Shutdown;
use client::{ANSWER_TOKENS_MAX, Client};
use futures::{Stream, StreamExt};
use pool::{Patience, Pool};
use prompt::Prompt;
use spend::{Meter, Usage};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;
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

/// One judge (a pinned model) with the providers that offer it. Share one, so that its bounds hold
/// for all.
#[derive(Debug)]
pub struct Judge {
    model: String,
    clients: Vec<Client>,
    pool: Pool,
}

/// One question that is to be asked.
struct Question<'a> {
    item: &'a JudgeItem,
    order: Order,
    key: ContentKey,
}

impl Judge {
    /// The judge that eras call `model`, offered by `providers` in order of preference.
    ///
    /// # Errors
    /// [`JudgeError::Settings`] when the settings cannot work, such as a key over plain HTTP.
    pub fn new(
        model: &str,
        providers: &[ProviderSettings],
        patience: Patience,
        meter: Arc<Meter>,
    ) -> Result<Self, JudgeError> {
        if providers.is_empty() || patience.in_flight == 0 {
            let what = format!("{model} needs a provider and at least one call in flight");
            return Err(JudgeError::Settings(what));
        }
        let clients: Result<_, _> = providers.iter().map(Client::new).collect();
        let bounds = providers.iter().map(|p| p.bounds.clone()).collect();
        Ok(Self {
            model: model.to_owned(),
            clients: clients?,
            pool: Pool::new(bounds, patience, meter),
        })
    }

    /// The judge's model as eras call it.
    #[must_use]
    pub fn model(&self) -> &str {
        &self.model
    }

    /// How long no new batch should be begun, and why.
    #[must_use]
    pub fn closed(&self) -> Option<(Duration, JudgeError)> {
        self.pool.closed()
    }

    /// The keys of both verdicts of every item, so that the caller can look up known ones.
    #[must_use]
    pub fn keys(&self, items: &[JudgeItem]) -> Vec<ContentKey> {
        let both = |item| Order::BOTH.map(|order| prompt::content_key(item, &self.model, order));
        items.iter().flat_map(both).collect()
    }

    /// Judges every item in both orders. What `known` holds is not asked; every fresh verdict goes
    /// through `fresh` as it comes, so that a crash or a later failure loses none. All or nothing:
    /// items come back in order and complete, or not at all. After a failure no new call is begun,
    /// and those in flight are finished.
    ///
    /// # Errors
    /// [`JudgeFailure`]: held when no provider could be asked, `stop` was triggered or nobody takes
    /// the fresh verdicts; else one question got no usable answer in its bounded tries.
    pub async fn judge_all(
        &self,
        items: &[JudgeItem],
        known: &Verdicts,
        fresh: &mpsc::Sender<(ContentKey, Verdict)>,
        stop: &Shutdown,
    ) -> Result<Vec<JudgedItem>, JudgeFailure> {
        let answers = std::pin::pin!(self.ask_missing(items, known));
        let asked = tokio::select! {
            biased;
            () = stop.signalled() => return Err(JudgeFailure::held(JudgeError::Interrupted)),
            asked = collect(answers, fresh) => asked?,
        };
        let verdict = |item: &JudgeItem, order| {
            let key = prompt::content_key(item, &self.model, order);
            let found = known.get(&key).or_else(|| asked.get(&key));
            found
                .cloned()
                .ok_or_else(|| JudgeFailure::question(JudgeError::Lost))
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

    /// Answers to all that is not known, as they come; each distinct question is asked once.
    fn ask_missing<'a>(
        &'a self,
        items: &'a [JudgeItem],
        known: &Verdicts,
    ) -> impl Stream<Item = Result<(ContentKey, Verdict), JudgeFailure>> + 'a {
        let mut seen = HashSet::new();
        let questions: Vec<_> = items
            .iter()
            .flat_map(|item| Order::BOTH.map(|order| (item, order)))
            .map(|(item, order)| Question {
                item,
                order,
                key: prompt::content_key(item, &self.model, order),
            })
            .filter(|q| !known.contains_key(&q.key) && seen.insert(q.key))
            .collect();
        let keys: Vec<_> = questions.iter().map(|q| q.key).collect();
        let clients = &self.clients;
        let call = move |provider: usize, question: &Question<'a>| {
            let (item, order) = (question.item, question.order);
            async move {
                let prompt = Prompt::new(item, order, &prompt::fence());
                clients[provider].ask(&prompt, order).await
            }
        };
        self.pool
            .ask_all(questions, |q| expected(q.item), call)
            .map(move |answer| answer.map(|(at, verdict)| (keys[at], verdict)))
    }
}

/// What a question will use at most; a token of English holds about four characters, so three is
/// on the safe side.
fn expected(item: &JudgeItem) -> Usage {
    const FRAME_CHARS: usize = 2000;
    let context: usize = item.context.iter().map(|turn| turn.content.len()).sum();
    let chars = FRAME_CHARS + context + item.reply.len() + item.reference.len();
    Usage {
        input_tokens: u32::try_from(chars / 3).unwrap_or(u32::MAX),
        output_tokens: ANSWER_TOKENS_MAX,
    }
}

/// Passes each verdict on; remembers the first failure and drains the rest.
async fn collect(
    mut answers: std::pin::Pin<
        &mut impl Stream<Item = Result<(ContentKey, Verdict), JudgeFailure>>,
    >,
    fresh: &mpsc::Sender<(ContentKey, Verdict)>,
) -> Result<Verdicts, JudgeFailure> {
    let mut asked = Verdicts::new();
    let mut failure = None;
    while let Some(answer) = answers.next().await {
        match answer {
            Ok((key, verdict)) => {
                let sent = fresh.send((key, verdict.clone())).await;
                sent.map_err(|_| JudgeFailure::held(JudgeError::NotStored))?;
                asked.insert(key, verdict);
            }
            Err(error) => drop(failure.get_or_insert(error)),
        }
    }
    failure.map_or(Ok(asked), Err)
}
