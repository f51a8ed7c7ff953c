//! What tokenizer.json does with a text, as far as its cost can be told before the tokenizers library reads the file.

use std::fmt;

use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use super::charsmap::Charsmap;
use super::pattern;

/// Bytes of all regular expressions at most: what one is compiled to is a thousand times as large.
const LONGEST_PATTERNS: usize = 10_000;
/// Times of their counted repetitions, all together.
const MOST_COPIES: usize = 1000;
/// Bytes of an entry of the vocabulary. The tree of Unigram is as deep, and its end is recursive.
const LONGEST_PIECE: usize = 1000;
/// Bytes of a token that is added to the vocabulary: the library would work on longer ones for minutes.
pub(super) const LONGEST_TOKEN: usize = 1 << 12;
/// Bytes of what marks the pieces inside a word: it is copied for every piece that is looked up.
const LONGEST_MARK: usize = 100;
/// Characters of a word: WordPiece looks up each part of it.
const LONGEST_WORD: f64 = 1000.0;
/// Times by which a text may be lengthened without limits.
const MOST_GROWTH: f64 = 16.0;
/// Bytes of a text in a table of characters that count as usual: one character becomes 33 in Unicode's NFKC.
const USUAL_ENTRY: f64 = 64.0;
/// Special tokens that a template may add without limits.
const MOST_ADDED: usize = 1000;

/// The fields of tokenizer.json that cost time or memory.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Steps {
    normalizer: Value,
    pre_tokenizer: Value,
    post_processor: Value,
    decoder: Value,
    model: Model,
    added_tokens: Longest,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Model {
    dropout: Value,
    max_input_chars_per_word: Value,
    continuing_subword_prefix: Longest,
    end_of_word_suffix: Longest,
    vocab: Longest,
}

impl Steps {
    /// Checks what no tokenizer in use has and what is dear or fatal to read.
    ///
    /// # Errors
    /// The field, what was found, what to do.
    pub fn check(&self) -> Result<(), String> {
        self.model.check()?;
        if self.added_tokens.0 > LONGEST_TOKEN {
            let bytes = self.added_tokens.0;
            return Err(format!(
                "field 'added_tokens' has a text of {bytes} bytes; expected at most {LONGEST_TOKEN}"
            ));
        }
        let patterns = self.patterns();
        let bytes: usize = patterns.iter().map(|pattern| pattern.len()).sum();
        if bytes > LONGEST_PATTERNS {
            return Err(format!(
                "it has regular expressions of {bytes} bytes; expected at most {LONGEST_PATTERNS}"
            ));
        }
        let copies = patterns.iter().map(|pattern| pattern::copies(pattern));
        let copies = copies.fold(0, usize::saturating_add);
        if copies > MOST_COPIES {
            return Err(format!(
                "its regular expressions repeat something {copies} times in all; expected at most {MOST_COPIES}"
            ));
        }
        match self.charsmaps().iter().find(|map| map.announced > map.there) {
            None => Ok(()),
            Some(map) => Err(format!(
                "field 'precompiled_charsmap' of the normalizer announces {} bytes and has {}; fetch the file again",
                map.announced, map.there
            )),
        }
    }

    /// True if no text takes much more time or memory than its length gives reason for.
    pub fn are_harmless(&self) -> bool {
        self.patterns().iter().all(|pattern| pattern::is_harmless(pattern)) && self.growth() <= MOST_GROWTH
    }

    /// The regular expressions.
    pub fn patterns(&self) -> Vec<&str> {
        let mut found = Vec::new();
        let steps = [
            &self.normalizer,
            &self.pre_tokenizer,
            &self.post_processor,
            &self.decoder,
        ];
        visit(&steps, &mut |object| {
            found.extend(object.get("Regex").and_then(Value::as_str));
        });
        found
    }

