//! Where the tokens of a batch stand: padding, positions, and which tokens belong to one document.

mod blanks;

use burn::tensor::{Device, Int, Tensor, TensorData};
use kernels::Visible;
use wegeft::Prompts;

/// The side that short rows are padded on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Padding first: the last column is every row's last token, as generation needs it.
    Left,
    /// Padding last: what training uses.
    Right,
}

/// The layout of a batch of `rows` times `tokens`. A token sees the tokens of its own document up to itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    rows: usize,
    tokens: usize,
    /// Place of each token in its document, row by row; anything for padding.
    positions: Vec<u32>,
    /// Document of each token, from 1 on in each row; 0 for padding.
    documents: Vec<u32>,
    /// For each token, the length of the prompt that its document begins with; all of a document where nothing is said.
    prompts: Option<Vec<u32>>,
    /// For each token, whether it is a blank; absent if none is.
    blanks: Option<Vec<bool>>,
}

impl Layout {
    /// Rows of equal length without padding.
    pub fn dense(rows: usize, tokens: usize) -> Self {
        Self::padded(&vec![tokens; rows], tokens, Side::Right)
    }

    /// Rows of `lengths` tokens (each at most `tokens`), padded on `side`.
    pub fn padded(lengths: &[usize], tokens: usize, side: Side) -> Self {
        let documents: Vec<Vec<usize>> = lengths.iter().map(|length| vec![*length]).collect();
        let mut layout = Self::packed(&documents, tokens);
        for (row, length) in lengths.iter().enumerate() {
            let span = row * tokens..(row + 1) * tokens;
            match side {
                // Positions go on: all rows then share one table of positions.
                Side::Right => {
                    let padding = &mut layout.positions[span][*length..];
                    (*length as u32..)
                        .zip(padding)
                        .for_each(|(place, position)| *position = place);
                }
                Side::Left => {
                    layout.positions[span.clone()].rotate_right(tokens - length);
                    layout.documents[span].rotate_right(tokens - length);
                }
            }
        }
        layout
    }

    /// Rows of several documents one after the other, given by their lengths (their sum at most `tokens`), padded on
    /// the right. No document sees another one.
    pub fn packed(documents: &[Vec<usize>], tokens: usize) -> Self {
        let mut layout = Self {
            rows: documents.len(),
            tokens,
            positions: vec![0; documents.len() * tokens],
            documents: vec![0; documents.len() * tokens],
            prompts: None,
            blanks: None,
        };
        for (row, lengths) in documents.iter().enumerate() {
            let mut at = row * tokens;
            for (document, length) in lengths.iter().enumerate() {
                for position in 0..*length {
                    layout.positions[at] = position as u32;
                    layout.documents[at] = document as u32 + 1;
                    at += 1;
                }
            }
        }
        layout
    }

    /// The same layout for documents that begin with prompts of these lengths, row by row, for methods that edit the first
    /// and last tokens of a prompt.
    pub fn with_prompts(mut self, lengths: &[Vec<usize>]) -> Self {
        let of_token = |(index, document): (usize, &u32)| {
            let row = lengths.get(index / self.tokens.max(1));
            let length = row
                .zip(document.checked_sub(1))
                .and_then(|(row, at)| row.get(at as usize));
            length.copied().unwrap_or(0) as u32
        };
        self.prompts = Some(self.documents.iter().enumerate().map(of_token).collect());
        self
    }

    /// For each token the length of its prompt.
    fn prompt_lengths(&self) -> Vec<u32> {
        if let Some(lengths) = &self.prompts {
            return lengths.clone();
        }
        let mut lengths = Vec::with_capacity(self.documents.len());
        for row in self.documents.chunks(self.tokens.max(1)) {
            for run in row.chunk_by(|a, b| a == b) {
                lengths.extend(std::iter::repeat_n(run.len() as u32, run.len()));
            }
        }
        lengths
    }

    /// This layout with padding on the right up to `tokens` columns.
    pub fn padded_to(self, tokens: usize) -> Self {
        let (rows, from) = (self.rows, self.tokens);
        let to = tokens.max(from);
        fn wide<T: Copy + Default>(values: &[T], rows: usize, from: usize, to: usize) -> Vec<T> {
            let mut wide = vec![T::default(); rows * to];
            for row in 0..rows {
                wide[row * to..][..from].copy_from_slice(&values[row * from..][..from]);
            }
            wide
        }
        Self {
            rows,
            tokens: to,
            // Not going on, as other padding does: a table of learned positions may end.
            positions: wide(&self.positions, rows, from, to),
            documents: wide(&self.documents, rows, from, to),
            prompts: self.prompts.map(|prompts| wide(&prompts, rows, from, to)),
            blanks: self.blanks.map(|blanks| wide(&blanks, rows, from, to)),
        }
    }

