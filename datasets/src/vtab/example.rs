//! `tf.train.Example`, the message in which TFDS stores a record; declared here and decoded by prost.

use std::collections::HashMap;

use prost::Message;

/// The message.
#[derive(Clone, PartialEq, Message)]
pub struct Example {
    /// The features.
    #[prost(message, optional, tag = "1")]
    pub features: Option<Features>,
}

/// Features by name; features of a list of objects are named `objects/…`.
#[derive(Clone, PartialEq, Message)]
pub struct Features {
    /// By name.
    #[prost(map = "string, message", tag = "1")]
    pub feature: HashMap<String, Feature>,
}

/// The values of one feature.
#[derive(Clone, PartialEq, Message)]
pub struct Feature {
    /// One of three kinds.
    #[prost(oneof = "Kind", tags = "1, 2, 3")]
    pub kind: Option<Kind>,
}

/// The three kinds.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Kind {
    /// Strings and images.
    #[prost(message, tag = "1")]
    Bytes(BytesList),
    /// Floats.
    #[prost(message, tag = "2")]
    Floats(FloatList),
    /// Whole numbers.
    #[prost(message, tag = "3")]
    Ints(IntList),
}

/// Strings and images.
#[derive(Clone, PartialEq, Message)]
pub struct BytesList {
    /// The values.
    #[prost(bytes = "vec", repeated, tag = "1")]
    pub value: Vec<Vec<u8>>,
}

/// Floats.
#[derive(Clone, PartialEq, Message)]
pub struct FloatList {
    /// The values.
    #[prost(float, repeated, tag = "1")]
    pub value: Vec<f32>,
}

/// Whole numbers.
#[derive(Clone, PartialEq, Message)]
pub struct IntList {
    /// The values.
    #[prost(int64, repeated, tag = "1")]
    pub value: Vec<i64>,
}

impl Example {
    /// The message in `bytes`.
    ///
    /// # Errors
    /// Bytes that are not such a message.
    pub fn read(bytes: &[u8]) -> Result<Self, String> {
        Self::decode(bytes).map_err(|e| format!("it is no tf.train.Example ({e})"))
    }

    /// The values of feature `name`; `None` if it exists without a value, which is how the writer stores an empty list.
    fn kind(&self, name: &str) -> Result<Option<&Kind>, String> {
        let features = self.features.as_ref().map(|features| &features.feature);
        let found = features.and_then(|features| features.get(name));
        found.map(|feature| feature.kind.as_ref()).ok_or_else(|| {
            let mut names: Vec<&str> = features.into_iter().flatten().map(|(name, _)| name.as_str()).collect();
            names.sort_unstable();
            format!("there is no feature '{name}' in it; there are: {}", names.join(", "))
        })
    }

    /// The single string or image in feature `name`.
    ///
    /// # Errors
    /// A feature that is missing or of another kind.
    pub fn bytes(&self, name: &str) -> Result<&[u8], String> {
        match self.kind(name)? {
            Some(Kind::Bytes(list)) if list.value.len() == 1 => Ok(&list.value[0]),
            _ => Err(format!("feature '{name}' is not one byte string")),
        }
    }

    /// The single integer in feature `name`.
    ///
    /// # Errors
    /// A feature that is missing or of another kind.
    pub fn int(&self, name: &str) -> Result<i64, String> {
        match self.ints(name)? {
            [value] => Ok(*value),
            values => Err(format!("feature '{name}' has {} values, expected one", values.len())),
        }
    }

    /// The whole numbers of feature `name`.
    ///
    /// # Errors
    /// A feature that is missing or of another kind.
    pub fn ints(&self, name: &str) -> Result<&[i64], String> {
        match self.kind(name)? {
            Some(Kind::Ints(list)) => Ok(&list.value),
            None => Ok(&[]),
            _ => Err(format!("feature '{name}' holds no whole numbers")),
        }
    }

    /// The floats of feature `name`.
    ///
    /// # Errors
    /// A feature that is missing or of another kind.
    pub fn floats(&self, name: &str) -> Result<&[f32], String> {
        match self.kind(name)? {
            Some(Kind::Floats(list)) => Ok(&list.value),
            None => Ok(&[]),
            _ => Err(format!("feature '{name}' holds no floats")),
        }
    }
}
