//! Leaves out log lines that repeat: what is said a thousand times a second is not read, and what
//! stands between is not found.

use std::{
    collections::HashMap,
    fmt,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use tracing::{Event, Level, Subscriber, callsite::Identifier};
use tracing_subscriber::{
    fmt::{
        FmtContext, FormatEvent, FormatFields,
        format::{Format, Full, Json, Writer},
    },
    registry::LookupSpan,
};

/// Lines of one place in the code within [`WINDOW`]; further ones are counted.
const LINES_MAX: u64 = 20;
/// How long lines are counted before the place may speak again.
const WINDOW: Duration = Duration::from_secs(60);

/// Writes lines as `F` does, those at INFO and above at most [`LINES_MAX`] times a [`WINDOW`] for
/// each place in the code; whoever asked for DEBUG wants all of them.
pub struct Throttled<F> {
    format: F,
    // One entry for each place in the code that has spoken: as many as there are in the program.
    places: Mutex<HashMap<Identifier, Place>>,
}

impl<F> Throttled<F> {
    /// Nothing was said yet.
    pub fn new(format: F) -> Throttled<F> {
        Throttled { format, places: Mutex::default() }
    }

    fn may_say(&self, event: &Event<'_>) -> Option<Aside> {
        if *event.metadata().level() > Level::INFO {
            return Some(Aside::None);
        }
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        places.entry(event.metadata().callsite()).or_default().may_say(Instant::now())
    }
}

/// What is to be said behind a line, of others like it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Aside {
    /// Nothing.
    None,
    /// So many were left out before it.
    WereLeftOut(u64),
    /// It is the last for now.
    WillBeLeftOut,
}

/// A format that can say which lines are left out.
pub trait LeftOut {
    /// Writes a line of its own, if there is anything to say.
    fn aside(&self, writer: Writer<'_>, aside: Aside) -> fmt::Result;
}

impl LeftOut for Format<Full> {
    fn aside(&self, mut writer: Writer<'_>, aside: Aside) -> fmt::Result {
        match aside {
            Aside::None => Ok(()),
            Aside::WereLeftOut(count) => {
                writeln!(writer, "    ({count} more lines like this were left out before it)")
            }
            Aside::WillBeLeftOut => {
                writeln!(writer, "    (more lines like this are left out for up to a minute)")
            }
        }
    }
}

impl LeftOut for Format<Json> {
    fn aside(&self, mut writer: Writer<'_>, aside: Aside) -> fmt::Result {
        let (message, count) = match aside {
            Aside::None => return Ok(()),
            Aside::WereLeftOut(count) => {
                ("lines like the one before were left out before it", format!(",\"count\":{count}"))
            }
            Aside::WillBeLeftOut => {
                ("lines like the one before are left out for up to a minute", String::new())
            }
        };
        writeln!(writer, "{{\"level\":\"INFO\",\"message\":\"{message}\"{count}}}")
    }
}

impl<S, N, F> FormatEvent<S, N> for Throttled<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N> + LeftOut,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let Some(aside) = self.may_say(event) else { return Ok(()) };
        self.format.format_event(context, writer.by_ref(), event)?;
        self.format.aside(writer, aside)
    }
}

/// One place in the code that logs.
#[derive(Debug, Default)]
struct Place {
    began: Option<Instant>,
    said: u64,
    left_out: u64,
}

impl Place {
    /// What is to be said besides, where this line may be written.
    fn may_say(&mut self, now: Instant) -> Option<Aside> {
        let is_over = |began: Instant| now.saturating_duration_since(began) >= WINDOW;
        if self.began.is_none_or(is_over) {
            self.began = Some(now);
            self.said = 1;
            return Some(match std::mem::take(&mut self.left_out) {
                0 => Aside::None,
                count => Aside::WereLeftOut(count),
            });
        }
        if self.said < LINES_MAX {
            self.said += 1;
            let is_last = self.said == LINES_MAX;
            return Some(if is_last { Aside::WillBeLeftOut } else { Aside::None });
        }
        self.left_out += 1;
        None
    }
}

#[cfg(test)]
mod tests {
    use std::{io, sync::Arc};

    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    /// What was written.
    #[derive(Clone, Default)]
    struct Page(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Page {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("no panic").write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Page {
        fn lines(&self) -> Vec<String> {
            let bytes = self.0.lock().expect("no panic").clone();
            String::from_utf8(bytes).expect("text").lines().map(str::to_owned).collect()
        }
    }

    #[test]
    fn a_place_that_repeats_is_cut_and_others_are_not() {
        let page = Page::default();
        let writer = page.clone();
        let lines = tracing_subscriber::fmt::layer().with_writer(move || writer.clone());
        let lines = lines.event_format(Throttled::new(Format::default().with_ansi(false)));
        tracing::subscriber::with_default(tracing_subscriber::registry().with(lines), || {
            for number in 0..100 {
                tracing::warn!(number, "again");
                tracing::debug!("asked for");
            }
            tracing::warn!("else");
        });
        let lines = page.lines();
        let count = |word: &str| lines.iter().filter(|line| line.contains(word)).count();
        assert_eq!((count("again"), count("asked for"), count("else")), (20, 100, 1));
        let last = lines.iter().rposition(|line| line.contains("again")).expect("said");
        assert!(lines[last + 1].contains("are left out for up to a minute"), "{lines:?}");
    }

    #[test]
    fn what_was_left_out_is_told_when_the_window_is_over() {
        let (mut place, start) = (Place::default(), Instant::now());
        let first: Vec<_> = (0..25).map(|_| place.may_say(start)).collect();
        assert_eq!(first[..19], [Some(Aside::None); 19]);
        assert_eq!(first[19], Some(Aside::WillBeLeftOut));
        assert_eq!(first[20..], [None; 5]);
        assert_eq!(place.may_say(start + WINDOW - Duration::from_millis(1)), None);
        assert_eq!(place.may_say(start + WINDOW), Some(Aside::WereLeftOut(6)));
        assert_eq!(place.may_say(start + WINDOW), Some(Aside::None));
    }

    #[test]
    fn both_formats_say_it_in_a_line_of_their_own() {
        let plain = |aside| {
            let mut text = String::new();
            Format::default().aside(Writer::new(&mut text), aside).expect("room");
            text
        };
        let json = |aside| {
            let mut text = String::new();
            Format::default().json().aside(Writer::new(&mut text), aside).expect("room");
            text
        };
        assert_eq!((plain(Aside::None), json(Aside::None)), Default::default());
        let were = Aside::WereLeftOut(7);
        assert_eq!(plain(were), "    (7 more lines like this were left out before it)\n");
        assert!(json(were).starts_with('{') && json(were).ends_with("\"count\":7}\n"));
        let last = json(Aside::WillBeLeftOut);
        assert!(last.starts_with('{') && last.ends_with("for up to a minute\"}\n"), "{last}");
    }
}
