//! Plain facts about everyday things.

/// A kind of thing: its name with article, what all members have or do, its members.
#[derive(Debug, Clone, Copy)]
pub struct Kind {
    /// Name with article.
    pub name: &'static str,
    /// Continues a sentence that starts with a member.
    pub property: &'static str,
    /// The same as a question, after the member: "Does a robin …", "Can a robin …".
    pub question: [&'static str; 2],
    /// Members, without article.
    pub members: [&'static str; 12],
}

/// Kinds without common members or properties.
pub const KINDS: [Kind; 8] = [
    Kind {
        name: "a bird",
        property: "has feathers",
        question: ["does", "have feathers"],
        members: [
            "robin", "sparrow", "crow", "duck", "goose", "hawk", "dove", "gull", "raven", "swan", "wren", "finch",
        ],
    },
    Kind {
        name: "a fish",
        property: "has scales and fins",
        question: ["does", "have scales and fins"],
        members: [
            "trout", "salmon", "carp", "cod", "perch", "pike", "tuna", "herring", "sole", "bass", "minnow", "bream",
        ],
    },
    Kind {
        name: "an insect",
        property: "has six legs",
        question: ["does", "have six legs"],
        members: [
            "bee", "wasp", "beetle", "fly", "moth", "cricket", "flea", "gnat", "hornet", "locust", "midge", "termite",
        ],
    },
    Kind {
        name: "a mammal",
        property: "has fur",
        question: ["does", "have fur"],
        members: [
            "cow", "lion", "dog", "cat", "mouse", "rabbit", "fox", "wolf", "bear", "hare", "goat", "deer",
        ],
    },
    Kind {
        name: "a fruit",
        property: "is sweet to eat",
        question: ["is", "sweet to eat"],
        members: [
            "plum", "pear", "peach", "cherry", "grape", "melon", "mango", "fig", "date", "berry", "banana", "apple",
        ],
    },
    Kind {
        name: "a garment",
        property: "is worn on the body",
        question: ["is", "worn on the body"],
        members: [
            "coat", "shirt", "sock", "hat", "glove", "scarf", "dress", "skirt", "belt", "vest", "cap", "shoe",
        ],
    },
    Kind {
        name: "a vehicle",
        property: "carries people",
        question: ["does", "carry people"],
        members: [
            "bus", "car", "train", "boat", "ship", "truck", "van", "tram", "bike", "sled", "cart", "ferry",
        ],
    },
    Kind {
        name: "an instrument",
        property: "is played in a band",
        question: ["is", "played in a band"],
        members: [
            "piano", "violin", "flute", "drum", "harp", "trumpet", "guitar", "cello", "banjo", "tuba", "lute", "oboe",
        ],
    },
];

/// Members of each kind that the training questions may name; the test questions name the others.
pub const TRAINED: usize = 7;

/// An activity, and the thing for it; no other thing in the list serves the purpose.
pub const USES: [(&str, &str); 44] = [
    ("cut bread", "knife"),
    ("open a lock", "key"),
    ("sweep the floor", "broom"),
    ("write a letter", "pen"),
    ("stir soup", "spoon"),
    ("drive a nail", "hammer"),
    ("drink milk", "cup"),
    ("light a room", "lamp"),
    ("tell the time", "clock"),
    ("bake a cake", "oven"),
    ("keep food cold", "fridge"),
    ("stay dry in the rain", "umbrella"),
    ("dig a hole", "spade"),
    ("cut down a tree", "axe"),
    ("dry the dishes", "towel"),
    ("sew a button", "needle"),
    ("sleep at night", "bed"),
    ("reach a roof", "ladder"),
    ("take a picture", "camera"),
    ("wash the hair", "soap"),
    ("catch a butterfly", "net"),
    ("cool a room", "fan"),
    ("weigh flour", "scale"),
    ("find the length of a table", "ruler"),
    ("boil water", "kettle"),
    ("paint a fence", "roller"),
    ("hatch eggs", "nest"),
    ("hold papers", "folder"),
    ("hang a coat", "hook"),
    ("ring in a church", "bell"),
    ("carry a baby", "pram"),
    ("post a card", "stamp"),
    ("catch a mouse", "trap"),
    ("water a lawn", "hose"),
    ("hold roses", "vase"),
    ("turn a bolt", "wrench"),
    ("gather hay", "rake"),
    ("untangle the hair", "comb"),
    ("press a shirt", "iron"),
    ("find north", "compass"),
    ("stop a car", "brake"),
    ("row a boat", "oar"),
    ("sit at a table", "chair"),
    ("ride a horse", "saddle"),
];

/// This many uses, from the start of the list, are in the training questions; the others are in the test questions.
pub const TRAINED_USES: usize = 22;

/// Names of people.
pub const NAMES: [&str; 16] = [
    "Anna", "Ben", "Clara", "David", "Emma", "Felix", "Grace", "Henry", "Ida", "Jack", "Kate", "Leo", "Mary", "Noah",
    "Olga", "Paul",
];

/// Things to count.
pub const COUNTED: [&str; 16] = [
    "pens", "books", "coins", "cards", "shells", "stamps", "apples", "plums", "marbles", "buttons", "stones", "eggs",
    "cups", "balls", "flowers", "toys",
];

/// `noun` with its indefinite article.
pub fn with_article(noun: &str) -> String {
    let vowel = noun.starts_with(['a', 'e', 'i', 'o', 'u']);
    format!("{} {noun}", if vowel { "an" } else { "a" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_thing_is_of_one_kind_only() {
        let mut members: Vec<&str> = KINDS.iter().flat_map(|kind| kind.members).collect();
        let count = members.len();
        members.sort_unstable();
        members.dedup();
        assert_eq!(members.len(), count);
        assert_eq!(with_article("oak"), "an oak");
        assert_eq!(with_article("bee"), "a bee");
    }
}
