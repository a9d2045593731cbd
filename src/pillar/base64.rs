//! `!!binary`: base64 as Python's `base64.decodebytes` reads it, and the other way round.

use super::Dialect;

/// The bytes a text stands for; nothing if it does not come out even. Characters that are no
/// base64 are skipped, as Python does.
pub(super) fn decode(dialect: Dialect, text: &str) -> Option<Vec<u8>> {
    if !text.is_ascii() {
        return None;
    }
    // salt/utils/yamlloader.py, construct_yaml_binary: pads by the length of the text, line breaks counted.
    let missing = match (dialect, text.len() % 4) {
        (Dialect::Salt, over) if over > 0 => 4 - over,
        _ => 0,
    };
    let mut out = Vec::with_capacity(text.len() / 4 * 3 + 3);
    let (mut place, mut rest, mut pads) = (0, 0_u8, 0);
    for byte in text.bytes().chain(std::iter::repeat_n(b'=', missing)) {
        if byte == b'=' {
            if place >= 2 {
                pads += 1;
                if place + pads >= 4 {
                    return Some(out);
                }
            }
            continue;
        }
        let Some(value) = value(byte) else { continue };
        pads = 0;
        match place {
            0 => {}
            1 => out.push(rest << 2 | value >> 4),
            2 => out.push(rest << 4 | value >> 2),
            _ => out.push(rest << 6 | value),
        }
        rest = value;
        place = (place + 1) % 4;
    }
    (place == 0).then_some(out)
}

fn value(byte: u8) -> Option<u8> {
    match byte {
        b'A'..=b'Z' => Some(byte - b'A'),
        b'a'..=b'z' => Some(byte - b'a' + 26),
        b'0'..=b'9' => Some(byte - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    }
}

const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// The text that stands for `bytes`.
pub(super) fn encode(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let byte = |at: usize| u32::from(chunk.get(at).copied().unwrap_or(0));
        let group = byte(0) << 16 | byte(1) << 8 | byte(2);
        for at in 0..4 {
            let letter = LETTERS[(group >> (18 - 6 * at) & 63) as usize];
            out.push(if at > chunk.len() { '=' } else { char::from(letter) });
        }
    }
    out
}
