//! Made-up role-play conversations: plentiful, seeded, free of anybody's rights.
//!
//! A scene (who speaks, as what, where, in which mood, to whom) decides every reply, so a model can
//! learn to answer well and one that misreads the scene is caught. One scene in five is held out:
//! [`sample_conversations`] draws from those alone, [`training_conversations`] from the others.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::HashSet;

/// One conversation in the shape of the subnet's corpus; the last message is the reference reply.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conversation {
    /// First 32 hex digits of the SHA-256 of the content.
    pub id: String,
    /// Who the assistant is to be.
    pub system_prompt: String,
    /// User and assistant by turns, the user first, the assistant last.
    pub messages: Vec<Message>,
}

/// One turn.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// `user` or `assistant`.
    pub role: String,
    /// What was said.
    pub content: String,
}

impl Conversation {
    /// Everything before the last message in ChatML, ready for the assistant to go on, and the
    /// last message.
    #[must_use]
    pub fn prompt_and_reference(&self) -> (String, &str) {
        let mut prompt = turn("system", &self.system_prompt);
        let Some((reference, before)) = self.messages.split_last() else {
            return (prompt, "");
        };
        for message in before {
            prompt.push_str(&turn(&message.role, &message.content));
        }
        prompt.push_str("<|im_start|>assistant\n");
        (prompt, &reference.content)
    }
}

fn turn(role: &str, content: &str) -> String {
    format!("<|im_start|>{role}\n{content}<|im_end|>\n")
}

/// How alike two texts are, 0 to 1: F1 over their words as multisets, without case and
/// punctuation.
#[must_use]
pub fn word_f1(a: &str, b: &str) -> f64 {
    let (a, mut b) = (words(a), words(b));
    let total = a.len() + b.len();
    if total == 0 {
        return 1.0;
    }
    let mut shared: u32 = 0;
    for word in &a {
        if let Some(at) = b.iter().position(|other| other == word) {
            b.swap_remove(at);
            shared += 1;
        }
    }
    f64::from(2 * shared) / f64::from(u32::try_from(total).unwrap_or(u32::MAX))
}

fn words(text: &str) -> Vec<String> {
    text.split(|c: char| !c.is_alphanumeric())
        .filter(|word| !word.is_empty())
        .map(str::to_lowercase)
        .collect()
}

struct Role {
    name: &'static str,
    work: &'static str,
    item: &'static str,
    fear: &'static str,
}

struct Place {
    name: &'static str,
    look: &'static str,
    way: &'static str,
}

struct Mood {
    name: &'static str,
    gesture: &'static str,
    opening: &'static str,
    closing: &'static str,
}

const NAMES: [&str; 14] = [
    "Alba", "Bruno", "Celia", "Doran", "Edda", "Falk", "Greta", "Hakon", "Ilse", "Jaro", "Kira",
    "Lorin", "Mila", "Nestor",
];
const GUESTS: [&str; 10] = [
    "Ada", "Boris", "Clara", "Dmitri", "Elena", "Felix", "Gwen", "Hugo", "Irma", "Jonas",
];

/// Name, work, item, fear.
const ROLES: [[&str; 4]; 8] = [
    [
        "smith",
        "I hammer iron from dawn to dusk",
        "steel knife",
        "A cold forge",
    ],
    [
        "healer",
        "I brew herbs for the sick",
        "bitter potion",
        "The black fever",
    ],
    [
        "sailor",
        "I mend sails and read the wind",
        "brass compass",
        "A silent sea",
    ],
    [
        "guard",
        "I watch the gate all night",
        "spare key",
        "An open door",
    ],
    [
        "baker",
        "I knead dough before sunrise",
        "warm loaf",
        "A rat in the flour",
    ],
    [
        "thief",
        "I listen at windows and wait",
        "silver ring",
        "The hangman",
    ],
    [
        "scholar",
        "I copy old books by candle",
        "torn map",
        "A fire in the library",
    ],
    [
        "hunter",
        "I follow tracks in the snow",
        "wolf pelt",
        "The white bear",
    ],
];

