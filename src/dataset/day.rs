//! A calendar day.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A day of the proleptic Gregorian calendar, UTC, years 1970 to 9999. Text form `YYYY-MM-DD`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Day {
    year: u16,
    month: u8,
    day: u8,
}

/// The text is no day.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a day; write it as YYYY-MM-DD")]
pub struct DayError;

fn days_in(year: u16, month: u8) -> u8 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400)) => {
            29
        }
        2 => 28,
        _ => 31,
    }
}

fn number<T: FromStr>(digits: &str) -> Result<T, DayError> {
    if !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(DayError);
    }
    digits.parse().map_err(|_| DayError)
}

impl FromStr for Day {
    type Err = DayError;

    /// Reads `YYYY-MM-DD`; a time after `T` or a blank is passed over.
    fn from_str(text: &str) -> Result<Self, DayError> {
        let date = text.split(['T', ' ']).next().unwrap_or_default();
        let mut parts = date.split('-');
        let (Some(year), Some(month), Some(day), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(DayError);
        };
        if (year.len(), month.len(), day.len()) != (4, 2, 2) {
            return Err(DayError);
        }
        let (year, month, day) = (number(year)?, number(month)?, number(day)?);
        let sound = (1970..=9999).contains(&year)
            && (1..=12).contains(&month)
            && (1..=days_in(year, month)).contains(&day);
        sound.then_some(Self { year, month, day }).ok_or(DayError)
    }
}

impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}-{:02}-{:02}", self.year, self.month, self.day)
    }
}

impl Serialize for Day {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Day {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_parse_order_and_print() {
        let day: Day = "2026-02-28".parse().unwrap();
        assert_eq!(day.to_string(), "2026-02-28");
        assert_eq!("2026-02-28T23:59:59Z".parse(), Ok(day));
        assert_eq!("2026-02-28 10:00".parse(), Ok(day));
        assert!(day < "2026-10-01".parse().unwrap());
        assert!("2024-02-29".parse::<Day>().is_ok());
    }

    #[test]
    fn what_is_no_day_is_refused() {
        for text in [
            "",
            "2026",
            "2026-2-3",
            "2026-13-01",
            "2026-02-29",
            "1900-01-01",
            "2026-01-00",
            "../2026-01-01",
            "+026-01-01",
            "2026-01-01-01",
            "２０２６-01-01",
        ] {
            assert_eq!(text.parse::<Day>(), Err(DayError), "{text}");
        }
    }
}
