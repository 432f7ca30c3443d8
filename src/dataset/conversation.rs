//! One evaluation conversation in the origin's shape, its identity, and the prompt it gives.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest, Sha256};

use super::Day;
use super::special::strip;

/// Most messages of one conversation.
const MESSAGES_MAX: usize = 256;
/// Longest text of one message or system prompt, in bytes.
const TEXT_BYTES_MAX: usize = 64 * 1024;

/// Identity of a conversation: SHA-256 of its system prompt and messages in canonical JSON. The
/// date is no part of it. Text form: 64 lower-case hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ItemId(pub [u8; 32]);

impl fmt::Display for ItemId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for ItemId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ItemId({self})")
    }
}

impl FromStr for ItemId {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes)
            .map_err(|_| "an item id has 64 hex digits".to_owned())?;
        Ok(Self(bytes))
    }
}

impl Serialize for ItemId {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ItemId {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

/// Who speaks. A system prompt is a field of its own, not a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// The human side.
    User,
    /// The model's side.
    Assistant,
}

/// One turn.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Who speaks.
    pub role: Role,
    /// What is said; never empty.
    pub content: String,
}

/// A checked conversation: within the bounds, and with a user's turn that an assistant's turn
/// answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Conversation {
    id: ItemId,
    created: Day,
    system_prompt: String,
    messages: Vec<Message>,
}

/// A conversation as it comes: fields that are not ours are passed over.
#[derive(Debug, Deserialize)]
struct Incoming {
    id: Option<ItemId>,
    #[serde(alias = "date", alias = "created_at")]
    created: Option<Day>,
    #[serde(default)]
    system_prompt: Option<String>,
    messages: Vec<Message>,
}

/// Why a line is no usable conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
pub enum Invalid {
    /// Not JSON, or not of the shape.
    #[error(
        "not a conversation in JSON: {{\"system_prompt\", \"messages\": [{{\"role\", \"content\"}}]}}"
    )]
    Shape,
    /// No day in the line and none given for the import.
    #[error("carries no day; add \"created\" or give one for the whole file")]
    NoDay,
    /// Too many messages.
    #[error("has more than 256 messages")]
    TooManyMessages,
    /// A text beyond the bound.
    #[error("has a text of more than 64 KiB")]
    TextTooLong,
    /// A message without text.
    #[error("has an empty message")]
    EmptyMessage,
    /// A control character other than newline and tab.
    #[error("holds a control character")]
    ControlCharacter,
    /// No assistant's turn right after a user's turn.
    #[error("has no reply to a user's turn, so there is nothing to compare with")]
    NoReply,
    /// The id in the line is not that of the content.
    #[error("carries an id that is not the digest of its content")]
    WrongId,
}

fn check_text(text: &str) -> Result<(), Invalid> {
    if text.len() > TEXT_BYTES_MAX {
        return Err(Invalid::TextTooLong);
    }
    let allowed = |c: char| !c.is_control() || matches!(c, '\n' | '\t');
    if !text.chars().all(allowed) {
        return Err(Invalid::ControlCharacter);
    }
    Ok(())
}

impl Conversation {
    /// Checks a conversation and gives it its id. Before, `\r\n` becomes `\n`, and special tokens
    /// of chat templates are taken out.
    ///
    /// # Errors
    /// [`Invalid`] names the first thing that is wrong.
    pub fn new(created: Day, system_prompt: &str, messages: Vec<Message>) -> Result<Self, Invalid> {
        if messages.len() > MESSAGES_MAX {
            return Err(Invalid::TooManyMessages);
        }
        let system_prompt = strip(system_prompt.replace("\r\n", "\n"));
        check_text(&system_prompt)?;
        let mut clean = Vec::with_capacity(messages.len());
        for Message { role, content } in messages {
            let content = strip(content.replace("\r\n", "\n"));
            check_text(&content)?;
            if content.trim().is_empty() {
                return Err(Invalid::EmptyMessage);
            }
            clean.push(Message { role, content });
        }
        let id = identity(&system_prompt, &clean);
        let conversation = Self {
            id,
            created,
            system_prompt,
            messages: clean,
        };
        conversation.reply_index().ok_or(Invalid::NoReply)?;
        Ok(conversation)
    }

