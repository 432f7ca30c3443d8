//! Named chat templates, rendered by the node: no text of a miner takes part.
//!
//! Each template is written from the format that its model family publishes. The prompt is
//! complete: it carries the begin-of-text marker where the family has one, since scorers encode it
//! without adding special tokens.

use crate::incentive::Template;
use minijinja::{Environment, Value, context};
use std::sync::LazyLock;

/// Instructions that one rendering may take; a conversation of 256 messages needs a tenth.
const FUEL: u64 = 100_000;

/// Who speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Instructions and persona.
    System,
    /// The person.
    User,
    /// The model.
    Assistant,
}

impl Role {
    fn as_str(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::User => "user",
            Self::Assistant => "assistant",
        }
    }
}

/// One turn of a conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Message<'a> {
    /// Who speaks.
    pub role: Role,
    /// What is said.
    pub content: &'a str,
}

/// Why there is no prompt.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RenderError {
    /// A message contains one of the template's own markers and would forge turns.
    #[error("message {0} contains a marker of the chat template; remove the item from the pack")]
    Marker(usize),
    /// A system message behind others: not every format can express it.
    #[error("message {0} is a system message and not the first; remove the item from the pack")]
    System(usize),
    /// The last message is not the user's, so there is nothing to answer.
    #[error("the conversation does not end with the user's turn; remove the item from the pack")]
    NoQuestion,
    /// A template of ours fails, which is a bug.
    #[error("the chat template {0} does not render: {1}")]
    Bug(Template, String),
}

/// What there is to know about a template.
struct Format {
    source: &'static str,
    /// Texts that the family's tokenizers read as control tokens.
    markers: &'static [&'static str],
    /// Text of the token that ends the model's turn.
    end: &'static str,
}

const fn format(template: Template) -> Format {
    const CHATML: &[&str] = &["<|im_start|>", "<|im_end|>"];
    const LLAMA3: &[&str] = &[
        "<|begin_of_text|>",
        "<|start_header_id|>",
        "<|end_header_id|>",
        "<|eot_id|>",
    ];
    const SENTENCE: &[&str] = &["<s>", "</s>"];
    const INST: &[&str] = &["<s>", "</s>", "[INST]", "[/INST]", "<<SYS>>", "<</SYS>>"];
    let (source, markers, end) = match template {
        Template::Vicuna => (include_str!("templates/vicuna.jinja"), SENTENCE, "</s>"),
        Template::ChatMl => (include_str!("templates/chatml.jinja"), CHATML, "<|im_end|>"),
        Template::Zephyr => (
            include_str!("templates/zephyr.jinja"),
            &["<|system|>", "<|user|>", "<|assistant|>", "</s>"] as &[_],
            "</s>",
        ),
        Template::Mistral => (include_str!("templates/mistral.jinja"), INST, "</s>"),
        Template::Alpaca => (
            include_str!("templates/alpaca.jinja"),
            &["<s>", "</s>", "### Instruction:", "### Response:"] as &[_],
            "</s>",
        ),
        Template::Llama2 => (include_str!("templates/llama2.jinja"), INST, "</s>"),
        Template::Llama3 => (include_str!("templates/llama3.jinja"), LLAMA3, "<|eot_id|>"),
        Template::Llama3dot1 => (
            include_str!("templates/llama3dot1.jinja"),
            LLAMA3,
            "<|eot_id|>",
        ),
        Template::Gemma2 => (
            include_str!("templates/gemma2.jinja"),
            &["<bos>", "<start_of_turn>", "<end_of_turn>"] as &[_],
            "<end_of_turn>",
        ),
        Template::Qwen2dot5 => (
            include_str!("templates/qwen2dot5.jinja"),
            CHATML,
            "<|im_end|>",
        ),
    };
    Format {
        source,
        markers,
        end,
    }
}

/// The templates, compiled once. A source that does not compile is found by rendering it.
static TEMPLATES: LazyLock<Environment<'static>> = LazyLock::new(|| {
    let mut all = Environment::new();
    all.set_fuel(Some(FUEL));
    // The names have no extension, so nothing is escaped.
    for template in Template::ALL {
        let added = all.add_template(template.as_str(), format(*template).source);
        debug_assert!(added.is_ok(), "{template}: {added:?}");
    }
    all
});

/// The prompt: every message verbatim and in order, then the opening of the assistant's turn.
///
/// # Errors
/// [`RenderError`] when a message would break out of its turn or the order of roles cannot be
/// expressed.
pub fn render(template: Template, messages: &[Message<'_>]) -> Result<String, RenderError> {
    check(messages, format(template).markers)?;
    let bug = |e: minijinja::Error| RenderError::Bug(template, e.to_string());
    let compiled = TEMPLATES.get_template(template.as_str()).map_err(bug)?;
    let (system, turns) = match messages.split_first() {
        Some((first, rest)) if first.role == Role::System => (Some(first.content), rest),
        _ => (None, messages),
    };
    let context = context! {
        system => system.filter(|text| !text.is_empty()),
        messages => values(messages),
        turns => values(turns),
        exchanges => exchanges(turns),
    };
    compiled.render(context).map_err(bug)
}

/// Text of the token that ends a turn; its id is a stop id where the tokenizer knows it.
#[must_use]
pub fn end_token(template: Template) -> &'static str {
    format(template).end
}

fn check(messages: &[Message<'_>], markers: &[&str]) -> Result<(), RenderError> {
    for (index, message) in messages.iter().enumerate() {
        if message.role == Role::System && index > 0 {
            return Err(RenderError::System(index));
        }
        if markers
            .iter()
            .any(|marker| message.content.contains(marker))
        {
            return Err(RenderError::Marker(index));
        }
    }
    match messages.last() {
        Some(last) if last.role == Role::User => Ok(()),
        _ => Err(RenderError::NoQuestion),
    }
}

fn values(messages: &[Message<'_>]) -> Value {
    let one = |m: &Message<'_>| context! { role => m.role.as_str(), content => m.content };
    messages.iter().map(one).collect()
}

/// Turns in pairs, for formats that know only those: messages of one side in a row become one, and
/// a conversation that the model opens begins with an empty turn of the user.
fn exchanges(turns: &[Message<'_>]) -> Value {
    let mut pairs: Vec<(String, Option<String>)> = Vec::new();
    for turn in turns {
        let open = pairs.last().is_some_and(|(_, reply)| reply.is_none());
        if turn.role == Role::User && !open {
            pairs.push((turn.content.to_owned(), None));
            continue;
        }
        if pairs.is_empty() {
            pairs.push((String::new(), None));
        }
        let Some((user, assistant)) = pairs.last_mut() else {
            continue;
        };
        match turn.role {
            Role::User => extend(user, turn.content),
            _ => extend(assistant.get_or_insert_default(), turn.content),
        }
    }
    let one = |(user, assistant)| context! { user => user, assistant => assistant };
    pairs.into_iter().map(one).collect()
}

fn extend(text: &mut String, more: &str) {
    if !text.is_empty() {
        text.push_str("\n\n");
    }
    text.push_str(more);
}

#[cfg(test)]
mod tests;
