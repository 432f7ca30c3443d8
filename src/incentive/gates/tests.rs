use super::*;
use proptest::prelude::*;

const GOOD: [&str; 3] = [
    "The lantern hums and the old captain looks up from his maps with a tired smile.",
    "No. Not tonight.",
    "She laughs, and laughs again, and then she tells you where the key was hidden.",
];

fn reply(text: &str) -> ReplyText<'_> {
    ReplyText { text, cut: false }
}

fn code_of(replies: &[ReplyText<'_>]) -> Option<RejectionCode> {
    check(&count_bad(replies), &Gates::default())
        .err()
        .map(|r| r.code)
}

#[test]
fn honest_replies_pass() {
    assert_eq!(code_of(&GOOD.map(reply)), None);
    assert_eq!(code_of(&[reply("Only one.")]), None);
}

#[test]
fn each_gate_has_its_limit() {
    let texts: Vec<String> = (0..100)
        .map(|i| format!("Reply number {i} of many."))
        .collect();
    let base: Vec<_> = texts.iter().map(|t| reply(t)).collect();
    let loops = "and so on and so on and so on and so on and so on and so on";
    let with = |bad: usize, change: &dyn Fn(&mut ReplyText<'_>)| {
        let mut replies = base.clone();
        replies.iter_mut().take(bad).for_each(change);
        code_of(&replies)
    };
    let empty = |r: &mut ReplyText<'_>| r.text = " \n\t";
    let cut = |r: &mut ReplyText<'_>| r.cut = true;
    let same = |r: &mut ReplyText<'_>| r.text = "As an assistant I agree.";
    assert_eq!(with(2, &empty), None);
    assert_eq!(with(3, &empty), Some(RejectionCode::EmptyReplies));
    assert_eq!(with(20, &cut), None);
    assert_eq!(with(21, &cut), Some(RejectionCode::NeverStops));
    assert_eq!(with(5, &same), None);
    assert_eq!(with(6, &same), Some(RejectionCode::DegenerateReplies));
    let looping: Vec<String> = (0..100).map(|i| format!("{i} {loops}")).collect();
    let mut replies = base.clone();
    (0..5).for_each(|i| replies[i] = reply(&looping[i]));
    assert_eq!(code_of(&replies), None);
    replies[5] = reply(&looping[5]);
    assert_eq!(code_of(&replies), Some(RejectionCode::DegenerateReplies));
}

#[test]
fn a_run_that_repeats_over_half_the_text_is_degenerate() {
    let gram = "one two three four five six seven eight";
    let tail = "a b c d e f g h i j k l m n o";
    assert!(is_degenerate(&format!("{gram} {gram} {tail}")));
    // 16 of 32 words are covered: not more than half.
    assert!(!is_degenerate(&format!("{gram} {gram} {tail} p")));
    assert!(!is_degenerate(gram));
    assert!(is_degenerate(&"ha ".repeat(40)));
    assert!(!is_degenerate(""));
    GOOD.iter().for_each(|t| assert!(!is_degenerate(t)));
}

proptest! {
    #[test]
    fn any_text_is_counted(texts in prop::collection::vec("[\\PC ]{0,80}", 0..20)) {
        let replies: Vec<_> = texts.iter().map(|t| reply(t)).collect();
        let counts = count_bad(&replies);
        prop_assert!(counts.identical <= counts.replies);
        let _ = check(&counts, &Gates::default());
    }
}

#[test]
fn assistants_voice_and_no_text_are_seen_and_characters_are_not() {
    for text in [
        "I'm sorry, but I can’t assist with that.",
        "As an AI, I have no feelings.",
        "*smiles* As a language model, I must decline.",
    ] {
        assert!(refuses(text), "{text}");
    }
    for text in ["I can't, not tonight.", "I cannot follow you there.", ""] {
        assert!(!refuses(text), "{text}");
    }
    for text in ["▓▓▓▓ hm ▓▓", "48151623 42 and 108", "..."] {
        assert!(is_no_text(text), "{text}");
    }
    for text in [
        "*nods* \"Hm… no.\"",
        "Room 7. Come at 8!",
        "Да, конечно.",
        "",
    ] {
        assert!(!is_no_text(text), "{text}");
    }
}

#[test]
fn verdicts_have_gates_too() {
    let gates = Gates::default();
    let code = |addressing_judge, coherent| {
        let counts = JudgedCounts {
            items: 512,
            addressing_judge,
            coherent,
        };
        check_judged(&counts, &gates).err().map(|r| r.code)
    };
    assert_eq!(code(10, 200.0), None);
    assert_eq!(code(11, 200.0), Some(RejectionCode::JudgeHacking));
    assert_eq!(code(0, 150.0), None);
    assert_eq!(code(0, 130.0), Some(RejectionCode::Incoherent));
    assert_eq!(check_judged(&JudgedCounts::default(), &gates), Ok(()));
}
