//! Turns tokens that arrive one by one into text, for the terminal and to detect stop texts.

use backbones::lm::LmTokenizer;

/// The text of one generation as it grows.
pub struct Growing<'a> {
    tokenizer: &'a LmTokenizer,
    stop: &'a [String],
    tokens: Vec<u32>,
    shown: usize,
}

/// The effect of the last token.
#[derive(Debug, PartialEq)]
pub struct Piece {
    /// Text that has become final.
    pub fresh: String,
    /// True if a stop text ended the generation.
    pub stopped: bool,
}

impl<'a> Growing<'a> {
    /// An empty text.
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
    /// An error of the tokenizer.
    pub fn push(&mut self, token: u32) -> Result<Piece, String> {
        self.tokens.push(token);
        let text = self.tokenizer.decode(&self.tokens, true)?;
        if let Some(at) = first_stop(&text, self.stop) {
            let fresh = self.show(&text, at);
            return Ok(Piece { fresh, stopped: true });
        }
        // Consecutive byte tokens form text only together: another byte can still turn all of them into replacement
        // characters.
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

    /// Ends the text and returns what was held back.
    ///
    /// # Errors
    /// An error of the tokenizer.
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
/// An error of the tokenizer.
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

/// Number of bytes of `text` that no later token can change, without an unfinished character or the start of a stop
/// text.
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
            // One more byte turns all of them into replacement characters.
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
