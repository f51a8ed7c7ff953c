//! New buffers that are written exactly once: zeroing megabytes on one thread before both threads fill them takes a tenth of
//! a step.
#![allow(unsafe_code)]

use std::mem::MaybeUninit;

use rayon::prelude::*;

/// Appends to a part of a buffer, of fixed size.
pub struct Writer<'a> {
    slots: &'a mut [MaybeUninit<f32>],
    // Invariant: slots[..len] is initialized.
    len: usize,
}

impl Writer<'_> {
    /// Elements of the part in all.
    pub fn capacity(&self) -> usize {
        self.slots.len()
    }

    /// The next `len` slots; they count as initialized once `len` is raised.
    #[inline(always)]
    fn next(&mut self, len: usize) -> &mut [MaybeUninit<f32>] {
        &mut self.slots[self.len..self.len + len]
    }

    /// Appends `source`.
    #[inline(always)]
    pub fn copy(&mut self, source: &[f32]) {
        self.next(source.len()).write_copy_of_slice(source);
        self.len += source.len();
    }

    /// Appends `f` of each element.
    #[inline(always)]
    pub fn map(&mut self, a: &[f32], f: impl Fn(f32) -> f32) {
        for (slot, a) in self.next(a.len()).iter_mut().zip(a) {
            slot.write(f(*a));
        }
        self.len += a.len();
    }

    /// Appends `f` of each pair.
    #[inline(always)]
    pub fn map2(&mut self, a: &[f32], b: &[f32], f: impl Fn(f32, f32) -> f32) {
        assert_eq!(a.len(), b.len());
        for ((slot, a), b) in self.next(a.len()).iter_mut().zip(a).zip(b) {
            slot.write(f(*a, *b));
        }
        self.len += a.len();
    }

    /// Appends `a`, or `a + b` if `b` is not empty.
    #[inline(always)]
    pub fn sum(&mut self, a: &[f32], b: &[f32]) {
        match b.is_empty() {
            true => self.copy(a),
            false => self.map2(
                a,
                b,
                #[inline(always)]
                |a, b| a + b,
            ),
        }
    }

    /// Appends `f` of each triple.
    #[inline(always)]
    pub fn map3(&mut self, a: &[f32], b: &[f32], c: &[f32], f: impl Fn(f32, f32, f32) -> f32) {
        assert!(a.len() == b.len() && a.len() == c.len());
        for (((slot, a), b), c) in self.next(a.len()).iter_mut().zip(a).zip(b).zip(c) {
            slot.write(f(*a, *b, *c));
        }
        self.len += a.len();
    }

    /// Appends `f` of each quadruple.
    #[inline(always)]
    pub fn map4(&mut self, [a, b, c, d]: [&[f32]; 4], f: impl Fn([f32; 4]) -> f32) {
        assert!(a.len() == b.len() && a.len() == c.len() && a.len() == d.len());
        for ((((slot, a), b), c), d) in self.next(a.len()).iter_mut().zip(a).zip(b).zip(c).zip(d) {
            slot.write(f([*a, *b, *c, *d]));
        }
        self.len += a.len();
    }

    /// Appends `len` elements that `write` stores at its argument.
    ///
    /// # Safety
    /// `write` initializes all `len` elements from its argument on.
    pub unsafe fn append(&mut self, len: usize, write: impl FnOnce(*mut f32)) {
        write(self.next(len).as_mut_ptr().cast());
        self.len += len;
    }

    /// The elements written so far.
    pub fn written(&mut self) -> &mut [f32] {
        // SAFETY: every method initializes the slots that it counts in `len` before it raises it.
        unsafe { self.slots[..self.len].assume_init_mut() }
    }
}

/// A new buffer of `len` elements, filled in parts on all cores. `task` gets the index of a part and writes all of it; parts
/// have `part` elements, the last one the remainder.
pub fn par_fill(len: usize, part: usize, task: impl Fn(usize, &mut Writer) + Sync) -> Vec<f32> {
    let [buffer] = par_fill_many([len], [part], |index, [writer]| task(index, writer));
    buffer
}

