//! Packing: several examples in one row, so that batches have little padding. Examples do not see each other, and the
//! positions of each start at 0: a step on packed rows equals the step on their examples.

use crate::language::data::Sequence;

/// Joins `sequences` into rows of at most `max_length` tokens by best-fit decreasing: sequences are placed from longest
/// to shortest, each into the fullest row that has room for it.
pub fn pack(mut sequences: Vec<Sequence>, max_length: usize) -> Vec<Sequence> {
    sequences.sort_by_key(|sequence| std::cmp::Reverse(sequence.ids.len()));
    let mut rows: Vec<Sequence> = Vec::new();
    // The rows by their remaining room.
    let mut with_room: Vec<Vec<usize>> = vec![Vec::new(); max_length + 1];
    for sequence in sequences {
        let length = sequence.ids.len();
        let fullest = (length..=max_length).find_map(|room| with_room[room].pop());
        let row = match fullest {
            Some(row) => {
                append(&mut rows[row], sequence);
                row
            }
            None => {
                rows.push(sequence);
                rows.len() - 1
            }
        };
        with_room[max_length.saturating_sub(rows[row].ids.len())].push(row);
    }
    rows
}

fn append(row: &mut Sequence, mut next: Sequence) {
    row.starts.push(row.ids.len());
    // No token of its own example precedes it.
    if let Some(first) = next.learned.first_mut() {
        *first = false;
    }
    row.ids.append(&mut next.ids);
    row.learned.append(&mut next.learned);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_full_and_hold_every_example_once() {
        let lengths = [3, 9, 2, 5, 4, 1, 7, 8, 1];
        let sequences = lengths.iter().zip(1u32..).map(|(length, id)| Sequence {
            ids: vec![id; *length],
            learned: vec![true; *length],
            starts: Vec::new(),
        });
        let rows = pack(sequences.clone().collect(), 10);
        assert_eq!(rows.len(), 4, "40 tokens in rows of 10");
        let learned = |sequences: &[Sequence]| sequences.iter().map(Sequence::count).sum::<usize>();
        assert_eq!(learned(&rows), learned(&sequences.collect::<Vec<_>>()));
        let mut found = Vec::new();
        for row in &rows {
            assert!(row.ids.len() <= 10 && row.ids.len() == row.learned.len());
            found.extend(row.documents());
            for (document, start) in row.documents().iter().zip([0].iter().chain(&row.starts)) {
                let ids = &row.ids[*start..start + document];
                assert!(
                    ids.iter()
                        .all(|id| *id == ids[0] && lengths[*id as usize - 1] == *document)
                );
            }
        }
        found.sort_unstable();
        assert_eq!(found, [1, 1, 2, 3, 4, 5, 7, 8, 9]);
    }
}
