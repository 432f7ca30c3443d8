//! Any result.json is refused or reads the same after it was written; a MAC never fits by chance.
#![no_main]

use assay_protocol::JobResult;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(result) = serde_json::from_slice::<JobResult>(data) else {
        return;
    };
    let written = serde_json::to_vec(&result).expect("what was read can be written");
    let again: JobResult = serde_json::from_slice(&written).expect("what we write, we read");
    assert_eq!(again, result);
    let fits = result.check_mac().is_ok();
    if let Ok(sealed) = result.clone().seal() {
        assert!(sealed.check_mac().is_ok());
        assert_eq!(fits, sealed.mac.eq_ignore_ascii_case(&result.mac));
    }
});