/// [`par_fill`] for several buffers whose parts one task writes together. A buffer with fewer parts than the others, or
/// none, has empty parts from there on.
///
/// # Panics
/// The parts do not cover a buffer, or a task does not fill its part.
pub fn par_fill_many<const N: usize>(
    lens: [usize; N],
    parts: [usize; N],
    task: impl Fn(usize, [&mut Writer; N]) + Sync,
) -> [Vec<f32>; N] {
    // As many as the buffer with the most parts has, so that every buffer is covered.
    let counts: [usize; N] = std::array::from_fn(|number| lens[number].div_ceil(parts[number].max(1)));
    let count = counts.into_iter().max().unwrap_or(0);
    let mut buffers = lens.map(Vec::<f32>::with_capacity);
    let mut number = 0;
    let mut rest = buffers.each_mut().map(|buffer| {
        let slots = &mut buffer.spare_capacity_mut()[..lens[number]];
        number += 1;
        slots
    });
    let mut patches = Vec::with_capacity(count);
    for _ in 0..count {
        let mut number = 0;
        patches.push(rest.each_mut().map(|rest| {
            let (piece, after) = {
                let len = rest.len().min(parts[number]);
                std::mem::take(rest).split_at_mut(len)
            };
            number += 1;
            *rest = after;
            piece
        }));
    }
    for (number, rest) in rest.iter().enumerate() {
        let (left, part) = (rest.len(), parts[number]);
        assert!(
            left == 0,
            "{count} parts of {part} elements leave {left} of buffer {number}"
        );
    }
    let write = |(index, patches): (usize, [&mut [MaybeUninit<f32>]; N])| {
        let mut writers = patches.map(|slots| Writer { slots, len: 0 });
        task(index, writers.each_mut());
        for writer in &writers {
            assert_eq!(writer.len, writer.slots.len(), "part {index} is not full");
        }
    };
    // A single part is written here: waking another thread costs more than a small part.
    match count {
        1 => patches.into_iter().enumerate().for_each(write),
        _ => patches.into_par_iter().enumerate().for_each(write),
    }
    let mut number = 0;
    buffers.map(|mut buffer| {
        // SAFETY: the parts cover the first `len` slots of every buffer, since no slots were left over, and each writer was
        // found full, hence initialized, above (a panic in a task or in one of those checks does not get here).
        unsafe { buffer.set_len(lens[number]) };
        number += 1;
        buffer
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_without_values_does_not_decide_for_the_others() {
        let [none, some] = par_fill_many([0, 6], [0, 3], |index, [none, some]| {
            assert_eq!(none.capacity(), 0);
            some.copy(&[index as f32; 3]);
        });
        assert_eq!((none.len(), some), (0, vec![0.0, 0.0, 0.0, 1.0, 1.0, 1.0]));
    }

    #[test]
    fn buffers_may_have_different_numbers_of_parts() {
        let [long, short] = par_fill_many([5, 1], [2, 1], |index, [long, short]| {
            for writer in [long, short] {
                writer.copy(&vec![index as f32; writer.capacity()]);
            }
        });
        assert_eq!((long, short), (vec![0.0, 0.0, 1.0, 1.0, 2.0], vec![0.0]));
    }

    #[test]
    fn nothing_is_an_empty_buffer() {
        assert!(par_fill(0, 0, |_, _| unreachable!()).is_empty());
        assert!(par_fill(0, 7, |_, _| unreachable!()).is_empty());
    }

    #[test]
    #[should_panic(expected = "leave 4 of buffer 0")]
    fn parts_that_do_not_cover_a_buffer_are_refused() {
        par_fill(4, 0, |_, _| {});
    }

    #[test]
    #[should_panic(expected = "is not full")]
    fn a_part_that_is_not_full_is_refused() {
        par_fill(4, 2, |_, out| out.copy(&[1.0]));
    }

    #[test]
    #[should_panic(expected = "on purpose")]
    fn a_panic_of_a_task_passes_through() {
        par_fill(4, 1, |index, out| {
            assert!(index != 2, "on purpose");
            out.copy(&[1.0]);
        });
    }
}