    fn charsmaps(&self) -> Vec<Charsmap> {
        let mut found = Vec::new();
        visit(&[&self.normalizer], &mut |object| {
            let map = object.get("precompiled_charsmap").and_then(Value::as_str);
            found.extend(map.and_then(Charsmap::read));
        });
        found
    }

    /// Times by which all steps together may lengthen a text or its tokens.
    fn growth(&self) -> f64 {
        let (mut before, mut after, mut decoded) = (1.0, 1.0, 1.0);
        visit(&[&self.normalizer, &self.pre_tokenizer], &mut |object| {
            before *= replacement(object) * insertion(object);
        });
        visit(&[&self.post_processor], &mut |object| after *= template(object));
        visit(&[&self.decoder], &mut |object| {
            decoded *= replacement(object) * separation(object);
        });
        let tables = self.charsmaps();
        let tables = tables.iter().map(|map| map.longest as f64).enumerate();
        // A table applied once makes of a character what some standard says; one after another, they may double a text each.
        let tables = tables.map(|(place, longest)| if place == 0 { longest / USUAL_ENTRY } else { longest });
        before *= tables.map(|times| times.max(1.0)).product::<f64>();
        f64::max(before * after, decoded)
    }
}

impl Model {
    fn check(&self) -> Result<(), String> {
        if let Some(dropout) = self.dropout.as_f64().filter(|dropout| *dropout != 0.0) {
            return Err(format!(
                "field 'model.dropout' is {dropout}, which makes the tokens of a text random; set it to null"
            ));
        }
        if self
            .max_input_chars_per_word
            .as_f64()
            .is_some_and(|most| most > LONGEST_WORD)
        {
            return Err(format!(
                "field 'model.max_input_chars_per_word' is {}; expected at most {LONGEST_WORD}, usual is 100",
                self.max_input_chars_per_word
            ));
        }
        let lengths = [
            (
                "continuing_subword_prefix",
                &self.continuing_subword_prefix,
                LONGEST_MARK,
            ),
            ("end_of_word_suffix", &self.end_of_word_suffix, LONGEST_MARK),
            ("vocab", &self.vocab, LONGEST_PIECE),
        ];
        match lengths.iter().find(|(_, found, most)| found.0 > *most) {
            None => Ok(()),
            Some((field, found, most)) => Err(format!(
                "field 'model.{field}' has a text of {} bytes; expected at most {most}",
                found.0
            )),
        }
    }
}

/// Bytes of the longest text in some JSON, which is not kept: a vocabulary has hundred thousands.
#[derive(Debug, Default)]
pub(super) struct Longest(pub usize);

impl<'de> Deserialize<'de> for Longest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Self(0))
    }
}

impl<'de> Visitor<'de> for Longest {
    type Value = Self;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("JSON")
    }

    fn visit_str<E>(self, text: &str) -> Result<Self, E> {
        Ok(Self(text.len()))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_unit<E>(self) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<Self, A::Error> {
        while let Some((Self(key), Self(value))) = map.next_entry()? {
            self.0 = self.0.max(key).max(value);
        }
        Ok(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut items: A) -> Result<Self, A::Error> {
        while let Some(Self(item)) = items.next_element()? {
            self.0 = self.0.max(item);
        }
        Ok(self)
    }
}

/// Looks at every object of `steps`.
fn visit<'a>(steps: &[&'a Value], look: &mut impl FnMut(&'a Map<String, Value>)) {
    for step in steps {
        match *step {
            Value::Object(fields) => {
                look(fields);
                let inside: Vec<&Value> = fields.values().collect();
                visit(&inside, look);
            }
            Value::Array(items) => {
                let inside: Vec<&Value> = items.iter().collect();
                visit(&inside, look);
            }
            _ => {}
        }
    }
}

fn characters(object: &Map<String, Value>, field: &str) -> Option<usize> {
    object.get(field)?.as_str().map(|text| text.chars().count())
}

