//! Images for trainings.

use std::path::Path;

/// A task of `n` images a list: left half bright is class 0, right half bright class 1.
pub fn make_task(root: &Path, name: &str, n: usize) {
    let folder = root.join(name);
    std::fs::create_dir_all(folder.join("images")).unwrap();
    for list in ["train800", "val200", "test"] {
        let mut lines = String::new();
        for i in 0..n {
            let image = image::RgbImage::from_fn(40, 36, |x, _| {
                image::Rgb([if (x < 20) == (i % 2 == 0) { 220 } else { 30 }; 3])
            });
            image.save(folder.join(format!("images/{list}{i}.png"))).unwrap();
            lines += &format!("images/{list}{i}.png {}\n", i % 2);
        }
        std::fs::write(folder.join(format!("{list}.txt")), lines).unwrap();
    }
}