/// Name, look, way out.
const PLACES: [[&str; 3]; 8] = [
    [
        "Ravenfold",
        "crooked towers and too many crows",
        "cross the stone bridge",
    ],
    [
        "Saltmere",
        "fishing boats and grey rain",
        "follow the coast north",
    ],
    [
        "Oakhollow",
        "houses inside of giant trees",
        "take the root stairs down",
    ],
    [
        "Emberton",
        "red roofs and smoking chimneys",
        "climb the ash road",
    ],
    ["Frostgate", "ice on every wall", "walk beneath the glacier"],
    [
        "Duskwater",
        "still ponds and pale lanterns",
        "row over the marsh",
    ],
    [
        "Highmoor",
        "wind and purple heather",
        "keep to the old wall",
    ],
    [
        "Sunreach",
        "white sand and loud markets",
        "ride with the caravan",
    ],
];

/// Name, gesture, opening, closing.
const MOODS: [[&str; 4]; 6] = [
    [
        "cheerful",
        "laughs",
        "What a joy to see you",
        "Life is good!",
    ],
    [
        "gloomy",
        "sighs",
        "So you came after all",
        "It will end badly.",
    ],
    [
        "proud",
        "lifts the chin",
        "You may listen to me",
        "Remember that well.",
    ],
    [
        "shy",
        "looks away",
        "Oh, I did not hear you",
        "Sorry, I talk too much.",
    ],
    [
        "stern",
        "folds both arms",
        "Stand where you are",
        "Now move along.",
    ],
    [
        "dreamy",
        "hums softly",
        "I thought of the stars just now",
        "Or did I dream it?",
    ],
];

/// Two ways to ask each; the index is what [`Scene::reply`] takes.
const QUESTIONS: [[&str; 2]; 8] = [
    ["Who are you?", "Tell me your name."],
    ["What do you do here?", "How do you spend your days?"],
    ["What is this place like?", "Describe your home to me."],
    ["What are you afraid of?", "What keeps you awake at night?"],
    ["Do you have something for me?", "Can you give me any help?"],
    ["Where should I go next?", "Which way leads out of here?"],
    ["Can I trust you?", "Why should I believe you?"],
    ["Tell me a secret.", "What does nobody else know?"],
];

struct Scene {
    name: &'static str,
    guest: &'static str,
    role: Role,
    place: Place,
    mood: Mood,
}

impl Scene {
    fn draw(rng: &mut ChaCha8Rng) -> Self {
        let [role, work, item, fear] = pick(&ROLES, rng);
        let [place, look, way] = pick(&PLACES, rng);
        let [mood, gesture, opening, closing] = pick(&MOODS, rng);
        Self {
            name: pick(&NAMES, rng),
            guest: pick(&GUESTS, rng),
            role: Role {
                name: role,
                work,
                item,
                fear,
            },
            place: Place {
                name: place,
                look,
                way,
            },
            mood: Mood {
                name: mood,
                gesture,
                opening,
                closing,
            },
        }
    }

    fn system_prompt(&self) -> String {
        let (name, mood, role) = (self.name, self.mood.name, self.role.name);
        let (place, guest) = (self.place.name, self.guest);
        format!("You are {name}, a {mood} {role} in {place}. You speak with {guest}.")
    }

    fn held_out(&self) -> bool {
        Sha256::digest(self.system_prompt())[0].is_multiple_of(5)
    }

    fn reply(&self, question: usize) -> String {
        let Self {
            name,
            guest,
            role,
            place,
            mood,
        } = self;
        let answer = match question {
            0 => format!("I am {name}, the {} of {}", role.name, place.name),
            1 => format!(
                "{}, as every {} in {} does",
                role.work, role.name, place.name
            ),
            2 => format!("{} is all {}", place.name, place.look),
            3 => format!("{} frightens me more than {}", role.fear, place.look),
            4 => format!("Take this {}, {guest}, and think of {name}", role.item),
            5 => format!("Leave {} at once and {}", place.name, place.way),
            6 => format!("You have my word, {guest}, for a {} never lies", role.name),
            _ => format!("I hid a {} where you {}", role.item, place.way),
        };
        let Mood {
            gesture,
            opening,
            closing,
            ..
        } = mood;
        format!("*{gesture}* {opening}, {guest}. {answer}. {closing}")
    }

