//! Lines of bounded length from a reader.

use std::io::{self, BufRead, Read};

/// One line as it was read.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// A whole line, without its end.
    Whole,
    /// The last line, without an end: possibly torn by a crash.
    Unended,
    /// Longer than the bound; passed over to its end.
    TooLong,
}

/// Reads the next line into `buffer`, at most `most` bytes of it; `None` at the end.
pub(super) fn next_line(
    reader: &mut impl BufRead,
    buffer: &mut Vec<u8>,
    most: usize,
) -> io::Result<Option<Line>> {
    buffer.clear();
    let bound = u64::try_from(most).unwrap_or(u64::MAX).saturating_add(1);
    let read = reader.by_ref().take(bound).read_until(b'\n', buffer)?;
    if read == 0 {
        return Ok(None);
    }
    if buffer.pop_if(|last| *last == b'\n').is_some() {
        return Ok(Some(Line::Whole));
    }
    if buffer.len() <= most {
        return Ok(Some(Line::Unended));
    }
    loop {
        buffer.clear();
        let read = reader.by_ref().take(bound).read_until(b'\n', buffer)?;
        if read == 0 || buffer.last() == Some(&b'\n') {
            buffer.clear();
            return Ok(Some(Line::TooLong));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lines_are_passed_over_and_a_torn_end_is_told() {
        let text = format!("ab\n{}\nlong\nabcd\nxy", "z".repeat(40));
        let mut reader = io::BufReader::with_capacity(3, text.as_bytes());
        let mut buffer = Vec::new();
        let mut seen = Vec::new();
        while let Some(line) = next_line(&mut reader, &mut buffer, 4).unwrap() {
            seen.push((line, String::from_utf8(buffer.clone()).unwrap()));
        }
        let expected = [
            (Line::Whole, "ab"),
            (Line::TooLong, ""),
            (Line::Whole, "long"),
            (Line::Whole, "abcd"),
            (Line::Unended, "xy"),
        ];
        assert_eq!(seen, expected.map(|(line, text)| (line, text.to_owned())));
    }
}