    /// Reads one JSON line. `day` is used when the line carries none.
    ///
    /// # Errors
    /// [`Invalid`] names the first thing that is wrong, also an id that is not the content's.
    pub fn from_json(line: &[u8], day: Option<Day>) -> Result<Self, Invalid> {
        let incoming = serde_json::from_slice(line).map_err(|_| Invalid::Shape)?;
        Self::from_incoming(incoming, day)
    }

    /// Reads one row of a table, as JSON would show it; else as [`Self::from_json`].
    ///
    /// # Errors
    /// As [`Self::from_json`].
    pub fn from_row(row: serde_json::Value, day: Option<Day>) -> Result<Self, Invalid> {
        let incoming = serde_json::from_value(row).map_err(|_| Invalid::Shape)?;
        Self::from_incoming(incoming, day)
    }

    fn from_incoming(incoming: Incoming, day: Option<Day>) -> Result<Self, Invalid> {
        let created = incoming.created.or(day).ok_or(Invalid::NoDay)?;
        let system = incoming.system_prompt.unwrap_or_default();
        let conversation = Self::new(created, &system, incoming.messages)?;
        match incoming.id {
            Some(id) if id != conversation.id => Err(Invalid::WrongId),
            _ => Ok(conversation),
        }
    }

    /// The line as partitions and packs hold it; [`Self::from_json`] reads it back.
    #[must_use]
    pub fn to_json(&self) -> String {
        // Strings, numbers and lists only: there is no value here that JSON lacks.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Identity.
    #[must_use]
    pub fn id(&self) -> ItemId {
        self.id
    }

    /// Day of its making.
    #[must_use]
    pub fn created(&self) -> Day {
        self.created
    }

    /// System prompt; empty when there is none.
    #[must_use]
    pub fn system_prompt(&self) -> &str {
        &self.system_prompt
    }

    /// The turns.
    #[must_use]
    pub fn messages(&self) -> &[Message] {
        &self.messages
    }

    /// Index of the last assistant's turn that directly follows a user's turn.
    fn reply_index(&self) -> Option<usize> {
        (1..self.messages.len()).rev().find(|&i| {
            self.messages[i].role == Role::Assistant && self.messages[i - 1].role == Role::User
        })
    }

    /// The item to answer: everything before the last reply to a user, and that reply.
    #[must_use]
    pub fn into_item(mut self) -> Item {
        // `new` refused conversations without one.
        let reply = self.reply_index().unwrap_or_default();
        self.messages.truncate(reply + 1);
        let reference = self.messages.pop().map(|m| m.content).unwrap_or_default();
        Item {
            id: self.id,
            created: self.created,
            system: Some(self.system_prompt).filter(|text| !text.trim().is_empty()),
            messages: self.messages,
            reference,
        }
    }
}

fn identity(system_prompt: &str, messages: &[Message]) -> ItemId {
    #[derive(Serialize)]
    struct Content<'a> {
        system_prompt: &'a str,
        messages: &'a [Message],
    }
    let content = Content {
        system_prompt,
        messages,
    };
    let mut hash = Sha256::new();
    // Writing to a hash cannot fail, and there is no value here that JSON lacks.
    let _ = serde_json::to_writer(&mut hash, &content);
    ItemId(hash.finalize().into())
}

