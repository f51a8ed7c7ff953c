//! Decoded pictures, kept as bytes.

/// Labelled RGB pictures of one size.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Images {
    /// Side, pixels.
    pub size: usize,
    /// `[n, 3, size, size]`, row-major.
    pub pixels: Vec<u8>,
    /// One label a picture.
    pub labels: Vec<usize>,
}

impl Images {
    /// Number of pictures.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// True if there is none.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// Bytes of picture `index`, `[3, size, size]`.
    pub fn picture(&self, index: usize) -> &[u8] {
        let len = 3 * self.size * self.size;
        &self.pixels[index * len..(index + 1) * len]
    }

    /// Adds a grey picture of `size * size` bytes.
    pub fn push_grey(&mut self, grey: &[u8], label: usize) {
        for _ in 0..3 {
            self.pixels.extend_from_slice(grey);
        }
        self.labels.push(label);
    }

    /// The pictures of both, these first.
    pub fn joined(&self, other: &Self) -> Self {
        Self {
            size: self.size,
            pixels: [&self.pixels[..], &other.pixels].concat(),
            labels: [&self.labels[..], &other.labels].concat(),
        }
    }

    /// Moves the pictures from `at` on into a second set.
    pub fn split_off(&mut self, at: usize) -> Self {
        let pixels = self.pixels.split_off(at * 3 * self.size * self.size);
        Self {
            size: self.size,
            pixels,
            labels: self.labels.split_off(at),
        }
    }
}

/// One classification task: 800 pictures to train on, 200 to choose by, and a test set.
#[derive(Debug, Clone, PartialEq)]
pub struct Task {
    /// Name.
    pub name: String,
    /// VTAB's group: natural, specialized or structured.
    pub group: String,
    /// Name of each class; the length is the number of classes.
    pub classes: Vec<String>,
    /// train800.
    pub train: Images,
    /// val200.
    pub valid: Images,
    /// test.
    pub test: Images,
}