/// Times by which "Replace" may lengthen a text.
fn replacement(object: &Map<String, Value>) -> f64 {
    let (Some(content), Some(pattern)) = (characters(object, "content"), object.get("pattern")) else {
        return 1.0;
    };
    // A regular expression may match a single character, or nothing between two; so does an empty text.
    let replaced = pattern.get("String").and_then(Value::as_str);
    let replaced = replaced.map_or(0, |text| text.chars().count());
    let between = f64::from(u8::from(replaced == 0));
    (content as f64 / replaced.max(1) as f64 + between).max(1.0)
}

/// Times by which the other normalizers and pre-tokenizers may lengthen a text, which may be a single character.
fn insertion(object: &Map<String, Value>) -> f64 {
    if let Some(prepended) = characters(object, "prepend") {
        return 1.0 + prepended as f64;
    }
    match object.get("type").and_then(Value::as_str) {
        // Each byte above 0x7f becomes a character of two bytes.
        Some("ByteLevel") if object.get("add_prefix_space") == Some(&Value::Bool(true)) => 4.0,
        Some("ByteLevel" | "Metaspace") => 2.0,
        _ => 1.0,
    }
}

/// Times by which the other decoders may lengthen a text: a space takes the place of a mark, which may be empty.
fn separation(object: &Map<String, Value>) -> f64 {
    let marks = ["suffix", "word_delimiter_token"];
    match marks.iter().any(|mark| characters(object, mark) == Some(0)) {
        true => 3.0,
        false => 1.0,
    }
}

