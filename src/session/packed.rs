//! How the parts of a checkpoint are kept small: small numbers in few bytes, texts of digits as numbers,
//! runs of zeros as their length.
//!
//! Stands below `checkpoint`; knows bytes and no rules.
//!
//! Invariant: whatever is packed comes out the same.

use serde::{Deserialize, Serialize};

/// Moves a time, if it is known.
pub fn shift(time_ms: &mut Option<i64>, by_ms: i64) {
    *time_ms = time_ms.map(|ms| ms.wrapping_add(by_ms));
}

/// Hex digits of a hash: what most keys and identities end with.
const HASH_DIGITS: usize = 32;
const PSEUDONYM: &str = "p-";

/// Numbers as bytes, seven bits each, least first; small ones take one.
#[derive(Debug, Default)]
pub struct Writer {
    pub bytes: Vec<u8>,
}

impl Writer {
    pub fn number(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.bytes.push(number as u8 | 0x80);
            number >>= 7;
        }
        self.bytes.push(number as u8);
    }

    /// Small whatever its sign.
    pub fn signed(&mut self, number: i64) {
        self.number((number << 1 ^ number >> 63) as u64);
    }
}

/// Reads what a `Writer` wrote; past the end everything is 0.
#[derive(Debug)]
pub struct Reader<'a> {
    pub rest: &'a [u8],
}

impl Reader<'_> {
    pub fn number(&mut self) -> u64 {
        let mut number = 0;
        let mut shift = 0;
        while let [byte, rest @ ..] = self.rest {
            self.rest = rest;
            number |= u64::from(byte & 0x7f) << shift;
            shift += 7;
            if byte & 0x80 == 0 || shift > 63 {
                break;
            }
        }
        number
    }

    pub fn signed(&mut self) -> i64 {
        let number = self.number();
        (number >> 1) as i64 ^ -((number & 1) as i64)
    }

    pub fn id(&mut self) -> u64 {
        let Some((id, rest)) = self.rest.split_first_chunk() else {
            return 0;
        };
        self.rest = rest;
        u64::from_be_bytes(*id)
    }
}

/// Numbers that are much alike, each as its difference to the one before.
pub mod differences {
    use serde::{Deserializer, Serializer};

    use super::*;

    pub fn serialize<S: Serializer, const N: usize>(numbers: &[i64; N], serializer: S) -> Result<S::Ok, S::Error> {
        let mut writer = Writer::default();
        let mut last = 0i64;
        for number in numbers {
            writer.signed(number.wrapping_sub(std::mem::replace(&mut last, *number)));
        }
        writer.bytes.serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>, const N: usize>(deserializer: D) -> Result<[i64; N], D::Error> {
        let bytes = Vec::<u8>::deserialize(deserializer)?;
        let mut reader = Reader { rest: &bytes };
        let mut last = 0i64;
        Ok(std::array::from_fn(|_| {
            last = last.wrapping_add(reader.signed());
            last
        }))
    }
}

/// A text, or none, of which 32 hex digits at its end are kept as 16 bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Text {
    None,
    Plain(String),
    Hash {
        before: String,
        digits: [u8; HASH_DIGITS / 2],
    },
    /// `p-` and digits, as `privacy` makes them.
    Pseudonym([u8; HASH_DIGITS / 2]),
}

impl Text {
    pub fn pack(text: Option<&str>) -> Text {
        let Some(text) = text else { return Text::None };
        match split_hash(text) {
            Some((PSEUDONYM, digits)) => Text::Pseudonym(digits),
            Some((before, digits)) => Text::Hash {
                before: before.to_owned(),
                digits,
            },
            None => Text::Plain(text.to_owned()),
        }
    }

    pub fn unpack(&self) -> Option<String> {
        match self {
            Text::None => None,
            Text::Plain(text) => Some(text.clone()),
            Text::Hash { before, digits } => Some(join_hash(before, digits)),
            Text::Pseudonym(digits) => Some(join_hash(PSEUDONYM, digits)),
        }
    }
}

/// A text as what stands before its last 32 digits, and those.
pub fn split_hash(text: &str) -> Option<(&str, [u8; HASH_DIGITS / 2])> {
    let at = text.len().checked_sub(HASH_DIGITS)?;
    let (before, digits) = text.split_at_checked(at)?;
    let mut bytes = [0; HASH_DIGITS / 2];
    for (byte, pair) in bytes.iter_mut().zip(digits.as_bytes().chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some((before, bytes))
}

pub fn join_hash(before: &str, digits: &[u8; HASH_DIGITS / 2]) -> String {
    const DIGITS: [char; 16] = ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f'];
    let mut text = String::with_capacity(before.len() + HASH_DIGITS);
    text.push_str(before);
    for byte in digits {
        text.push(DIGITS[usize::from(byte >> 4)]);
        text.push(DIGITS[usize::from(byte & 15)]);
    }
    text
}

/// Lower case only: a text must come out as it went in.
fn digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    }
}

/// Appends `bytes` with every run of zeros as one zero and its length: most of a row is zero or unknown.
pub fn squeeze(bytes: &[u8], out: &mut Vec<u8>) {
    let mut rest = bytes;
    while let [first, ..] = rest {
        if *first != 0 {
            out.push(*first);
            rest = &rest[1..];
            continue;
        }
        let zeros = rest.iter().take(usize::from(u8::MAX)).take_while(|byte| **byte == 0).count();
        out.extend([0, zeros as u8]);
        rest = &rest[zeros..];
    }
}

/// Undoes `squeeze`.
pub fn unsqueeze(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(2 * bytes.len());
    let mut bytes = bytes.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            0 => out.extend(std::iter::repeat_n(0, usize::from(bytes.next().copied().unwrap_or(1)))),
            _ => out.push(*byte),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeros_are_squeezed_and_come_back() {
        let check = |bytes: &[u8], squeezed_bytes: usize| {
            let mut out = Vec::new();
            squeeze(bytes, &mut out);
            assert_eq!((out.len(), unsqueeze(&out)), (squeezed_bytes, bytes.to_vec()));
        };
        check(&[], 0);
        check(&[1, 2, 3], 3);
        check(&[0], 2);
        check(&[0, 0, 0, 7, 0, 0], 5);
        check(&[0; 255], 2);
        check(&[0; 256], 4);
        check(&[&[9][..], &[0; 700], &[9]].concat(), 8);
    }

    #[test]
    fn texts_come_back_as_they_were() {
        let hash = "0123456789abcdef0123456789abcdef";
        for text in [
            "",
            "viewer-7",
            hash,
            &format!("p-{hash}"),
            &hash.to_uppercase(),
            &format!("é{}", &hash[1..]),
            &format!("ü{hash}"),
        ] {
            assert_eq!(Text::pack(Some(text)).unpack().as_deref(), Some(text));
        }
        assert_eq!(Text::pack(None).unpack(), None);
        assert!(matches!(Text::pack(Some(hash)), Text::Hash { .. }));
    }

    #[test]
    fn numbers_come_back() {
        let numbers = [0, 1, 63, 64, 127, 128, 1_588_752_000_000, i64::MAX];
        let mut writer = Writer::default();
        for number in numbers {
            writer.number(number as u64);
            writer.signed(number);
            writer.signed(-number);
        }
        writer.signed(i64::MIN);
        let mut reader = Reader { rest: &writer.bytes };
        for number in numbers {
            assert_eq!(
                (reader.number(), reader.signed(), reader.signed()),
                (number as u64, number, -number)
            );
        }
        assert_eq!((reader.signed(), reader.rest.len(), reader.number()), (i64::MIN, 0, 0));
    }
}
