//! New buffers that are written once: zeroing megabytes on one thread before both fill them costs a tenth of a step.
#![allow(unsafe_code)]

use std::mem::MaybeUninit;

use rayon::prelude::*;

/// Appends to a part of a buffer whose size is fixed.
pub struct Writer<'a> {
    slots: &'a mut [MaybeUninit<f32>],
    // Invariant: slots[..len] is initialized.
    len: usize,
}

impl Writer<'_> {
    /// Values that the part holds in all.
    pub fn capacity(&self) -> usize {
        self.slots.len()
    }

    /// The next `len` slots; they count once `len` is raised.
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

    /// Appends `f` of each value.
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

    /// Appends `a`, or `a + b` if there are values in `b`.
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

    /// Appends `f` of each three.
    #[inline(always)]
    pub fn map3(&mut self, a: &[f32], b: &[f32], c: &[f32], f: impl Fn(f32, f32, f32) -> f32) {
        assert!(a.len() == b.len() && a.len() == c.len());
        for (((slot, a), b), c) in self.next(a.len()).iter_mut().zip(a).zip(b).zip(c) {
            slot.write(f(*a, *b, *c));
        }
        self.len += a.len();
    }

    /// Appends `f` of each four.
    #[inline(always)]
    pub fn map4(&mut self, [a, b, c, d]: [&[f32]; 4], f: impl Fn([f32; 4]) -> f32) {
        assert!(a.len() == b.len() && a.len() == c.len() && a.len() == d.len());
        for ((((slot, a), b), c), d) in self.next(a.len()).iter_mut().zip(a).zip(b).zip(c).zip(d) {
            slot.write(f([*a, *b, *c, *d]));
        }
        self.len += a.len();
    }

    /// Appends `len` values that `write` puts where its argument points.
    ///
    /// # Safety
    /// `write` initializes all `len` values from its argument on.
    pub unsafe fn append(&mut self, len: usize, write: impl FnOnce(*mut f32)) {
        write(self.next(len).as_mut_ptr().cast());
        self.len += len;
    }

    /// What was written so far.
    pub fn written(&mut self) -> &mut [f32] {
        // SAFETY: every method initializes the slots that it counts in `len` before it raises it.
        unsafe { self.slots[..self.len].assume_init_mut() }
    }
}

/// A buffer of `len` values, made by `task` part by part on all cores. `task` gets the number of the part and
/// writes the whole of it; parts have `part` values, the last one what is left.
pub fn filled(len: usize, part: usize, task: impl Fn(usize, &mut Writer) + Sync) -> Vec<f32> {
    let [buffer] = filled_together([len], [part], |index, [writer]| task(index, writer));
    buffer
}

/// [`filled`] for several buffers of as many parts each, which one task writes together.
pub fn filled_together<const N: usize>(
    lens: [usize; N],
    parts: [usize; N],
    task: impl Fn(usize, [&mut Writer; N]) + Sync,
) -> [Vec<f32>; N] {
    let count = lens[0].div_ceil(parts[0].max(1));
    let mut buffers = lens.map(Vec::<f32>::with_capacity);
    let mut rest = buffers.each_mut().map(|buffer| buffer.spare_capacity_mut());
    let mut pieces = Vec::with_capacity(count);
    for index in 0..count {
        let mut number = 0;
        pieces.push(rest.each_mut().map(|rest| {
            let end = lens[number].min((index + 1) * parts[number]) - index * parts[number];
            number += 1;
            let (piece, after) = std::mem::take(rest).split_at_mut(end);
            *rest = after;
            piece
        }));
    }
    let write = |(index, pieces): (usize, [&mut [MaybeUninit<f32>]; N])| {
        let mut writers = pieces.map(|slots| Writer { slots, len: 0 });
        task(index, writers.each_mut());
        for writer in &writers {
            assert_eq!(writer.len, writer.slots.len(), "part {index} is not whole");
        }
    };
    // One part is written here: to wake another thread for it costs more than a small part itself.
    match count {
        1 => pieces.into_iter().enumerate().for_each(write),
        _ => pieces.into_par_iter().enumerate().for_each(write),
    }
    let mut number = 0;
    buffers.map(|mut buffer| {
        // SAFETY: the parts cover the first `len` slots, and each writer was found full, hence initialized, above
        // (a panic of a task or of that check does not get here).
        unsafe { buffer.set_len(lens[number]) };
        number += 1;
        buffer
    })
}