    /// Where its tokens stand in their prompts.
    pub(crate) fn prompts(&self) -> Prompts {
        let lengths = self.prompt_lengths();
        let tokens = self.positions.iter().zip(&self.documents).zip(lengths);
        let place = |((position, document), length): ((&u32, &u32), u32)| {
            let inside = *document != 0 && *position < length;
            inside.then(|| [*position as usize, (length - 1 - position) as usize])
        };
        Prompts {
            places: tokens.map(place).collect(),
        }
    }

    /// Rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Columns.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// Position of each token in its document, from 0 on, row by row; meaningless for padding.
    pub fn positions(&self) -> &[u32] {
        &self.positions
    }

    /// True where a token is not padding, row by row.
    pub fn real(&self) -> impl Iterator<Item = bool> {
        self.documents.iter().map(|document| *document != 0)
    }

    /// For each token, row by row, the length of its document so far: its largest position, plus one. Padding goes with
    /// the text beside it.
    pub(crate) fn lengths(&self) -> Vec<usize> {
        let mut lengths = Vec::with_capacity(self.documents.len());
        for row in 0..self.rows {
            let span = row * self.tokens..(row + 1) * self.tokens;
            let (documents, positions) = (&self.documents[span.clone()], &self.positions[span]);
            let run = |from: usize, document: u32| {
                let same = documents[from..].iter().take_while(|other| **other == document);
                from + same.count()
            };
            let mut at = 0;
            while at < self.tokens {
                let start = run(at, 0).min(self.tokens - 1);
                let end = run(start, documents[start]);
                let next = run(end, 0);
                lengths.extend(std::iter::repeat_n(positions[end - 1] as usize + 1, next - at));
                at = next;
            }
        }
        lengths
    }

    /// Positions as a tensor `[rows, tokens]`, `[1, tokens]` if all rows have the same.
    pub(crate) fn places(&self, device: &Device) -> Tensor<2, Int> {
        let width = self.tokens;
        let same = self
            .positions
            .chunks_exact(width.max(1))
            .all(|row| *row == self.positions[..width]);
        let rows = if same { 1 } else { self.rows };
        let values: Vec<i64> = self.positions[..rows * width].iter().map(|p| i64::from(*p)).collect();
        Tensor::from_data(TensorData::new(values, [rows, width]), device)
    }

    /// True if every row is one document from the first column on: then "up to itself" is all there is to know, and
    /// padding, which comes last, is seen by padding only.
    pub(crate) fn is_plain(&self) -> bool {
        (0..self.rows).all(|row| {
            let span = row * self.tokens..(row + 1) * self.tokens;
            let documents = &self.documents[span.clone()];
            let length = documents.iter().take_while(|document| **document == 1).count();
            documents[length..].iter().all(|document| *document == 0)
                && self.positions[span]
                    .iter()
                    .take(length)
                    .zip(0..)
                    .all(|(position, column)| *position == column)
        })
    }

    /// The columns of `keys` that each token of this layout, its last columns, sees: those of its own document up to
    /// itself, with a window at most so many.
    pub(crate) fn visible(&self, keys: &Layout, window: Option<usize>) -> Visible {
        if keys.is_plain() {
            return Visible::Causal { window };
        }
        let tokens = self.positions.iter().zip(&self.documents).enumerate();
        let ranges = tokens.map(|(index, (position, document))| {
            if *document == 0 {
                return 0..0;
            }
            let place = keys.tokens - self.tokens + index % self.tokens;
            let before = (*position as usize).min(window.unwrap_or(usize::MAX) - 1);
            place - before..place + 1
        });
        Visible::Ranges(ranges.collect())
    }

    /// True unless a row ends with padding.
    pub(crate) fn ends_with_text(&self) -> bool {
        self.tokens == 0
            || self
                .documents
                .chunks_exact(self.tokens)
                .all(|row| row[self.tokens - 1] != 0)
    }

