use super::*;
use crate::bittensor::CommitmentField;
use proptest::prelude::*;

const REVISION: &str = "abababababababababababababababababababab";

fn commitment(text: &str) -> Commitment {
    Commitment {
        hotkey: Hotkey([7; 32]),
        block: BlockNumber(90),
        fields: vec![CommitmentField::Raw(text.as_bytes().to_vec())],
    }
}

fn code(text: &str) -> RejectionCode {
    parse(&commitment(text)).unwrap_err().code
}

#[test]
fn our_text_parses_and_formats_back() {
    let text = format!("2:org/model-b:{REVISION}:chatml:d1");
    let submission = parse(&commitment(&text)).unwrap();
    assert_eq!(submission.model.repo.to_string(), "org/model-b");
    assert_eq!(submission.template, Template::ChatMl);
    assert_eq!(submission.block, BlockNumber(90));
    let revision = submission.model.revision.unwrap();
    let back = format(
        &submission.model.repo,
        &revision,
        submission.template,
        &submission.competition,
    );
    assert_eq!(back, Ok(text));
}

#[test]
fn the_origins_hash_is_computed_as_documented() {
    // python3: int(hashlib.sha256(b"org model-a chatml 5C62…").hexdigest()[:16], 16)
    let repo = RepoId::new("org", "model-a").unwrap();
    let hotkey = Hotkey([7; 32]);
    assert_eq!(hotkey.to_string(), ORIGIN_HOTKEY);
    assert_eq!(origin_hash(&repo, "chatml", &hotkey), ORIGIN_HASH);
    let text = format!("org:model-a:chatml:{hotkey}:{ORIGIN_HASH}:d1");
    let submission = parse(&commitment(&text)).unwrap();
    assert_eq!(submission.model.revision, None);
    assert_eq!(submission.competition.as_str(), "d1");
    let d1 = submission.competition;
    assert_eq!(format_origin(&repo, Template::ChatMl, &hotkey, &d1), text);
}
const ORIGIN_HOTKEY: &str = "5CDvHBym6RLoxTdX9MS1acpaDbNxaFagqM5LpBiFGjWT6o1n";
const ORIGIN_HASH: u64 = 17_688_402_178_470_907_772;

#[test]
fn each_violation_has_its_code() {
    let me = Hotkey([7; 32]);
    let other = Hotkey([8; 32]);
    let table = [
        (String::from("hello"), RejectionCode::CommitmentMalformed),
        (
            format!("3:a/b:{REVISION}:chatml:d1"),
            RejectionCode::CommitmentMalformed,
        ),
        (
            "2:a/b:main:chatml:d1".into(),
            RejectionCode::CommitmentMalformed,
        ),
        (
            format!("2:a/../b:{REVISION}:chatml:d1"),
            RejectionCode::CommitmentMalformed,
        ),
        (
            format!("2:a/b:{REVISION}:chatml:"),
            RejectionCode::CommitmentMalformed,
        ),
        (
            format!("2:a/b:{REVISION}:chatml:d1\n"),
            RejectionCode::CommitmentMalformed,
        ),
        (
            format!("2:a/b:{REVISION}:evil:d1"),
            RejectionCode::TemplateUnknown,
        ),
        (
            format!("2:{}/b:{REVISION}:chatml:d1", "n".repeat(80)),
            RejectionCode::CommitmentMalformed,
        ),
        (
            format!("a:b:chatml:{other}:1:d1"),
            RejectionCode::HotkeyMismatch,
        ),
        (
            format!("a:b:chatml:{me}:1:d1"),
            RejectionCode::CommitmentHash,
        ),
        (
            format!("a:b:{}:{me}:1:d1", "x".repeat(600)),
            RejectionCode::CommitmentMalformed,
        ),
    ];
    for (text, want) in table {
        assert_eq!(code(&text), want, "{text:?}");
    }
}

#[test]
fn an_unreadable_commitment_is_said_so() {
    let mut bytes = commitment("x");
    bytes.fields = vec![CommitmentField::Raw(vec![0xff, 0xfe])];
    let rejection = parse(&bytes).unwrap_err();
    assert_eq!(rejection.code, RejectionCode::CommitmentUnreadable);
    assert_eq!(rejection.detail, "The commitment is not UTF-8 text.");
}

proptest! {
    #[test]
    fn any_bytes_end_in_a_value(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        let mut any = commitment("x");
        any.fields = vec![CommitmentField::Raw(bytes)];
        let _ = parse(&any);
    }

    #[test]
    fn near_misses_end_in_a_value(
        parts in prop::collection::vec("2|a/b|a|chatml|d1|[0-9a-f]{40}|[\\PC]{0,9}|\\.\\./x", 0..8),
    ) {
        let text = parts.join(":");
        if let Ok(submission) = parse(&commitment(&text)) {
            prop_assert!(!submission.model.repo.to_string().contains(".."));
        }
    }

    #[test]
    fn what_formats_parses_back(
        namespace in "[a-z0-9]{1,10}", name in "[a-zA-Z0-9_.]{0,8}[a-z]", rev in "[0-9a-f]{40}",
        template in prop::sample::select(Template::ALL), competition in "[a-z0-9_-]{1,12}",
    ) {
        let Ok(repo) = RepoId::new(&namespace, &name) else { return Ok(()); };
        let revision: Revision = rev.parse().unwrap();
        let competition: CompetitionId = competition.parse().unwrap();
        let text = format(&repo, &revision, template, &competition).unwrap();
        let parsed = parse(&commitment(&text)).unwrap();
        prop_assert_eq!(parsed.model.repo, repo);
        prop_assert_eq!(parsed.model.revision, Some(revision));
        prop_assert_eq!(parsed.template, template);
        prop_assert_eq!(parsed.competition, competition);
    }
}
