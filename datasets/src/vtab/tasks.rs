//! The 19 tasks: their sources, records and label rules. These are VTAB's definitions (arXiv 1910.04867) with the TFDS
//! versions and slices of WeGeFT's released code. Split sizes are those in TFDS's catalogue.

use std::ops::Range;

/// VTAB's three groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Group {
    /// Everyday photographs.
    Natural,
    /// Special cameras.
    Specialized,
    /// Questions about geometry.
    Structured,
}

impl Group {
    /// Lower-case name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Natural => "natural",
            Self::Specialized => "specialized",
            Self::Structured => "structured",
        }
    }
}

/// A range of records of one TFDS split, in stored order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// TFDS split.
    pub split: &'static str,
    /// Records; `None` is the whole split.
    pub records: Option<Range<usize>>,
}

/// How a record gets its label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Label {
    /// The value of an integer feature.
    Given(&'static str),
    /// Clevr: number of objects less 3.
    Objects,
    /// Clevr: bin of the least third pixel coordinate of an object.
    NearestObject,
    /// KITTI: bin of the z coordinate of the nearest car, van or truck.
    NearestVehicle,
    /// The value of an integer feature times the first number, divided by the second, rounded down.
    Scaled(&'static str, usize, usize),
}

/// A TFDS dataset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// TFDS name, including its config if it has one: the folder under the data root.
    pub name: &'static str,
    /// TFDS version, which determines the order and therefore the 1,000 images.
    pub version: &'static str,
    /// Splits with their number of records; several numbers if releases of the same version differ.
    pub splits: &'static [(&'static str, &'static [usize])],
}

/// One task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskInfo {
    /// Name, also of the folder in the layout with lists.
    pub name: &'static str,
    /// Group.
    pub group: Group,
    /// Number of classes.
    pub classes: usize,
    /// The TFDS dataset.
    pub source: Source,
    /// The 800 training images.
    pub train: Part,
    /// The 200 validation images.
    pub valid: Part,
    /// The test images.
    pub test: Part,
    /// Label rule.
    pub label: Label,
    /// Factor on the pixel values: masks of 0 and 1 become 0 and 255.
    pub gain: u8,
}

/// The task of that name.
pub fn info(name: &str) -> Option<&'static TaskInfo> {
    TASKS.iter().find(|task| task.name == name)
}

/// VTAB's group of a task; "other" for a task outside VTAB.
pub fn group(name: &str) -> &'static str {
    info(name).map_or("other", |task| task.group.name())
}

const fn part(split: &'static str, records: Range<usize>) -> Part {
    Part {
        split,
        records: Some(records),
    }
}

const fn whole(split: &'static str) -> Part {
    Part { split, records: None }
}

const TRAIN: Part = part("train", 0..800);
const VALIDATION: Part = part("validation", 0..200);
const LABEL: Label = Label::Given("label");

const CLEVR: Source = Source {
    name: "clevr",
    version: "3.1.0",
    splits: &[("train", &[70_000]), ("validation", &[15_000])],
};
const DSPRITES: Source = Source {
    name: "dsprites",
    version: "2.0.0",
    splits: &[("train", &[737_280])],
};
const SMALLNORB: Source = Source {
    name: "smallnorb",
    version: "2.0.0",
    splits: &[("train", &[24_300]), ("test", &[24_300])],
};

