//! Tokens that arrive one by one, as text: for the terminal, and for texts that end a generation.

use backbones::lm::LmTokenizer;

/// The text of one generation as it grows.
pub struct Growing<'a> {
    tokenizer: &'a LmTokenizer,
    stop: &'a [String],
    tokens: Vec<u32>,
    shown: usize,
}

/// What the last token brought.
#[derive(Debug, PartialEq)]
pub struct Piece {
    /// Text that is certain now and was not before.
    pub fresh: String,
    /// True if a stop text ended the generation.
    pub stopped: bool,
}

impl<'a> Growing<'a> {
    /// Nothing yet.
    pub fn new(tokenizer: &'a LmTokenizer, stop: &'a [String]) -> Self {
        Self {
            tokenizer,
            stop,
            tokens: Vec::new(),
            shown: 0,
        }
    }

    /// Adds a token.
    ///
    /// # Errors
    /// What the tokenizer says.
    pub fn push(&mut self, token: u32) -> Result<Piece, String> {
        self.tokens.push(token);
        let text = self.tokenizer.decode(&self.tokens, true)?;
        if let Some(at) = first_stop(&text, self.stop) {
            let fresh = self.show(&text, at);
            return Ok(Piece { fresh, stopped: true });
        }
        // Bytes in a row are one text or none: one more can still make replacement characters of them all.
        let open = self
            .tokens
            .iter()
            .rev()
            .take_while(|id| self.tokenizer.is_byte(**id))
            .count();
        let text = match open {
            0 => text,
            open => self.tokenizer.decode(&self.tokens[..self.tokens.len() - open], true)?,
        };
        let end = certain(&text, self.stop);
        Ok(Piece {
            fresh: self.show(&text, end),
            stopped: false,
        })
    }

    /// The end: what was held back.
    ///
    /// # Errors
    /// What the tokenizer says.
    pub fn finish(&mut self) -> Result<String, String> {
        let text = self.tokenizer.decode(&self.tokens, true)?;
        let end = first_stop(&text, self.stop).unwrap_or(text.len());
        Ok(self.show(&text, end))
    }

    fn show(&mut self, text: &str, end: usize) -> String {
        let fresh = text.get(self.shown..end).unwrap_or_default().to_string();
        self.shown = self.shown.max(end);
        fresh
    }
}

/// Text of tokens up to the first stop text.
///
/// # Errors
/// What the tokenizer says.
pub fn cut(tokenizer: &LmTokenizer, tokens: &[u32], stop: &[String]) -> Result<String, String> {
    let mut text = tokenizer.decode(tokens, true)?;
    if let Some(at) = first_stop(&text, stop) {
        text.truncate(at);
    }
    Ok(text)
}

fn first_stop(text: &str, stop: &[String]) -> Option<usize> {
    stop.iter().filter_map(|stop| text.find(stop)).min()
}

/// Bytes of `text` that no later token can change: not an unfinished character, not the beginning of a stop text.
fn certain(text: &str, stop: &[String]) -> usize {
    let whole = text.trim_end_matches('\u{fffd}').len();
    let begins = |at: &usize| stop.iter().any(|stop| stop.starts_with(&text[*at..whole]));
    let starts = text[..whole].char_indices().map(|(at, _)| at);
    starts.into_iter().find(begins).unwrap_or(whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_still_change_is_held_back() {
        let stop = ["END".to_string(), "\n\n".to_string()];
        assert_eq!(certain("text E", &stop), 5);
        assert_eq!(certain("text EX", &stop), 7);
        assert_eq!(certain("text\n", &stop), 4);
        assert_eq!(certain("é\u{fffd}", &stop), 2);
        assert_eq!(first_stop("a END b\n\n", &stop), Some(2));
        assert_eq!(first_stop("a EN", &stop), None);
    }

    #[test]
    fn what_is_shown_of_single_bytes_is_what_the_whole_text_has() {
        let dir = tempfile::tempdir().unwrap();
        let fixtures = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../crates/backbones/tests/fixtures/chat/tokenizers"
        );
        std::fs::copy(format!("{fixtures}/prepend.json"), dir.path().join("tokenizer.json")).unwrap();
        let tokenizer = LmTokenizer::load(dir.path()).unwrap();
        let smile = ["<0xF0>", "<0x9F>", "<0x99>", "<0x82>"];
        for (tokens, shown) in [
            ([&smile[..], &["c", "▁cat"][..]].concat(), "🙂c cat"),
            // One byte more makes replacement characters of them all.
            ([&smile[..], &["<0xE9>", "c", "at"][..]].concat(), "�����cat"),
            ([&["c"][..], &smile[..3]].concat(), "c���"),
        ] {
            let ids: Vec<u32> = tokens.iter().map(|token| tokenizer.token_id(token).unwrap()).collect();
            let mut growing = Growing::new(&tokenizer, &[]);
            let mut text = String::new();
            for id in &ids {
                text += &growing.push(*id).unwrap().fresh;
            }
            text += &growing.finish().unwrap();
            assert_eq!(
                (text.as_str(), cut(&tokenizer, &ids, &[]).unwrap().as_str()),
                (shown, shown)
            );
        }
    }
}
