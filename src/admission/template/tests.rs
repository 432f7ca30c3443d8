use super::*;
use proptest::prelude::*;

fn message(role: Role, content: &str) -> Message<'_> {
    Message { role, content }
}

const TALK: [Message<'static>; 4] = [
    Message {
        role: Role::System,
        content: "You are Ada.",
    },
    Message {
        role: Role::User,
        content: "Hi",
    },
    Message {
        role: Role::Assistant,
        content: "Hello <b>you</b>!",
    },
    Message {
        role: Role::User,
        content: "Who are you?",
    },
];

/// With a system message, and without one.
const GOLDEN: [(Template, &str, &str); 10] = [
    (
        Template::Vicuna,
        "<s>You are Ada. USER: Hi ASSISTANT: Hello <b>you</b>!</s>USER: Who are you? ASSISTANT:",
        "<s>USER: Hi ASSISTANT: Hello <b>you</b>!</s>USER: Who are you? ASSISTANT:",
    ),
    (
        Template::ChatMl,
        "<|im_start|>system\nYou are Ada.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n\
         <|im_start|>assistant\nHello <b>you</b>!<|im_end|>\n<|im_start|>user\nWho are you?<|im_end|>\n\
         <|im_start|>assistant\n",
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello <b>you</b>!<|im_end|>\n\
         <|im_start|>user\nWho are you?<|im_end|>\n<|im_start|>assistant\n",
    ),
    (
        Template::Zephyr,
        "<|system|>\nYou are Ada.</s>\n<|user|>\nHi</s>\n<|assistant|>\nHello <b>you</b>!</s>\n\
         <|user|>\nWho are you?</s>\n<|assistant|>\n",
        "<|user|>\nHi</s>\n<|assistant|>\nHello <b>you</b>!</s>\n<|user|>\nWho are you?</s>\n\
         <|assistant|>\n",
    ),
    (
        Template::Mistral,
        "<s>[INST] You are Ada.\n\nHi [/INST] Hello <b>you</b>!</s>[INST] Who are you? [/INST]",
        "<s>[INST] Hi [/INST] Hello <b>you</b>!</s>[INST] Who are you? [/INST]",
    ),
    (
        Template::Alpaca,
        "<s>You are Ada.\n\n### Instruction:\nHi\n\n### Response:\nHello <b>you</b>!</s>\n\n\
         ### Instruction:\nWho are you?\n\n### Response:\n",
        "<s>### Instruction:\nHi\n\n### Response:\nHello <b>you</b>!</s>\n\n\
         ### Instruction:\nWho are you?\n\n### Response:\n",
    ),
    (
        Template::Llama2,
        "<s>[INST] <<SYS>>\nYou are Ada.\n<</SYS>>\n\nHi [/INST] Hello <b>you</b>! </s>\
         <s>[INST] Who are you? [/INST]",
        "<s>[INST] Hi [/INST] Hello <b>you</b>! </s><s>[INST] Who are you? [/INST]",
    ),
    (
        Template::Llama3,
        "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nYou are Ada.<|eot_id|>\
         <|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>\
         <|start_header_id|>assistant<|end_header_id|>\n\nHello <b>you</b>!<|eot_id|>\
         <|start_header_id|>user<|end_header_id|>\n\nWho are you?<|eot_id|>\
         <|start_header_id|>assistant<|end_header_id|>\n\n",
        "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>\
         <|start_header_id|>assistant<|end_header_id|>\n\nHello <b>you</b>!<|eot_id|>\
         <|start_header_id|>user<|end_header_id|>\n\nWho are you?<|eot_id|>\
         <|start_header_id|>assistant<|end_header_id|>\n\n",
    ),
    (
        Template::Llama3dot1,
        "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\n\
         Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\nYou are Ada.<|eot_id|>\
         <|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>\
         <|start_header_id|>assistant<|end_header_id|>\n\nHello <b>you</b>!<|eot_id|>\
         <|start_header_id|>user<|end_header_id|>\n\nWho are you?<|eot_id|>\
         <|start_header_id|>assistant<|end_header_id|>\n\n",
        "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\n\
         Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n<|eot_id|>\
         <|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>\
         <|start_header_id|>assistant<|end_header_id|>\n\nHello <b>you</b>!<|eot_id|>\
         <|start_header_id|>user<|end_header_id|>\n\nWho are you?<|eot_id|>\
         <|start_header_id|>assistant<|end_header_id|>\n\n",
    ),
    (
        Template::Gemma2,
        "<bos><start_of_turn>user\nYou are Ada.\n\nHi<end_of_turn>\n\
         <start_of_turn>model\nHello <b>you</b>!<end_of_turn>\n\
         <start_of_turn>user\nWho are you?<end_of_turn>\n<start_of_turn>model\n",
        "<bos><start_of_turn>user\nHi<end_of_turn>\n\
         <start_of_turn>model\nHello <b>you</b>!<end_of_turn>\n\
         <start_of_turn>user\nWho are you?<end_of_turn>\n<start_of_turn>model\n",
    ),
    (
        Template::Qwen2dot5,
        "<|im_start|>system\nYou are Ada.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n\
         <|im_start|>assistant\nHello <b>you</b>!<|im_end|>\n<|im_start|>user\nWho are you?<|im_end|>\n\
         <|im_start|>assistant\n",
        "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n\
         <|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello <b>you</b>!<|im_end|>\n\
         <|im_start|>user\nWho are you?<|im_end|>\n<|im_start|>assistant\n",
    ),
];

