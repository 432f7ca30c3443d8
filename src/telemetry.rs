//! Logs: what is written, where to, in which form.
//!
//! Messages are readable alone, fields are queryable, a failure is logged once, where it is
//! handled. Text from outside (paths, commitments, replies, server answers) is logged as a field
//! with `?`, which escapes control characters; [`Escaped`] keeps those out that still slip through.

use std::io::{self, Write};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

/// Form of the log on standard error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum LogFormat {
    /// One readable line each.
    #[default]
    Plain,
    /// One JSON object each.
    Json,
}

/// What is logged when neither a flag nor `ASSAY_LOG` says otherwise.
pub const DEFAULT_FILTER: &str =
    "info,hyper=warn,reqwest=warn,subxt=warn,jsonrpsee=warn,hf_hub=off";

/// The filter or the global subscriber was refused.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// Not a filter such as `info,assay::chain=debug`.
    #[error("log filter {0:?} is not understood; write it like \"info,assay::chain=debug\"")]
    Filter(String),
    /// A subscriber is installed already.
    #[error("logging was set up twice; this is a bug")]
    Twice,
}

/// Installs logging for the whole process, on standard error, so that standard output carries
/// results alone. `filter` is in the syntax of `tracing_subscriber::EnvFilter`.
///
/// # Errors
/// [`TelemetryError`] when the filter is malformed or logging is installed already.
pub fn install(format: LogFormat, filter: Option<&str>) -> Result<(), TelemetryError> {
    let text = filter.unwrap_or(DEFAULT_FILTER);
    let filter = EnvFilter::try_new(text).map_err(|_| TelemetryError::Filter(text.to_owned()))?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(false)
        .with_writer(Escaped);
    let done = match format {
        LogFormat::Plain => builder.try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    done.map_err(|_| TelemetryError::Twice)
}

/// Standard error behind a filter that replaces control characters other than the line's own end,
/// and the marks that reorder text: a log line cannot forge another or drive a terminal.
#[derive(Debug, Clone, Copy)]
pub struct Escaped;

impl<'a> MakeWriter<'a> for Escaped {
    type Writer = EscapedWriter;
    fn make_writer(&'a self) -> Self::Writer {
        EscapedWriter
    }
}

/// Writes each line in one call, cleaned.
#[derive(Debug)]
pub struct EscapedWriter;

impl Write for EscapedWriter {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        io::stderr().lock().write_all(clean(line).as_bytes())?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

/// Whether `c` can move, hide or reorder other text: control characters and the bidirectional
/// and invisible formatting marks of Unicode.
#[must_use]
pub fn is_deceptive(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{061c}' | '\u{feff}' | '\u{e0000}'..='\u{e007f}')
}

fn clean(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    let body = text.strip_suffix('\n').unwrap_or(&text);
    let mut clean = String::with_capacity(text.len());
    for c in body.chars() {
        if is_deceptive(c) {
            clean.extend(c.escape_unicode());
        } else {
            clean.push(c);
        }
    }
    if body.len() < text.len() {
        clean.push('\n');
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_cannot_forge_another_or_drive_a_terminal() {
        let hostile = "repo a\u{1b}[2J\nINFO all is well\u{202e}\n";
        let shown = clean(hostile.as_bytes());
        assert_eq!(shown, "repo a\\u{1b}[2J\\u{a}INFO all is well\\u{202e}\n");
        assert_eq!(clean("größer 模型\n".as_bytes()), "größer 模型\n");
    }

    #[test]
    fn a_malformed_filter_is_refused() {
        let refused = install(LogFormat::Plain, Some("assay=loudest"));
        assert!(matches!(refused, Err(TelemetryError::Filter(_))));
    }
}
