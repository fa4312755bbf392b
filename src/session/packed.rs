//! How the parts of a checkpoint are kept small: small numbers in few bytes, texts of digits as numbers,
//! zeros as a bit.
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
/// Bytes whose zeros one byte tells.
const GROUP_BYTES: usize = 8;

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

/// Appends `bytes` without their zeros, which most of a row is: of every eight first a byte whose bits
/// say which are not zero. The zeros of a last group that is not full come out with it.
pub fn squeeze(bytes: &[u8], out: &mut Vec<u8>) {
    for group in bytes.chunks(GROUP_BYTES) {
        let at = out.len();
        out.push(0);
        let mut known = 0;
        for (bit, byte) in group.iter().enumerate().filter(|(_, byte)| **byte != 0) {
            known |= 1 << bit;
            out.push(*byte);
        }
        out[at] = known;
    }
}

/// Undoes `squeeze`, and fills the last group up with zeros.
pub fn unsqueeze(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(2 * bytes.len());
    let mut rest = bytes.iter();
    while let Some(known) = rest.next() {
        for bit in 0..GROUP_BYTES {
            let byte = if known >> bit & 1 == 1 { rest.next() } else { None };
            out.push(byte.copied().unwrap_or(0));
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
            let mut expected = bytes.to_vec();
            expected.resize(bytes.len().next_multiple_of(GROUP_BYTES), 0);
            assert_eq!((out.len(), unsqueeze(&out)), (squeezed_bytes, expected));
        };
        check(&[], 0);
        check(&[1, 2, 3], 4);
        check(&[0], 1);
        check(&[0, 0, 0, 7, 0, 0], 2);
        check(&[1, 2, 3, 4, 5, 6, 7, 8], 9);
        check(&[0; 256], 32);
        check(&[&[9][..], &[0; 700], &[9]].concat(), 90);
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
