//! Lengths of time, kept in milliseconds and written in seconds.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::input::DurationInput;

/// A length of time in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Duration {
    /// Milliseconds.
    pub milliseconds: u64,
}

/// The longest that is accepted: a day. Longer waits are mistyped units.
pub(crate) const MAX_MILLISECONDS: u64 = 86_400_000;

impl Duration {
    /// So many seconds; more than can be counted is the most that can.
    pub const fn seconds(seconds: u64) -> Self {
        Self { milliseconds: seconds.saturating_mul(1000) }
    }

    /// Whole seconds, rounded up: what a shell can count.
    pub fn whole_seconds(self) -> u64 {
        self.milliseconds.div_ceil(1000)
    }

    /// Reads a number of seconds or a text with a unit; the error says what is expected.
    pub fn parse(input: &DurationInput) -> Result<Self, String> {
        let milliseconds = match input {
            // The schema keeps the number within a day, so rounding it to milliseconds is exact enough.
            DurationInput::Seconds(seconds) => (seconds * 1000.0).round() as u64,
            DurationInput::Text(text) => {
                let digits = text.trim_end_matches(|c: char| c.is_ascii_lowercase());
                let factor = match &text[digits.len()..] {
                    "ms" => 1,
                    "" | "s" => 1000,
                    "m" => 60_000,
                    "h" => 3_600_000,
                    _ => return Err(EXPECTED.to_owned()),
                };
                digits.parse::<u64>().map_err(|_| EXPECTED.to_owned())?.saturating_mul(factor)
            }
        };
        if milliseconds > MAX_MILLISECONDS {
            return Err("the time is longer than a day".to_owned());
        }
        Ok(Self { milliseconds })
    }
}

const EXPECTED: &str = "expected a number of seconds or a text such as \"30s\", \"2m\" or \"500ms\"";

impl Serialize for Duration {
    /// As seconds: a whole number if it is one.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.milliseconds.is_multiple_of(1000) {
            serializer.serialize_u64(self.milliseconds / 1000)
        } else {
            serializer.serialize_f64(self.milliseconds as f64 / 1000.0)
        }
    }
}

impl<'de> Deserialize<'de> for Duration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let seconds = f64::deserialize(deserializer)?;
        if !(0.0..=86_400.0).contains(&seconds) {
            return Err(serde::de::Error::custom(EXPECTED));
        }
        Ok(Self { milliseconds: (seconds * 1000.0).round() as u64 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_units() {
        for (text, milliseconds) in
            [("30s", 30_000), ("2m", 120_000), ("500ms", 500), ("1h", 3_600_000), ("7", 7000)]
        {
            assert_eq!(
                Duration::parse(&DurationInput::Text(text.into())).unwrap().milliseconds,
                milliseconds
            );
        }
        assert_eq!(Duration::parse(&DurationInput::Seconds(0.25)).unwrap().milliseconds, 250);
        assert!(Duration::parse(&DurationInput::Text("25h".into())).unwrap_err().contains("day"));
    }
}