    fn conversation(&self, rng: &mut ChaCha8Rng) -> Conversation {
        let first = rng.random_range(0..QUESTIONS.len());
        let second = (first + rng.random_range(1..QUESTIONS.len())) % QUESTIONS.len();
        let turns = if rng.random_bool(0.5) { 1 } else { 2 };
        let mut messages = Vec::new();
        for question in [first, second].into_iter().take(turns) {
            messages.push(message("user", pick(&QUESTIONS[question], rng)));
            messages.push(message("assistant", &self.reply(question)));
        }
        let mut digest = Sha256::new_with_prefix(self.system_prompt());
        for message in &messages {
            digest.update([0]);
            digest.update(&message.content);
        }
        Conversation {
            id: hex::encode(&digest.finalize()[..16]),
            system_prompt: self.system_prompt(),
            messages,
        }
    }
}

fn message(role: &str, content: &str) -> Message {
    Message {
        role: role.to_owned(),
        content: content.to_owned(),
    }
}

/// `n` different conversations of held-out scenes; the same for the same seed.
///
/// There are more than a million of them; `n` should stay far below.
#[must_use]
pub fn sample_conversations(seed: u64, n: usize) -> Vec<Conversation> {
    draw(seed, n, true)
}

/// `n` different conversations of scenes that [`sample_conversations`] never shows.
#[must_use]
pub fn training_conversations(seed: u64, n: usize) -> Vec<Conversation> {
    draw(seed, n, false)
}

fn draw(seed: u64, n: usize, held_out: bool) -> Vec<Conversation> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut seen = HashSet::new();
    let mut drawn = Vec::with_capacity(n);
    while drawn.len() < n {
        let scene = Scene::draw(&mut rng);
        let conversation = scene.conversation(&mut rng);
        if scene.held_out() == held_out && seen.insert(conversation.id.clone()) {
            drawn.push(conversation);
        }
    }
    drawn
}

fn pick<T: Copy>(from: &[T], rng: &mut ChaCha8Rng) -> T {
    from[rng.random_range(0..from.len())]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_are_seeded_distinct_and_held_out() {
        let sample = sample_conversations(1, 200);
        assert_eq!(sample, sample_conversations(1, 200));
        assert_ne!(sample[0], sample_conversations(2, 1)[0]);
        let ids: HashSet<_> = sample.iter().map(|c| &c.id).collect();
        assert_eq!(ids.len(), 200);
        let trained: HashSet<_> = training_conversations(1, 5000)
            .into_iter()
            .map(|c| c.system_prompt)
            .collect();
        assert!(sample.iter().all(|c| !trained.contains(&c.system_prompt)));
    }

    #[test]
    fn turns_alternate_and_end_with_the_reference() {
        for conversation in sample_conversations(3, 100) {
            let roles: Vec<_> = conversation
                .messages
                .iter()
                .map(|m| m.role.as_str())
                .collect();
            let expected = ["user", "assistant", "user", "assistant"];
            assert_eq!(roles, expected[..roles.len()]);
            assert!(roles.len() == 2 || roles.len() == 4);
        }
    }

    #[test]
    fn likeness_counts_words_as_often_as_they_stand() {
        assert!((word_f1("The *bear*.", "the bear") - 1.0).abs() < 1e-12);
        assert!((word_f1("a a a", "a") - 0.5).abs() < 1e-12);
        assert!(word_f1("a", "b").abs() < 1e-12);
        assert!(word_f1("", "b").abs() < 1e-12);
    }

    #[test]
    fn the_prompt_ends_where_the_reference_begins() {
        let conversation = &sample_conversations(3, 1)[0];
        let (prompt, reference) = conversation.prompt_and_reference();
        assert!(prompt.starts_with(&format!(
            "<|im_start|>system\n{}<|im_end|>\n<|im_start|>user\n",
            conversation.system_prompt
        )));
        assert!(prompt.ends_with("<|im_end|>\n<|im_start|>assistant\n"));
        assert!(!prompt.contains(reference));
    }

    #[test]
    fn a_reply_follows_from_the_scene() {
        let conversation = &sample_conversations(7, 1)[0];
        let last = &conversation.messages[conversation.messages.len() - 1].content;
        let mood = MOODS
            .iter()
            .find(|m| conversation.system_prompt.contains(m[0]))
            .unwrap();
        assert!(
            last.starts_with(&format!("*{}* {}, ", mood[1], mood[2])),
            "{last}"
        );
        assert!(last.ends_with(mood[3]), "{last}");
    }
}
