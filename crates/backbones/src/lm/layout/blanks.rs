//! Blanks: tokens of a text that have the id of padding. The model reads them like other tokens, but transformers leaves
//! them out where it goes by ids: where RoBERTa counts positions, and where a classifier looks for the last token of a
//! text.

use burn::tensor::{Device, Int, Tensor, TensorData};

use super::Layout;

impl Layout {
    /// The same layout with these blanks: true or false for each token, row by row.
    ///
    /// # Panics
    /// A list of another length.
    pub fn with_blanks(mut self, blanks: Vec<bool>) -> Self {
        assert_eq!(blanks.len(), self.documents.len(), "true or false for each token");
        self.blanks = blanks.contains(&true).then_some(blanks);
        self
    }

    /// True where a token is neither padding nor a blank, row by row.
    pub(crate) fn filled(&self) -> impl Iterator<Item = bool> {
        let blanks = self.blanks.as_deref();
        let is_blank = move |index: usize| blanks.is_some_and(|blanks| blanks[index]);
        self.real()
            .enumerate()
            .map(move |(index, real)| real && !is_blank(index))
    }

    /// Positions without blanks, counted from `first` on, `[rows, tokens]`; blanks themselves have `first - 1`. `None` if
    /// there are no blanks.
    pub(crate) fn places_between_blanks(&self, first: usize, device: &Device) -> Option<Tensor<2, Int>> {
        let blanks = self.blanks.as_ref()?;
        let mut before = 0;
        let places = self.positions.iter().zip(&self.documents).zip(blanks).enumerate();
        let places = places.map(|(index, ((position, document), blank))| {
            if index % self.tokens == 0 || (*document != 0 && *position == 0) {
                before = 0;
            }
            if *blank {
                before += 1;
                return first.saturating_sub(1) as i64;
            }
            (first + (*position as usize).saturating_sub(before)) as i64
        });
        let places = TensorData::new(places.collect::<Vec<i64>>(), [self.rows, self.tokens]);
        Some(Tensor::from_data(places, device))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lm::Side;

    /// As create_position_ids_from_input_ids of transformers, for padding token 1, numbers the rows [5, 1, 6, 1] and [1, 7].
    #[test]
    fn blanks_have_the_position_of_padding_and_are_not_counted() {
        let device = Device::flex();
        let places = |layout: &Layout| {
            let places = layout.places_between_blanks(2, &device)?;
            Some(places.into_data().iter::<i64>().collect::<Vec<_>>())
        };
        let layout = Layout::padded(&[4, 2], 4, Side::Right);
        assert_eq!(places(&layout), None);
        assert_eq!(places(&layout.clone().with_blanks(vec![false; 8])), None);
        let blanks = vec![false, true, false, true, true, false, false, false];
        let layout = layout.with_blanks(blanks);
        let found = places(&layout).unwrap();
        assert_eq!(
            (&found[..4], &found[4..6]),
            ([2, 1, 3, 1].as_slice(), [1, 2].as_slice())
        );
        let filled: Vec<bool> = layout.filled().collect();
        assert_eq!(filled, [true, false, true, false, false, true, false, false]);
        // Each document is counted by itself.
        let packed = Layout::packed(&[vec![2, 2]], 5).with_blanks(vec![true, false, false, true, false]);
        assert_eq!(places(&packed).unwrap()[..4], [1, 2, 2, 1]);
    }
}