/// The tasks, in the order of the paper's table.
pub static TASKS: [TaskInfo; 19] = [
    TaskInfo {
        name: "cifar",
        group: Group::Natural,
        classes: 100,
        source: Source {
            name: "cifar100",
            version: "3.0.2",
            splits: &[("train", &[50_000]), ("test", &[10_000])],
        },
        train: TRAIN,
        valid: part("train", 45_000..45_200),
        test: whole("test"),
        label: LABEL,
        gain: 1,
    },
    TaskInfo {
        name: "caltech101",
        group: Group::Natural,
        classes: 102,
        source: Source {
            name: "caltech101",
            version: "3.0.1",
            splits: &[("train", &[3_059]), ("test", &[6_084, 6_085])],
        },
        train: TRAIN,
        valid: part("train", 2_753..2_953),
        test: whole("test"),
        label: LABEL,
        gain: 1,
    },
    TaskInfo {
        name: "dtd",
        group: Group::Natural,
        classes: 47,
        source: Source {
            name: "dtd",
            version: "3.0.1",
            splits: &[("train", &[1_880]), ("validation", &[1_880]), ("test", &[1_880])],
        },
        train: TRAIN,
        valid: VALIDATION,
        test: whole("test"),
        label: LABEL,
        gain: 1,
    },
    TaskInfo {
        name: "oxford_flowers102",
        group: Group::Natural,
        classes: 102,
        source: Source {
            name: "oxford_flowers102",
            version: "2.1.1",
            splits: &[("train", &[1_020]), ("validation", &[1_020]), ("test", &[6_149])],
        },
        train: TRAIN,
        valid: VALIDATION,
        test: whole("test"),
        label: LABEL,
        gain: 1,
    },
    TaskInfo {
        name: "oxford_iiit_pet",
        group: Group::Natural,
        classes: 37,
        source: Source {
            name: "oxford_iiit_pet",
            version: "3.2.0",
            splits: &[("train", &[3_680]), ("test", &[3_669])],
        },
        train: TRAIN,
        valid: part("train", 2_944..3_144),
        test: whole("test"),
        label: LABEL,
        gain: 1,
    },
    TaskInfo {
        name: "svhn",
        group: Group::Natural,
        classes: 10,
        source: Source {
            name: "svhn_cropped",
            version: "3.0.0",
            splits: &[("train", &[73_257]), ("test", &[26_032])],
        },
        train: TRAIN,
        valid: part("train", 65_931..66_131),
        test: whole("test"),
        label: LABEL,
        gain: 1,
    },
    TaskInfo {
        name: "sun397",
        group: Group::Natural,
        classes: 397,
        source: Source {
            name: "sun397/tfds",
            version: "4.0.0",
            splits: &[("train", &[76_128]), ("validation", &[10_875]), ("test", &[21_750])],
        },
        train: TRAIN,
        valid: VALIDATION,
        test: whole("test"),
        label: LABEL,
        gain: 1,
    },
    TaskInfo {
        name: "patch_camelyon",
        group: Group::Specialized,
        classes: 2,
        source: Source {
            name: "patch_camelyon",
            version: "2.0.0",
            splits: &[("train", &[262_144]), ("validation", &[32_768]), ("test", &[32_768])],
        },
        train: TRAIN,
        valid: VALIDATION,
        test: whole("test"),
        label: LABEL,
        gain: 1,
    },
    TaskInfo {
        name: "eurosat",
        group: Group::Specialized,
        classes: 10,
        source: Source {
            name: "eurosat/rgb",
            version: "2.0.0",
            splits: &[("train", &[27_000])],
        },
        train: TRAIN,
        valid: part("train", 16_200..16_400),
        test: part("train", 21_600..27_000),
        label: LABEL,
        gain: 1,
    },
    TaskInfo {
        name: "resisc45",
        group: Group::Specialized,
        classes: 45,
        source: Source {
            name: "resisc45",
            version: "3.0.0",
            splits: &[("train", &[31_500])],
        },
        train: TRAIN,
        valid: part("train", 18_900..19_100),
        test: part("train", 25_200..31_500),
        label: LABEL,
        gain: 1,
    },
    TaskInfo {
        name: "diabetic_retinopathy",
        group: Group::Specialized,
        classes: 5,
        source: Source {
            name: "diabetic_retinopathy_detection/btgraham-300",
            version: "3.0.0",
            splits: &[("train", &[35_126]), ("validation", &[10_906]), ("test", &[42_670])],
        },
        train: TRAIN,
        valid: VALIDATION,
        test: whole("test"),
        label: LABEL,
        gain: 1,
    },
    TaskInfo {
        name: "clevr_count",
        group: Group::Structured,
        classes: 8,
        source: CLEVR,
        train: TRAIN,
        valid: part("train", 63_000..63_200),
        test: whole("validation"),
        label: Label::Objects,
        gain: 1,
    },
    TaskInfo {
        name: "clevr_dist",
        group: Group::Structured,
        classes: 6,
        source: CLEVR,
        train: TRAIN,
        valid: part("train", 63_000..63_200),
        test: whole("validation"),
        label: Label::NearestObject,
        gain: 1,
    },
    TaskInfo {
        name: "dmlab",
        group: Group::Structured,
        classes: 6,
        source: Source {
            name: "dmlab",
            version: "2.0.1",
            splits: &[("train", &[65_550]), ("validation", &[22_628]), ("test", &[22_735])],
        },
        train: TRAIN,
        valid: VALIDATION,
        test: whole("test"),
        label: LABEL,
        gain: 1,
    },
    TaskInfo {
        name: "kitti",
        group: Group::Structured,
        classes: 4,
        source: Source {
            name: "kitti",
            version: "3.2.0",
            splits: &[("train", &[6_347]), ("validation", &[423]), ("test", &[711])],
        },
        train: TRAIN,
        valid: VALIDATION,
        test: whole("test"),
        label: Label::NearestVehicle,
        gain: 1,
    },
    TaskInfo {
        name: "dsprites_loc",
        group: Group::Structured,
        classes: 16,
        source: DSPRITES,
        train: TRAIN,
        valid: part("train", 589_824..590_024),
        test: part("train", 663_552..737_280),
        label: Label::Scaled("label_x_position", 1, 2),
        gain: 255,
    },
    TaskInfo {
        name: "dsprites_ori",
        group: Group::Structured,
        classes: 16,
        source: DSPRITES,
        train: TRAIN,
        valid: part("train", 589_824..590_024),
        test: part("train", 663_552..737_280),
        label: Label::Scaled("label_orientation", 2, 5),
        gain: 255,
    },
    TaskInfo {
        name: "smallnorb_azi",
        group: Group::Structured,
        classes: 18,
        source: SMALLNORB,
        train: TRAIN,
        valid: part("test", 0..200),
        test: part("test", 12_150..24_300),
        label: Label::Given("label_azimuth"),
        gain: 1,
    },
    TaskInfo {
        name: "smallnorb_ele",
        group: Group::Structured,
        classes: 9,
        source: SMALLNORB,
        train: TRAIN,
        valid: part("test", 0..200),
        test: part("test", 12_150..24_300),
        label: Label::Given("label_elevation"),
        gain: 1,
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    /// The sizes in TFDS's catalogue, and the slices in WeGeFT's released code.
    #[test]
    fn test_sizes_and_validation_places_are_the_published_ones() {
        let sizes = [
            10_000, 6_084, 1_880, 6_149, 3_669, 26_032, 21_750, 32_768, 5_400, 6_300, 42_670, 15_000, 15_000, 22_735,
            711, 73_728, 73_728, 12_150, 12_150,
        ];
        for (task, size) in TASKS.iter().zip(sizes) {
            let of = |part: &Part| {
                let (_, counts) = task
                    .source
                    .splits
                    .iter()
                    .find(|(split, _)| *split == part.split)
                    .unwrap();
                let records = part.records.clone().unwrap_or(0..counts[0]);
                assert!(records.end <= counts[0], "{}", task.name);
                records
            };
            assert_eq!(of(&task.test).len(), size, "{}", task.name);
            assert_eq!(
                (of(&task.train).len(), of(&task.valid).len()),
                (800, 200),
                "{}",
                task.name
            );
            // No image is used twice.
            for (a, b) in [
                (task.train.clone(), task.valid.clone()),
                (task.train.clone(), task.test.clone()),
                (task.valid.clone(), task.test.clone()),
            ] {
                assert!(a.split != b.split || of(&a).end <= of(&b).start, "{}", task.name);
            }
        }
    }

    /// Fractions of the training split, as in the reference code.
    #[test]
    fn slices_of_the_training_split_lie_at_its_shares() {
        for (name, percent) in [
            ("cifar", 90),
            ("caltech101", 90),
            ("oxford_iiit_pet", 80),
            ("svhn", 90),
            ("eurosat", 60),
            ("resisc45", 60),
            ("clevr_count", 90),
            ("dsprites_loc", 80),
        ] {
            let task = info(name).unwrap();
            let train = task.source.splits[0].1[0];
            assert_eq!(
                task.valid.records.clone().unwrap().start,
                train * percent / 100,
                "{name}"
            );
        }
    }
}
