//! Any tokenizer.json ends in facts or a rejection, within the time that admission allows.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rules::admission::check_tokenizer;
use rules::incentive::Template;

fuzz_target!(|data: &[u8]| {
    if let Ok(facts) = check_tokenizer(data, 512, Template::ChatMl) {
        assert!(facts.template_end_id.is_none_or(|id| id < 512));
    }
});
