//! Greedy replies, one sequence at a time.

use crate::failure::{Failure, OrFailure};
use crate::model::{Cache, Model};
use assay_protocol::{Finish, ResultCode};
use candle_core::{Device, Tensor};
use tokenizers::Tokenizer;

/// Tokens fed at once: bounds memory, and the time between two signs of life.
const CHUNK: usize = 256;

/// A model with its tokenizer and the bounds of a sequence.
#[derive(Debug)]
pub struct Generator {
    model: Model,
    tokenizer: Tokenizer,
    stop: Vec<u32>,
    max_tokens: usize,
    max_prompt: usize,
}

/// One reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Generated {
    /// Token ids without the stop token.
    pub ids: Vec<u32>,
    /// Why it ended.
    pub finish: Finish,
}

impl Generator {
    /// Checks that tokenizer and model fit.
    ///
    /// # Errors
    /// `E_VOCAB` when the tokenizer has an id that the model does not embed.
    pub fn new(
        model: Model,
        tokenizer: Tokenizer,
        bounds: &assay_protocol::Generation,
    ) -> Result<Self, Failure> {
        let rows = model.config().vocab_size;
        let most = tokenizer.get_vocab(true).into_values().max().unwrap_or(0);
        if index(most) >= rows {
            let message = format!("the tokenizer has id {most}, the model embeds {rows} ids");
            return Err(Failure::new(ResultCode::Vocab, message));
        }
        Ok(Self {
            model,
            tokenizer,
            stop: bounds.stop_token_ids.clone(),
            max_tokens: index(bounds.max_tokens),
            max_prompt: index(bounds.max_prompt_tokens),
        })
    }

    /// The model.
    #[must_use]
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// The end of the prompt, as many tokens as fit. `text` is complete: nothing is added.
    ///
    /// # Errors
    /// `E_TOKENIZER` when the tokenizer fails or yields nothing, `E_VOCAB` when it yields an id
    /// that the model does not embed.
    pub fn prompt(&self, text: &str) -> Result<Vec<u32>, Failure> {
        let ids = self.encode(text)?.0;
        if ids.is_empty() {
            let message = "the tokenizer turns a prompt into no token";
            return Err(Failure::new(ResultCode::Tokenizer, message));
        }
        Ok(ids[ids.len().saturating_sub(self.max_prompt)..].to_vec())
    }

    /// Token ids of a text, and for each token the byte of the text where it ends.
    pub(crate) fn encode(&self, text: &str) -> Result<(Vec<u32>, Vec<usize>), Failure> {
        let encoding = self
            .tokenizer
            .encode(text, false)
            .or_failure(ResultCode::Tokenizer, "encoding a text")?;
        let ids = encoding.get_ids().to_vec();
        let rows = self.model.config().vocab_size;
        if let Some(id) = ids.iter().find(|id| index(**id) >= rows) {
            let message = format!("the tokenizer yields id {id}, the model embeds {rows} ids");
            return Err(Failure::new(ResultCode::Vocab, message));
        }
        Ok((
            ids,
            encoding.get_offsets().iter().map(|(_, end)| *end).collect(),
        ))
    }

    /// The text of a reply, special tokens left out.
    ///
    /// # Errors
    /// `E_TOKENIZER` when the tokenizer fails.
    pub fn decode(&self, ids: &[u32]) -> Result<String, Failure> {
        self.tokenizer
            .decode(ids, true)
            .or_failure(ResultCode::Tokenizer, "decoding a reply")
    }

    /// The most likely token again and again, until a stop token or the cap. `beat` is called
    /// after each step and may end the reply by failing.
    ///
    /// # Errors
    /// `E_NONFINITE` when a logit is NaN or infinite, `E_DEVICE_ASSERT` when the engine fails.
    pub fn reply(
        &self,
        prompt: &[u32],
        mut beat: impl FnMut() -> Result<(), Failure>,
    ) -> Result<Generated, Failure> {
        let mut cache = Cache::default();
        let mut next = self.step(prompt, &mut cache, &mut beat)?;
        let mut ids = Vec::new();
        loop {
            if self.stop.contains(&next) {
                let finish = Finish::Stop;
                return Ok(Generated { ids, finish });
            }
            ids.push(next);
            if ids.len() >= self.max_tokens {
                let finish = Finish::Length;
                return Ok(Generated { ids, finish });
            }
            next = self.step(&[next], &mut cache, &mut beat)?;
        }
    }

    fn step(
        &self,
        ids: &[u32],
        cache: &mut Cache,
        beat: &mut impl FnMut() -> Result<(), Failure>,
    ) -> Result<u32, Failure> {
        argmax(&self.feed(ids, cache, beat)?)
    }

    /// Logits after the last of `ids`.
    pub(crate) fn logits(&self, ids: &[u32], cache: &mut Cache) -> Result<Vec<f32>, Failure> {
        Tensor::new(ids, &Device::Cpu)
            .and_then(|ids| ids.unsqueeze(0))
            .and_then(|ids| self.model.forward(&ids, cache, 1))
            .and_then(|logits| logits.flatten_all()?.to_vec1::<f32>())
            .or_failure(ResultCode::DeviceAssert, "a forward pass")
    }

    /// Feeds `ids` in chunks and returns the logits after the last one.
    pub(crate) fn feed(
        &self,
        ids: &[u32],
        cache: &mut Cache,
        beat: &mut impl FnMut() -> Result<(), Failure>,
    ) -> Result<Vec<f32>, Failure> {
        let mut logits = Vec::new();
        for chunk in ids.chunks(CHUNK) {
            logits = self.logits(chunk, cache)?;
            beat()?;
        }
        Ok(logits)
    }
}

/// Index of the largest value, the first of equals.
fn argmax(logits: &[f32]) -> Result<u32, Failure> {
    let mut best = (0, f32::NEG_INFINITY);
    for (id, &logit) in (0u32..).zip(logits) {
        finite(logit)?;
        if logit > best.1 {
            best = (id, logit);
        }
    }
    Ok(best.0)
}

/// Refuses a logit that is NaN or infinite.
pub(crate) fn finite(logit: f32) -> Result<(), Failure> {
    if logit.is_finite() {
        return Ok(());
    }
    Err(Failure::new(
        ResultCode::NonFinite,
        format!("a logit is {logit}"),
    ))
}

/// A u32 as an index; the targets of this crate have at least 32 bits.
pub(crate) fn index(n: u32) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn argmax_takes_the_first_of_equals_and_refuses_nan() {
        assert_eq!(argmax(&[-3.0, 1.0, 1.0]).unwrap(), 1);
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let failure = argmax(&[0.0, bad, 2.0]).unwrap_err();
            assert_eq!(failure.code, ResultCode::NonFinite);
        }
    }
}
