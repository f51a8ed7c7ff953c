//! The sample tasks, which `vtab` runs if no data root is given.

mod digits;
mod size;
mod sprites;
mod textures;

use crate::images::Task;

pub use size::SIZE;

/// Names of the sample tasks, in table order.
pub const NAMES: [&str; 4] = ["digits", "textures", "sprites-location", "sprites-orientation"];

/// The sample task of that name.
pub fn task(name: &str) -> Option<Task> {
    match name {
        "digits" => Some(digits::task()),
        "textures" => Some(textures::task()),
        "sprites-location" => Some(sprites::task(sprites::Label::Location)),
        "sprites-orientation" => Some(sprites::task(sprites::Label::Orientation)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_task_has_its_images_and_all_labels() {
        for name in NAMES {
            let task = task(name).unwrap();
            assert_eq!((task.train.len(), task.valid.len()), (800, 200), "{name}");
            assert!(task.test.len() >= 500, "{name}");
            for part in [&task.train, &task.valid, &task.test] {
                assert_eq!(part.kept_bytes(), part.len() * 3 * SIZE * SIZE);
                assert!(part.labels.iter().all(|label| *label < task.classes.len()));
            }
            for class in 0..task.classes.len() {
                assert!(
                    task.train.labels.contains(&class) && task.test.labels.contains(&class),
                    "{name} {class}"
                );
            }
        }
    }

    #[test]
    fn no_test_image_is_a_training_image() {
        for name in NAMES {
            let task = task(name).unwrap();
            let bytes = |images: &crate::Images, i| images.rgb(i).unwrap().as_raw().clone();
            let seen: std::collections::HashSet<Vec<u8>> = (0..800)
                .map(|i| bytes(&task.train, i))
                .chain((0..200).map(|i| bytes(&task.valid, i)))
                .collect();
            assert!(
                (0..task.test.len()).all(|i| !seen.contains(&bytes(&task.test, i))),
                "{name}"
            );
        }
    }

    #[test]
    fn tasks_are_the_same_every_time() {
        for name in NAMES {
            assert_eq!(task(name), task(name));
        }
    }
}
