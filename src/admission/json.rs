//! Bounds on JSON text before a parser sees it.

/// Deepest nesting of any JSON file of a model.
const DEPTH_MAX: usize = 16;

/// Refuses text that is longer than `bytes_max` or nested deeper than 16. Whether it is JSON at all
/// is left to the parser.
pub(super) fn bounded(json: &[u8], bytes_max: u64) -> Result<(), String> {
    if u64::try_from(json.len()).is_ok_and(|len| len > bytes_max) {
        return Err(format!("has {} bytes, more than {bytes_max}", json.len()));
    }
    let (mut depth, mut in_string, mut escaped) = (0usize, false, false);
    for byte in json {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'{' | b'[' if !in_string => depth += 1,
            b'}' | b']' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > DEPTH_MAX {
            return Err(format!("is nested deeper than {DEPTH_MAX}"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn length_and_depth_are_bounded() {
        let nested = |n: usize| format!("{}{}", "[".repeat(n), "]".repeat(n));
        assert!(bounded(nested(16).as_bytes(), 100).is_ok());
        assert!(bounded(nested(17).as_bytes(), 100).is_err());
        assert!(bounded(&[b' '; 101], 100).is_err());
    }

    #[test]
    fn brackets_in_strings_do_not_count() {
        let text = format!(r#"{{"a":"\"{}","b":"\\"}}"#, "[{".repeat(40));
        assert_eq!(bounded(text.as_bytes(), 1000), Ok(()));
        // The escaped quote does not end the string; this one does, and the rest counts.
        let text = format!(r#"{{"a":"\\"{}"#, "[".repeat(40));
        assert!(bounded(text.as_bytes(), 1000).is_err());
    }
}