    /// This layout with its positions going on where each row of `past` ended.
    pub(crate) fn after(mut self, past: &Layout) -> Self {
        if past.tokens == 0 || self.tokens == 0 {
            return self;
        }
        if self.prompts.is_none() {
            // What comes after a text that was read belongs to no prompt, unless it says so.
            let ends = past.prompt_lengths();
            let last = ends.chunks_exact(past.tokens).filter_map(|row| row.last().copied());
            self.prompts = Some(
                last.flat_map(|length| std::iter::repeat_n(length, self.tokens))
                    .collect(),
            );
        }
        let past_rows = past.documents.chunks_exact(past.tokens);
        for (positions, past) in self.positions.chunks_exact_mut(self.tokens).zip(past_rows) {
            let seen = past.iter().filter(|document| **document != 0).count() as u32;
            positions.iter_mut().for_each(|position| *position += seen);
        }
        self
    }

    /// This layout with `count` columns more in front of each document that begins in it, and for every column of the result
    /// its source: the number of the virtual token, or `count` plus the place of an own one in this layout; none for
    /// padding, which makes rows with fewer documents as long as the others.
    pub(crate) fn with_virtual(&self, count: usize) -> (Self, Vec<Option<usize>>) {
        let begins = |at: usize| self.documents[at] != 0 && self.positions[at] == 0;
        let row = |row: usize| row * self.tokens..(row + 1) * self.tokens;
        let beginnings = |of: usize| row(of).filter(|at| begins(*at)).count();
        let most = (0..self.rows).map(beginnings).max().unwrap_or(0);
        let tokens = self.tokens + count * most;
        let mut wide = Self {
            rows: self.rows,
            tokens,
            positions: Vec::with_capacity(self.rows * tokens),
            documents: Vec::with_capacity(self.rows * tokens),
            prompts: None,
            blanks: None,
        };
        let mut sources = Vec::with_capacity(self.rows * tokens);
        // A cache wants its padding on the left.
        let left = self.ends_with_text();
        for of in 0..self.rows {
            let mut push = |document: u32, position: u32, source: Option<usize>| {
                wide.documents.push(document);
                wide.positions.push(position);
                sources.push(source);
            };
            let filling = count * (most - beginnings(of));
            if left {
                (0..filling).for_each(|_| push(0, 0, None));
            }
            let mut offset = 0;
            for at in row(of) {
                let document = self.documents[at];
                if begins(at) {
                    offset = count as u32;
                    (0..count).for_each(|token| push(document, token as u32, Some(token)));
                }
                push(document, self.positions[at] + offset, Some(count + at));
            }
            if !left {
                (0..filling).for_each(|_| push(0, 0, None));
            }
        }
        (wide, sources)
    }

    /// The columns `chosen` (counted over all rows), `tokens` of them a row.
    pub(crate) fn columns(&self, chosen: &[usize], tokens: usize) -> Self {
        let pick = |values: &[u32]| chosen.iter().map(|column| values[*column]).collect();
        Self {
            rows: self.rows,
            tokens,
            positions: pick(&self.positions),
            documents: pick(&self.documents),
            prompts: None,
            blanks: None,
        }
    }

    /// The columns of this layout, then those of `next`.
    pub(crate) fn joined(&self, next: &Layout) -> Self {
        if self.tokens == 0 {
            return next.clone();
        }
        let join = |a: &[u32], b: &[u32]| -> Vec<u32> {
            let pairs = a.chunks_exact(self.tokens).zip(b.chunks_exact(next.tokens));
            pairs.flat_map(|(a, b)| a.iter().chain(b).copied()).collect()
        };
        Self {
            rows: next.rows,
            tokens: self.tokens + next.tokens,
            positions: join(&self.positions, &next.positions),
            documents: join(&self.documents, &next.documents),
            prompts: Some(join(&self.prompt_lengths(), &next.prompt_lengths())),
            blanks: None,
        }
    }

