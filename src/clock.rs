//! The one door to wall time.

use std::time::{SystemTime, UNIX_EPOCH};

/// Unix time in milliseconds. Rules never call this: they take time as an argument.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this is the door")]
pub fn now_ms() -> u64 {
    let elapsed = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)
}
