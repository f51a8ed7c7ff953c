//! Texts far longer than what is read of them. Tokens of a line of 50 MB take gigabytes, and all but the first few hundred
//! are dropped.

/// Ordinary text has 3 to 5 bytes per token.
const BYTES_PER_TOKEN: usize = 32;
/// Bytes of a text that is always read as a whole.
const SHORT: usize = 1 << 16;
/// Tokens beside the place where a text is cut that would be others in the whole text.
const MARGIN: usize = 64;

/// Which end of a text is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// Its first tokens.
    Beginning,
    /// Its last tokens.
    End,
}

/// The part of `text` to tokenize if `needed` tokens at one end are read: all of it, unless it is far longer. `count`: how
/// many tokens a part has.
///
/// # Errors
/// An error of `count`.
pub fn part_to_read<E>(
    text: &str,
    needed: usize,
    kept: Kept,
    count: impl Fn(&str) -> Result<usize, E>,
) -> Result<&str, E> {
    let enough = needed.saturating_add(MARGIN);
    let mut most = SHORT.max(enough.saturating_mul(BYTES_PER_TOKEN));
    while most < text.len() {
        let part = match kept {
            Kept::Beginning => &text[..text.floor_char_boundary(most)],
            Kept::End => &text[text.ceil_char_boundary(text.len() - most)..],
        };
        // A tokenizer may make one token of very much text.
        if count(part)? > enough {
            return Ok(part);
        }
        most = most.saturating_mul(2);
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_has_the_tokens_that_are_needed_or_is_the_whole_text() {
        let text = "äbc ".repeat(SHORT);
        let part = |needed: usize, kept: Kept, bytes: usize| {
            let count = |part: &str| Ok::<_, ()>(part.len() / bytes);
            part_to_read(&text, needed, kept, count).unwrap()
        };
        for needed in [1, 1000, 4000] {
            let (first, last) = (part(needed, Kept::Beginning, 5), part(needed, Kept::End, 5));
            assert!(text.starts_with(first) && text.ends_with(last));
            for part in [first, last] {
                assert!(part.len() / 5 > needed && part.len() < text.len() / 2, "{needed}");
            }
        }
        // Of few tokens, more and more is read.
        let wide = part(1000, Kept::Beginning, 200);
        assert!(wide.len() > 200_000 && wide.len() < text.len());
        assert_eq!(part(1, Kept::Beginning, 10_000), text);
        assert_eq!(part(11_000, Kept::End, 1), text);
        assert_eq!(part_to_read("äb", 0, Kept::End, |_| Err(())), Ok("äb"));
        assert_eq!(part_to_read(&text, 1, Kept::End, |_| Err("no")), Err("no"));
    }
}