    /// The rows `chosen`, in that order.
    pub(crate) fn select(&self, chosen: &[usize]) -> Self {
        let pick = |values: &[u32]| -> Vec<u32> {
            let rows = chosen.iter().map(|row| row * self.tokens..(row + 1) * self.tokens);
            rows.flat_map(|span| values[span].iter().copied()).collect()
        };
        Self {
            rows: chosen.len(),
            tokens: self.tokens,
            positions: pick(&self.positions),
            documents: pick(&self.documents),
            prompts: self.prompts.as_deref().map(pick),
            blanks: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padding_packing_and_going_on() {
        let left = Layout::padded(&[1, 3], 3, Side::Left);
        assert_eq!(left.positions(), [0, 0, 0, 0, 1, 2]);
        assert_eq!(left.real().collect::<Vec<_>>(), [false, false, true, true, true, true]);
        assert!(!left.is_plain() && Layout::padded(&[1, 3], 3, Side::Right).is_plain());
        let next = Layout::dense(2, 1).after(&left);
        assert_eq!(next.positions(), [1, 3]);
        let all = left.joined(&next);
        assert_eq!(all.positions(), [0, 0, 0, 1, 0, 1, 2, 3]);
        let ranges = |visible: Visible| match visible {
            Visible::Ranges(ranges) => ranges.to_vec(),
            other => panic!("{other:?}"),
        };
        assert_eq!(ranges(next.visible(&all, None)), [2..4, 0..4]);
        assert_eq!(ranges(next.visible(&all, Some(3))), [2..4, 1..4]);
        assert_eq!(ranges(left.visible(&left, None)), [0..0, 0..0, 2..3, 0..1, 0..2, 0..3]);
        assert_eq!(all.select(&[1, 1]).positions(), [0, 1, 2, 3, 0, 1, 2, 3]);
        let right = Layout::padded(&[1, 3], 3, Side::Right);
        assert_eq!(right.positions(), [0, 1, 2, 0, 1, 2]);
        assert_eq!(
            (right.lengths(), left.lengths()),
            (vec![1, 1, 1, 3, 3, 3], vec![1, 1, 1, 3, 3, 3])
        );
        assert_eq!(
            Layout::packed(&[vec![2, 1], vec![]], 4).lengths(),
            [2, 2, 1, 1, 1, 1, 1, 1]
        );
        assert_eq!(next.lengths(), [2, 4]);
        let wide = right.clone().with_prompts(&[vec![1], vec![2]]).padded_to(4);
        assert_eq!(wide.positions(), [0, 1, 2, 0, 0, 1, 2, 0]);
        assert_eq!(wide.prompt_lengths(), [1, 0, 0, 0, 2, 2, 2, 0]);
        assert!(wide.is_plain() && wide.real().filter(|real| *real).count() == 4);
        assert_eq!(right.clone().padded_to(2), right);
        let (wide, sources) = Layout::packed(&[vec![1, 2], vec![3]], 4).with_virtual(2);
        assert_eq!(wide.positions(), [0, 1, 2, 0, 1, 2, 3, 2, 0, 1, 2, 3, 4, 2, 0, 0]);
        assert_eq!(
            sources,
            [Some(0), Some(1), Some(2), Some(0), Some(1), Some(3), Some(4), Some(5)]
                .into_iter()
                .chain([Some(0), Some(1), Some(6), Some(7), Some(8), Some(9), None, None])
                .collect::<Vec<_>>()
        );
        // What goes on begins no document.
        assert_eq!(next.with_virtual(2).0.positions(), next.positions());
        let packed = Layout::packed(&[vec![2, 1]], 4);
        assert_eq!(packed.positions(), [0, 1, 0, 0]);
        assert_eq!(ranges(packed.visible(&packed, None)), [0..1, 0..2, 2..3, 0..0]);
        assert!(!packed.ends_with_text() && left.ends_with_text());
    }

    #[test]
    fn prompts_begin_documents_and_nothing_follows_them_when_a_text_goes_on() {
        let inside = |layout: &Layout| layout.prompts().places;
        let some = |place: usize, length: usize| Some([place, length - 1 - place]);
        let left = Layout::padded(&[1, 2], 2, Side::Left);
        assert_eq!(inside(&left), [None, some(0, 1), some(0, 2), some(1, 2)]);
        let next = Layout::dense(2, 1).after(&left);
        assert_eq!(inside(&next), [None, None]);
        assert_eq!(inside(&Layout::dense(2, 1).after(&left.joined(&next))), [None, None]);
        let packed = Layout::packed(&[vec![3, 2]], 6).with_prompts(&[vec![2, 1]]);
        assert_eq!(inside(&packed), [some(0, 2), some(1, 2), None, some(0, 1), None, None]);
        // A prompt that is read in two parts.
        let start = Layout::dense(1, 2).with_prompts(&[vec![3]]);
        let rest = Layout::dense(1, 2).with_prompts(&[vec![3]]).after(&start);
        assert_eq!(inside(&start), [some(0, 3), some(1, 3)]);
        assert_eq!(inside(&rest), [some(2, 3), None]);
    }
}
