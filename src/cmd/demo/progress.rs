//! What a person sees while the demo runs: a line for each step, or log lines with `--plain`.

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// The display; clones share it.
#[derive(Debug, Clone)]
pub(super) struct Display(Option<Bars>);

#[derive(Debug, Clone)]
struct Bars {
    all: MultiProgress,
    head: ProgressBar,
    lines: Arc<Mutex<BTreeMap<String, ProgressBar>>>,
}

impl Display {
    /// Bars on standard error, or log lines when `plain`.
    pub(super) fn new(plain: bool) -> Self {
        if plain {
            return Self(None);
        }
        let all = MultiProgress::new();
        let head = all.add(ProgressBar::new_spinner());
        head.set_style(style("{spinner} {msg} {elapsed:.dim}"));
        head.enable_steady_tick(Duration::from_millis(120));
        Self(Some(Bars {
            all,
            head,
            lines: Arc::default(),
        }))
    }

    /// A step that stays on the screen.
    pub(super) fn say(&self, text: &str) {
        match &self.0 {
            None => tracing::info!("{text}"),
            // Without a terminal there is nobody to tell.
            Some(bars) => drop(bars.all.println(text)),
        }
    }

    /// What is going on now.
    pub(super) fn detail(&self, text: &str) {
        match &self.0 {
            None => tracing::debug!("{text}"),
            Some(bars) => bars
                .head
                .set_message(text.chars().take(100).collect::<String>()),
        }
    }

    /// The line of one subject, such as a model; replaced by each later text.
    pub(super) fn line(&self, subject: &str, text: &str, done: bool) {
        let Some(bars) = &self.0 else {
            tracing::info!(subject, "{text}");
            return;
        };
        let mut lines = bars.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let bar = lines.entry(subject.to_owned()).or_insert_with(|| {
            let bar = bars.all.add(ProgressBar::new_spinner());
            bar.set_style(style("  {spinner} {prefix:<24} {msg}"));
            bar.set_prefix(subject.to_owned());
            bar.enable_steady_tick(Duration::from_millis(200));
            bar
        });
        if done {
            bar.set_style(style("  ● {prefix:<24} {msg}"));
            bar.finish_with_message(text.to_owned());
        } else {
            bar.set_message(text.to_owned());
        }
    }

    /// Lets `print` write to standard output without being drawn over.
    pub(super) fn beside<T>(&self, print: impl FnOnce() -> T) -> T {
        match &self.0 {
            None => print(),
            Some(bars) => bars.all.suspend(print),
        }
    }

    /// Leaves the last state on the screen.
    pub(super) fn finish(&self) {
        if let Some(bars) = &self.0 {
            bars.head.finish_and_clear();
        }
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner())
}
