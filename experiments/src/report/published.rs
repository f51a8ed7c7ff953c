//! Published results of the paper's vision table: ViT-B/16, single runs (from the project page of its second
//! version; per-task VTAB numbers were never printed there).

/// One row of that table.
pub struct Published {
    /// Method.
    pub method: &'static str,
    /// Trainable parameters, percent of the backbone.
    pub percent: f64,
    /// GPU memory at batch 32, GB.
    pub memory_gb: f64,
    /// Top-1 on CUB, NABirds, Flowers, Dogs, Cars, and their mean.
    pub fgvc: [f64; 6],
    /// Top-1 on the groups natural, specialized and structured of VTAB-1k, and the mean over its 19 tasks.
    pub vtab: [f64; 4],
}

/// The rows, in the table's order.
pub const ROWS: [Published; 4] = [
    Published {
        method: "vpt",
        percent: 0.054,
        memory_gb: 2.753,
        fgvc: [87.88, 84.79, 98.98, 84.51, 82.89, 87.81],
        vtab: [81.03, 85.65, 58.89, 72.68],
    },
    Published {
        method: "bitfit",
        percent: 0.097,
        memory_gb: 2.673,
        fgvc: [87.75, 84.61, 99.32, 85.23, 84.01, 88.18],
        vtab: [81.79, 85.15, 57.75, 72.37],
    },
    Published {
        method: "lora",
        percent: 0.172,
        memory_gb: 2.622,
        fgvc: [88.00, 84.94, 99.32, 85.36, 85.92, 88.71],
        vtab: [81.96, 85.89, 60.98, 73.95],
    },
    Published {
        method: "wegeft",
        percent: 0.029,
        memory_gb: 2.646,
        fgvc: [89.71, 86.28, 99.22, 87.44, 84.28, 89.39],
        vtab: [81.95, 86.30, 61.12, 74.09],
    },
];

/// VTAB-1k's tasks in the order of its table, with their groups.
pub const VTAB: [(&str, &str); 19] = [
    ("cifar", "natural"),
    ("caltech101", "natural"),
    ("dtd", "natural"),
    ("oxford_flowers102", "natural"),
    ("oxford_iiit_pet", "natural"),
    ("svhn", "natural"),
    ("sun397", "natural"),
    ("patch_camelyon", "specialized"),
    ("eurosat", "specialized"),
    ("resisc45", "specialized"),
    ("diabetic_retinopathy", "specialized"),
    ("clevr_count", "structured"),
    ("clevr_dist", "structured"),
    ("dmlab", "structured"),
    ("kitti", "structured"),
    ("dsprites_loc", "structured"),
    ("dsprites_ori", "structured"),
    ("smallnorb_azi", "structured"),
    ("smallnorb_ele", "structured"),
];

/// Substrings of the names of the five FGVC tasks, in the order of the table.
pub const FGVC: [&str; 5] = ["cub", "nabirds", "flowers", "dogs", "cars"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_printed_means_are_those_of_the_printed_numbers() {
        for row in &ROWS {
            let fgvc = row.fgvc[..5].iter().sum::<f64>() / 5.0;
            assert!((fgvc - row.fgvc[5]).abs() < 0.011, "{} {fgvc}", row.method);
            let [natural, specialized, structured, mean] = row.vtab;
            let vtab = (7.0 * natural + 4.0 * specialized + 8.0 * structured) / 19.0;
            assert!((vtab - mean).abs() < 0.011, "{} {vtab}", row.method);
        }
        for (task, group) in VTAB {
            assert_eq!(datasets::vtab::group(task), group);
        }
    }
}