/// What a model is asked, and what the other side of the comparison said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// Id of the conversation.
    pub id: ItemId,
    /// Day of its making.
    pub created: Day,
    /// System prompt, if there is one.
    pub system: Option<String>,
    /// The turns up to and including the user's turn that is to be answered.
    pub messages: Vec<Message>,
    /// The reply in the conversation.
    pub reference: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn message(role: Role, content: &str) -> Message {
        Message {
            role,
            content: content.into(),
        }
    }

    fn day() -> Day {
        "2026-11-20".parse().unwrap()
    }

    #[test]
    fn the_item_ends_with_the_user_and_keeps_the_reply_apart() {
        use Role::{Assistant, User};
        let turns = [
            (Assistant, "hi"),
            (User, "a"),
            (Assistant, "b"),
            (User, "c"),
        ];
        let messages = turns.map(|(role, text)| message(role, text)).to_vec();
        let item = Conversation::new(day(), "be brief", messages)
            .unwrap()
            .into_item();
        assert_eq!(item.system.as_deref(), Some("be brief"));
        assert_eq!(
            item.messages,
            [message(Assistant, "hi"), message(User, "a")]
        );
        assert_eq!(item.reference, "b");
    }

    #[test]
    fn the_id_is_that_of_the_content_alone() {
        let line = br#"{"messages":[{"role":"user","content":"a"},{"role":"assistant","content":"b"}],"created":"2026-11-20","x":1}"#;
        let one = Conversation::from_json(line, None).unwrap();
        let other = Conversation::new(
            "2020-01-01".parse().unwrap(),
            "",
            vec![message(Role::User, "a"), message(Role::Assistant, "b")],
        );
        assert_eq!(one.id(), other.unwrap().id());
        let expected = Sha256::digest(
            br#"{"system_prompt":"","messages":[{"role":"user","content":"a"},{"role":"assistant","content":"b"}]}"#,
        );
        assert_eq!(one.id().0, <[u8; 32]>::from(expected));
        assert_eq!(
            Conversation::from_json(one.to_json().as_bytes(), None),
            Ok(one)
        );
    }

    #[test]
    fn unusable_conversations_say_why() {
        use Invalid::{
            ControlCharacter, EmptyMessage, NoDay, NoReply, Shape, TextTooLong, WrongId,
        };
        let long = "x".repeat(70_000);
        let turns = |user: &str, reply: &str| {
            format!(
                r#""messages":[{{"role":"user","content":"{user}"}},{{"role":"assistant","content":"{reply}"}}]"#
            )
        };
        let cases = [
            ("[]".to_owned(), Shape),
            (
                r#"{"messages":[{"role":"system","content":"a"}]}"#.into(),
                Shape,
            ),
            (format!("{{{}}}", turns("a", "b")), NoDay),
            (
                format!(r#"{{"created":"2026-01-01",{}}}"#, turns(" ", "b")),
                EmptyMessage,
            ),
            (
                format!(r#"{{"created":"2026-01-01",{}}}"#, turns(r"a\u0000", "b")),
                ControlCharacter,
            ),
            (
                format!(r#"{{"created":"2026-01-01",{}}}"#, turns(&long, "b")),
                TextTooLong,
            ),
            (
                r#"{"created":"2026-01-01","messages":[{"role":"user","content":"a"}]}"#.into(),
                NoReply,
            ),
            (r#"{"created":"2026-01-01","messages":[]}"#.into(), NoReply),
            (
                format!(
                    r#"{{"id":"{}","created":"2026-01-01",{}}}"#,
                    "0".repeat(64),
                    turns("a", "b")
                ),
                WrongId,
            ),
        ];
        for (line, expected) in cases {
            let found = Conversation::from_json(line.as_bytes(), None);
            assert_eq!(found, Err(expected), "{}", &line[..line.len().min(90)]);
        }
    }

    proptest! {
        #[test]
        fn no_line_makes_it_panic(line in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = Conversation::from_json(&line, None);
        }

        #[test]
        fn what_is_written_reads_back(user in "[^\\p{Cc}]{0,20}x", reply in "[^\\p{Cc}]{0,20}y", system in "[^\\p{Cc}]{0,20}") {
            let messages = vec![message(Role::User, &user), message(Role::Assistant, &reply)];
            let conversation = Conversation::new(day(), &system, messages).unwrap();
            prop_assert_eq!(Conversation::from_json(conversation.to_json().as_bytes(), None), Ok(conversation));
        }
    }
}
