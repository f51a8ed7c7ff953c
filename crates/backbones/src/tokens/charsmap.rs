//! The table of the normalizer "Precompiled": base64 of the size of a trie (four bytes), the trie, and the texts that it
//! points to, each ending with a zero byte.

/// What may be said of a table before it is read.
pub(super) struct Charsmap {
    /// Bytes that the trie should have.
    pub announced: usize,
    /// Bytes that follow its size.
    pub there: usize,
    /// Bytes of the longest text.
    pub longest: usize,
}

impl Charsmap {
    /// None for what is no such table; its reader says why.
    pub fn read(base64: &str) -> Option<Self> {
        let bytes = decode(base64)?;
        let (size, rest) = bytes.split_first_chunk::<4>()?;
        let announced = u32::from_le_bytes(*size) as usize;
        let texts = rest.get(announced..).unwrap_or_default();
        Some(Self {
            announced,
            there: rest.len(),
            longest: texts.split(|byte| *byte == 0).map(<[u8]>::len).max().unwrap_or(0),
        })
    }
}

/// The bytes of base64.
fn decode(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| match byte {
        b'A'..=b'Z' => Some(byte - b'A'),
        b'a'..=b'z' => Some(byte - b'a' + 26),
        b'0'..=b'9' => Some(byte - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    };
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    for four in text.trim_end_matches('=').as_bytes().chunks(4) {
        let mut bits = 0_u32;
        for byte in four {
            bits = (bits << 6) | u32::from(digit(*byte)?);
        }
        let missing = 4 - four.len();
        bits <<= 6 * missing;
        bytes.extend_from_slice(&bits.to_be_bytes()[1..4 - missing]);
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_decoded() {
        for (text, bytes) in [
            ("", ""),
            ("YQ==", "a"),
            ("YWI=", "ab"),
            ("YWJj", "abc"),
            ("YWJjPz4/", "abc?>?"),
        ] {
            assert_eq!(decode(text).as_deref(), Some(bytes.as_bytes()), "{text}");
        }
        assert_eq!(decode("YQ=a"), None);
    }

    #[test]
    fn a_table_says_the_size_of_its_trie_and_its_longest_text() {
        // Four bytes of trie, then "abc", "a".
        let table = Charsmap::read("BAAAAAAAAABhYmMAYQA=").unwrap();
        assert_eq!((table.announced, table.there, table.longest), (4, 10, 3));
        assert!(Charsmap::read("AAA=").is_none());
    }
}