#[test]
fn every_template_is_as_its_family_publishes_it() {
    let mut named: Vec<_> = GOLDEN.iter().map(|(template, ..)| *template).collect();
    named.sort_unstable();
    named.dedup();
    assert_eq!(named.len(), Template::ALL.len());
    for (template, with_system, without) in GOLDEN {
        assert_eq!(render(template, &TALK).as_deref(), Ok(with_system));
        assert_eq!(render(template, &TALK[1..]).as_deref(), Ok(without));
    }
}

#[test]
fn a_message_cannot_forge_a_turn() {
    for template in Template::ALL {
        let known = format(*template);
        assert!(known.markers.contains(&known.end), "{template}");
        for marker in known.markers {
            let content = format!("x{marker}y");
            let forged = message(Role::User, &content);
            let result = render(*template, &[message(Role::User, "a"), forged]);
            assert_eq!(result, Err(RenderError::Marker(1)), "{template}");
        }
    }
}

#[test]
fn orders_that_not_every_format_knows() {
    let late = [message(Role::User, "a"), message(Role::System, "b")];
    let (user, model) = (message(Role::User, "u"), message(Role::Assistant, "m"));
    for template in Template::ALL {
        assert_eq!(render(*template, &late), Err(RenderError::System(1)));
        for unanswerable in [&[] as &[_], &[user, model], &TALK[..1]] {
            assert_eq!(
                render(*template, unanswerable),
                Err(RenderError::NoQuestion)
            );
        }
    }
    let greeting = [TALK[0], model, user, user];
    assert_eq!(
        render(Template::Mistral, &greeting).as_deref(),
        Ok("<s>[INST] You are Ada. [/INST] m</s>[INST] u\n\nu [/INST]")
    );
}

fn turn() -> impl Strategy<Value = (bool, String)> {
    (any::<bool>(), "[ -~\n]{1,40}")
}

proptest! {
    #[test]
    fn every_message_stands_in_the_prompt_verbatim_and_in_order(
        turns in prop::collection::vec(turn(), 0..8),
        last in "[ -~]{1,40}",
        system in prop::option::of("[ -~]{1,40}"),
    ) {
        let role = |user: bool| if user { Role::User } else { Role::Assistant };
        let mut talk: Vec<_> = system.iter().map(|s| message(Role::System, s)).collect();
        talk.extend(turns.iter().map(|(user, text)| message(role(*user), text)));
        talk.push(message(Role::User, &last));
        for template in Template::ALL {
            let prompt = match render(*template, &talk) {
                Ok(prompt) => prompt,
                Err(RenderError::Marker(_)) => continue,
                Err(other) => return Err(TestCaseError::fail(other.to_string())),
            };
            let mut rest = prompt.as_str();
            for message in &talk {
                let at = rest.find(message.content);
                prop_assert!(at.is_some(), "{template}: {:?} is missing in {prompt:?}", message.content);
                rest = &rest[at.unwrap_or(0) + message.content.len()..];
            }
        }
    }
}

#[test]
fn the_longest_conversation_renders_within_its_fuel() {
    let (user, model) = (message(Role::User, "u"), message(Role::Assistant, "m"));
    let long: Vec<_> = std::iter::repeat_n([user, model], 128)
        .flatten()
        .chain([user])
        .collect();
    for template in Template::ALL {
        assert!(render(*template, &long).is_ok(), "{template}");
    }
}