/// Times by which "TemplateProcessing" repeats the tokens of a text, or what it adds to them if that is much.
fn template(object: &Map<String, Value>) -> f64 {
    let ids = |token: &Value| {
        let token = object.get("special_tokens")?.get(token.get("id")?.as_str()?)?;
        token.get("ids")?.as_array().map(Vec::len)
    };
    let times = |field: &str, texts: usize| {
        let pieces = object.get(field).and_then(Value::as_array);
        let pieces = pieces.map_or(&[][..], Vec::as_slice);
        let repeated = pieces.iter().filter(|piece| piece.get("Sequence").is_some()).count();
        let tokens = pieces.iter().filter_map(|piece| piece.get("SpecialToken"));
        let added = tokens.filter_map(ids).fold(0, usize::saturating_add);
        let added = if added > MOST_ADDED { added } else { 1 };
        repeated.div_ceil(texts).max(1) as f64 * added as f64
    };
    f64::max(times("single", 1), times("pair", 2))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn steps(json: Value) -> Steps {
        serde_json::from_value(json).unwrap()
    }

    fn refused(json: Value, parts: &[&str]) {
        let message = steps(json).check().unwrap_err();
        assert!(parts.iter().all(|part| message.contains(part)), "{message}");
    }

    #[test]
    fn what_lengthens_a_text_multiplies() {
        let double = json!({"type": "Replace", "pattern": {"String": "a"}, "content": "aa"});
        let space = json!({"type": "Replace", "pattern": {"String": " "}, "content": "▁"});
        let of = |list: Vec<Value>| {
            let normalizer = json!({"type": "Sequence", "normalizers": list});
            steps(json!({"normalizer": normalizer})).growth()
        };
        assert_eq!(of(vec![space.clone(), space]), 1.0);
        assert_eq!(of(vec![double; 10]), 1024.0);
        let empty = json!({"pattern": {"Regex": "x*"}, "content": "ab"});
        assert_eq!(of(vec![empty]), 3.0);
        let empty = json!({"pattern": {"String": ""}, "content": "ab"});
        assert_eq!(of(vec![empty]), 3.0);
        assert_eq!(of(vec![json!({"type": "Prepend", "prepend": "▁▁"}); 2]), 9.0);
        assert_eq!(of(vec![json!({"type": "ByteLevel"}); 24]), f64::from(1 << 24));
        // Four bytes of trie, then a text of three bytes.
        let table = json!({"type": "Precompiled", "precompiled_charsmap": "BAAAAAAAAABhYmMAYQA="});
        assert_eq!(of(vec![table.clone()]), 1.0);
        assert_eq!(of(vec![table; 3]), 9.0);
    }

    #[test]
    fn tokenizers_in_use_are_harmless_and_longer_and_longer_texts_are_not() {
        let byte_level =
            json!({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true});
        let metaspace = json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true});
        let sequence = |list: Vec<Value>| json!({"type": "Sequence", "pretokenizers": list});
        let piece = |kind: &str, id: &str| json!({kind: {"id": id, "type_id": 0}});
        let template = |middle: Vec<Value>, ids: usize| {
            let single = [vec![piece("SpecialToken", "[CLS]")], middle].concat();
            let pair = [single.clone(), vec![piece("Sequence", "B")]].concat();
            json!({"type": "TemplateProcessing", "single": single, "pair": pair,
                "special_tokens": {"[CLS]": {"id": "[CLS]", "ids": vec![1; ids], "tokens": vec!["[CLS]"; ids]}}})
        };
        let text = piece("Sequence", "A");
        for harmless in [
            json!({"pre_tokenizer": byte_level, "decoder": byte_level, "post_processor": byte_level}),
            json!({"normalizer": {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "},
                "pre_tokenizer": sequence(vec![json!({"type": "WhitespaceSplit"}), metaspace.clone()]), "decoder": metaspace}),
            json!({"post_processor": template(vec![text.clone()], 1)}),
        ] {
            assert!(steps(harmless.clone()).are_harmless(), "{harmless}");
        }
        for exploding in [
            json!({"pre_tokenizer": sequence(vec![byte_level; 3])}),
            json!({"pre_tokenizer": sequence(vec![metaspace; 5])}),
            json!({"decoder": {"type": "Sequence", "decoders": vec![json!({"type": "BPEDecoder", "suffix": ""}); 3]}}),
            json!({"post_processor": template(vec![text.clone(); 17], 1)}),
            json!({"post_processor": template(vec![text], 1001)}),
        ] {
            assert!(!steps(exploding.clone()).are_harmless(), "{exploding}");
        }
    }

    #[test]
    fn what_no_tokenizer_has_is_refused_by_its_name() {
        let model = |field: &str, value: Value| json!({"model": {field: value}});
        refused(model("dropout", json!(0.3)), &["'model.dropout' is 0.3", "null"]);
        refused(
            model("max_input_chars_per_word", json!(1_000_000_000_000_000_000_u64)),
            &["'model.max_input_chars_per_word' is 1000000000000000000"],
        );
        let long = "#".repeat(1001);
        for field in ["continuing_subword_prefix", "end_of_word_suffix"] {
            refused(model(field, json!(long)), &[field, "1001 bytes", "at most 100"]);
        }
        refused(
            model("vocab", json!({"a": 0, long.clone(): 1})),
            &["'model.vocab'", "1001"],
        );
        refused(
            model("vocab", json!([["a", 0.0], [long, -1.0]])),
            &["'model.vocab'", "1001"],
        );
        let split = |pattern: String| json!({"pre_tokenizer": {"type": "Split", "pattern": {"Regex": pattern}}});
        refused(split("a".repeat(10_001)), &["regular expressions of 10001 bytes"]);
        refused(split(r"(?=\w{150})".repeat(7)), &["1050 times"]);
        // A trie of 0xfffffff0 bytes.
        let table = json!({"type": "Precompiled", "precompiled_charsmap": "8P///wAA"});
        refused(
            json!({"normalizer": table}),
            &["precompiled_charsmap", "announces 4294967280 bytes and has 2"],
        );

        let usual = json!({"model": {"type": "BPE", "dropout": null, "max_input_chars_per_word": 100,
            "continuing_subword_prefix": "##", "end_of_word_suffix": null, "vocab": {"a": 0, "##a": 1}, "merges": []}});
        assert_eq!(steps(usual).check(), Ok(()));
    }
}
