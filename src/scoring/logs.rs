//! Makes hostile output safe to store and show.

/// Longest line kept, in bytes.
pub const LINE_MAX: usize = 2048;
/// Most bytes kept in all.
pub const TEXT_MAX: usize = 64 * 1024;

/// The text without escape sequences, control, zero-width and direction-changing characters; lines
/// cut at [`LINE_MAX`], all cut to the last [`TEXT_MAX`] bytes. Whole lines where it can.
#[must_use]
pub fn clean(bytes: &[u8]) -> String {
    // The raw text may be mostly escapes, so a little more than needed is looked at, never all.
    let start = bytes.len().saturating_sub(4 * TEXT_MAX);
    let text = String::from_utf8_lossy(&bytes[start..]);
    let mut lines = Vec::new();
    let mut left = TEXT_MAX;
    for line in text.lines().rev() {
        let line = cut(plain(line), LINE_MAX);
        if line.len() + 1 > left {
            break;
        }
        left -= line.len() + 1;
        lines.push(line);
    }
    lines.reverse();
    lines.join("\n")
}

/// Whether a character may hide, reorder or erase what stands around it. Tabs count as blanks.
#[must_use]
pub fn is_deceptive(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}'
            | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}'
            | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}')
}

fn plain(line: &str) -> String {
    let mut out = String::with_capacity(line.len());
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\u{1b}' => skip_escape(&mut chars),
            '\u{9b}' => skip_until(&mut chars, |c| ('@'..='~').contains(&c)),
            '\t' => out.push(' '),
            c if is_deceptive(c) => {}
            c => out.push(c),
        }
    }
    out
}

/// After ESC: a CSI sequence ends at a byte of `@`–`~`, a string (OSC, DCS, PM, APC) at BEL or `ESC \`,
/// anything else is one character long.
fn skip_escape(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) {
    match chars.next() {
        Some('[') => skip_until(chars, |c| ('@'..='~').contains(&c)),
        Some(']' | 'P' | '^' | '_' | 'X') => {
            skip_until(chars, |c| c == '\u{7}' || c == '\u{1b}');
            chars.next_if_eq(&'\\');
        }
        _ => {}
    }
}

fn skip_until(
    chars: &mut std::iter::Peekable<std::str::Chars<'_>>,
    mut is_end: impl FnMut(char) -> bool,
) {
    for c in chars.by_ref() {
        if is_end(c) {
            return;
        }
    }
}

/// Cuts at a character's edge.
#[must_use]
pub fn cut(mut text: String, max: usize) -> String {
    if text.len() > max {
        text.truncate(text.floor_char_boundary(max));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_and_hidden_characters_go() {
        for (raw, kept) in [
            ("plain line", "plain line"),
            ("\u{1b}[31mred\u{1b}[0m", "red"),
            ("\u{1b}]0;title\u{7}after", "after"),
            ("\u{1b}]8;;http://x\u{1b}\\link", "link"),
            ("\u{1b}Pdcs\u{1b}\\x", "x"),
            ("\u{9b}2Jx", "x"),
            ("a\u{1b}", "a"),
            ("a\tb\u{8}\u{7}\u{0}c", "a bc"),
            ("a\u{202e}b\u{200b}c\u{2066}d\u{feff}", "abcd"),
            ("over\rwritten", "overwritten"),
            ("tag\u{e0041}\u{e0042}", "tag"),
            ("one\ntwo\r\nthree", "one\ntwo\nthree"),
        ] {
            assert_eq!(clean(raw.as_bytes()), kept, "{raw:?}");
        }
        assert_eq!(clean(b"a\xff\xfeb"), "a\u{fffd}\u{fffd}b");
    }

    #[test]
    fn everything_is_bounded() {
        let long = clean("é".repeat(5000).as_bytes());
        assert!(long.len() <= LINE_MAX && long.chars().all(|c| c == 'é'));
        let mut flood: Vec<u8> = (0..200_000)
            .flat_map(|i| format!("{i}\n").into_bytes())
            .collect();
        let kept = clean(&flood);
        assert!(kept.len() <= TEXT_MAX && kept.ends_with("199999"));
        flood.clear();
        assert_eq!(clean(&flood), "");
    }
}
