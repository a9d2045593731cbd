//! Dates and times as Ansible reads them.

/// Digits taken off the front: at least `least`, at most `most`.
fn number(text: &str, least: usize, most: usize) -> Option<(u32, &str)> {
    let count = text.bytes().take(most).take_while(u8::is_ascii_digit).count();
    if count < least {
        return None;
    }
    Some((text[..count].parse().unwrap_or(0), &text[count..]))
}

fn blanks(text: &str) -> &str {
    text.trim_start_matches([' ', '\t'])
}

struct Timestamp<'a> {
    date: (u32, u32, u32),
    /// Hour, minute, second, the digits of a fraction, and the zone.
    time: Option<(u32, u32, u32, &'a str, Option<Zone>)>,
    /// Whether month and day have two digits each.
    padded: bool,
}

#[derive(Clone, Copy)]
struct Zone {
    negative: bool,
    minutes: u32,
}

/// PyYAML's `timestamp_regexp`, which `construct_yaml_timestamp` uses.
fn split(text: &str) -> Option<Timestamp<'_>> {
    let (year, rest) = number(text, 4, 4)?;
    let (month, rest_of_month) = number(rest.strip_prefix('-')?, 1, 2)?;
    let (day, rest) = number(rest_of_month.strip_prefix('-')?, 1, 2)?;
    let padded = text.len() - rest.len() == 10;
    let date = (year, month, day);
    if rest.is_empty() {
        return Some(Timestamp { date, time: None, padded });
    }
    let rest = match rest.strip_prefix(['T', 't']) {
        Some(rest) => rest,
        None if blanks(rest).len() < rest.len() => blanks(rest),
        None => return None,
    };
    let (hour, rest) = number(rest, 1, 2)?;
    let (minute, rest) = number(rest.strip_prefix(':')?, 2, 2)?;
    let (second, mut rest) = number(rest.strip_prefix(':')?, 2, 2)?;
    let mut fraction = "";
    if let Some(digits) = rest.strip_prefix('.') {
        let count = digits.bytes().take_while(u8::is_ascii_digit).count();
        (fraction, rest) = digits.split_at(count);
    }
    let zone = if rest.is_empty() { None } else { Some(zone(blanks(rest))?) };
    Some(Timestamp { date, time: Some((hour, minute, second, fraction, zone)), padded })
}

fn zone(text: &str) -> Option<Zone> {
    if text == "Z" {
        return Some(Zone { negative: false, minutes: 0 });
    }
    let negative = text.starts_with('-');
    let (hours, rest) = number(text.strip_prefix(['-', '+'])?, 1, 2)?;
    let minutes = match rest.strip_prefix(':') {
        Some(rest) => match number(rest, 2, 2)? {
            (minutes, "") => minutes,
            _ => return None,
        },
        None if rest.is_empty() => 0,
        None => return None,
    };
    Some(Zone { negative, minutes: hours * 60 + minutes })
}

/// PyYAML's pattern for `tag:yaml.org,2002:timestamp`: a date alone must have all its digits.
pub(super) fn is_timestamp(text: &str) -> bool {
    split(text).is_some_and(|timestamp| timestamp.time.is_some() || timestamp.padded)
}

/// What Python's `isoformat()` says of it; nothing if there is no such day or time.
pub(super) fn isoformat(text: &str) -> Option<String> {
    let text = text.strip_suffix('\n').unwrap_or(text);
    let Timestamp { date: (year, month, day), time, .. } = split(text)?;
    if year == 0 || day == 0 || day > days(year, month)? {
        return None;
    }
    let mut out = format!("{year:04}-{month:02}-{day:02}");
    let Some((hour, minute, second, fraction, zone)) = time else { return Some(out) };
    if hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    out.push_str(&format!("T{hour:02}:{minute:02}:{second:02}"));
    let fraction = &fraction[..fraction.len().min(6)];
    if fraction.bytes().any(|digit| digit != b'0') {
        out.push_str(&format!(".{fraction:0<6}"));
    }
    if let Some(Zone { negative, minutes }) = zone {
        if minutes >= 24 * 60 {
            return None;
        }
        let sign = if negative && minutes > 0 { '-' } else { '+' };
        out.push_str(&format!("{sign}{:02}:{:02}", minutes / 60, minutes % 60));
    }
    Some(out)
}

fn days(year: u32, month: u32) -> Option<u32> {
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => Some(31),
        4 | 6 | 9 | 11 => Some(30),
        2 => Some(if leap { 29 } else { 28 }),
        _ => None,
    }
}
