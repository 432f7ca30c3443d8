//! Any commitment ends in a submission whose names are plain, or in a bounded rejection.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rules::bittensor::{BlockNumber, Commitment, CommitmentField, Hotkey};
use rules::incentive::{RepoId, submission};

fuzz_target!(|data: &[u8]| {
    let commitment = Commitment {
        hotkey: Hotkey([7; 32]),
        block: BlockNumber(1),
        fields: vec![CommitmentField::Raw(data.to_vec())],
    };
    match submission::parse(&commitment) {
        Ok(submission) => {
            let repo = submission.model.repo.to_string();
            assert_eq!(repo.parse::<RepoId>().as_ref(), Ok(&submission.model.repo));
            assert!(!repo.contains("..") && repo.matches('/').count() == 1);
            assert!(repo.bytes().all(|b| b.is_ascii_graphic()));
        }
        Err(rejection) => {
            assert!(rejection.detail.chars().count() <= 300);
            assert!(!rejection.detail.chars().any(char::is_control));
        }
    }
});
