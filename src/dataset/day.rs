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

impl Day {
    /// The day that holds this moment, unix milliseconds. Howard Hinnant's `civil_from_days`.
    /// Moments after the year 9999 give its last day.
    #[must_use]
    pub fn from_unix_ms(ms: u64) -> Self {
        // Days since 0000-03-01, in eras of 400 years.
        let shifted = ms / 86_400_000 + 719_468;
        let (era, of_era) = (shifted / 146_097, shifted % 146_097);
        let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
        let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let march_month = (5 * of_year + 2) / 153;
        let day = of_year - (153 * march_month + 2) / 5 + 1;
        let month = if march_month < 10 {
            march_month + 3
        } else {
            march_month - 9
        };
        let year = era * 400 + year_of_era + u64::from(month <= 2);
        let last = Self {
            year: 9999,
            month: 12,
            day: 31,
        };
        match (u16::try_from(year), u8::try_from(month), u8::try_from(day)) {
            (Ok(year), Ok(month), Ok(day)) if year <= 9999 => Self { year, month, day },
            _ => last,
        }
    }

    /// The number YYYYMMDD.
    #[must_use]
    pub fn to_number(self) -> u32 {
        u32::from(self.year) * 10_000 + u32::from(self.month) * 100 + u32::from(self.day)
    }

    /// Reads the number YYYYMMDD; `None` when it names no day.
    #[must_use]
    pub fn from_number(number: u32) -> Option<Self> {
        let (year, month, day) = (number / 10_000, number / 100 % 100, number % 100);
        format!("{year:04}-{month:02}-{day:02}").parse().ok()
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
    fn moments_and_numbers_give_days() {
        // date -u -d @SECONDS +%F
        for (seconds, expected) in [
            (0, "1970-01-01"),
            (951_782_399, "2000-02-28"),
            (951_782_400, "2000-02-29"),
            (1_764_115_199, "2025-11-25"),
            (4_107_542_400, "2100-03-01"),
        ] {
            let day = Day::from_unix_ms(seconds * 1000 + 999);
            assert_eq!(day.to_string(), expected);
            assert_eq!(Day::from_number(day.to_number()), Some(day));
        }
        assert_eq!(Day::from_unix_ms(u64::MAX).to_string(), "9999-12-31");
        assert_eq!(Day::from_number(20_260_230), None);
        assert_eq!(Day::from_number(u32::MAX), None);
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
