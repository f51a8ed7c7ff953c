//! A mixed batch: rows of one batch that use different adapters, in one forward pass.

use std::sync::Arc;

use burn::module::Param;
use burn::tensor::{Int, Tensor};

use crate::edit::{Bound, Edit, Rebind};
use crate::factors::Factors;
use crate::prompts::Prompts;
use crate::tensor::{affine, cast, product, with_rest};

/// The rows of a batch that one adapter serves.
#[derive(Debug)]
struct Share {
    /// Their indices in the batch, ascending.
    rows: Vec<usize>,
    /// What is bound at this site for these rows; `None` for the frozen model.
    bound: Option<Bound>,
}

/// One site of a mixed batch. The first dimension of its input is the batch; `linear` may have flattened
/// `[batch, tokens, d]` to `[batch·tokens, d]`, where the tokens of an example stay together.
#[derive(Debug)]
struct BoundRows {
    batch: usize,
    /// Every row is in exactly one of them.
    shares: Vec<Share>,
}

/// An adapter's own copy of a frozen weight, such as its head.
#[derive(Debug)]
struct BoundOwn {
    /// `[d_in, d_out]`, bound to a weight.
    weight: Option<Tensor<2>>,
    /// `[d_out]`, bound to a bias.
    bias: Option<Tensor<1>>,
}

/// Bound state of a site in a mixed batch of `size` rows: for each adapter its rows and what they use.
pub(crate) fn rows(batch: usize, shares: Vec<(Vec<usize>, Option<Bound>)>) -> Bound {
    let plan: Vec<(Vec<usize>, bool)> = shares
        .iter()
        .map(|(rows, bound)| (rows.clone(), bound.is_some()))
        .collect();
    let parts = shares.into_iter().filter_map(|(_, bound)| bound).collect();
    Bound::composed(parts, move |parts| {
        let mut parts = parts.into_iter();
        let share = |(rows, adapted): &(Vec<usize>, bool)| Share {
            rows: rows.clone(),
            bound: if *adapted { parts.next() } else { None },
        };
        Arc::new(BoundRows {
            batch,
            shares: plan.iter().map(share).collect(),
        })
    })
}

/// Bound state of a parameter of which the adapter has its own trained copy: a weight or a bias.
pub(crate) fn own<const D: usize>(param: Param<Tensor<D>>) -> Bound {
    let rebind = Rebind::new(|factors| {
        let (weight, bias) = match D {
            1 => (None, Some(factors.vector("own"))),
            _ => (Some(factors.matrix("own")), None),
        };
        Arc::new(BoundOwn { weight, bias })
    });
    Bound::new(Factors::of_param("own", param), rebind)
}

impl BoundRows {
    /// `change` of the rows of every adapter, in the batch's order. `x`: `[batch, ..]`; the caller has checked that.
    fn by_share<const D: usize>(
        &self,
        x: Tensor<D>,
        change: impl Fn(Option<&dyn Edit>, Tensor<D>) -> Tensor<D>,
    ) -> Tensor<D> {
        let device = x.device();
        let indices = |rows: &[usize]| {
            let rows: Vec<i64> = rows.iter().map(|row| *row as i64).collect();
            Tensor::<1, Int>::from_ints(rows.as_slice(), &device)
        };
        let parts = self.shares.iter().map(|share| {
            let (first, count) = (share.rows[0], share.rows.len());
            let together = share.rows[count - 1] + 1 - first == count;
            let part = match together {
                true => x.clone().narrow(0, first, count),
                false => x.clone().select(0, indices(&share.rows)),
            };
            change(share.bound.as_ref().map(Bound::edit), part)
        });
        let joined = Tensor::cat(parts.collect(), 0);
        let order: Vec<usize> = self
            .shares
            .iter()
            .flat_map(|share| share.rows.iter().copied())
            .collect();
        if order.is_sorted() {
            return joined;
        }
        let mut back = vec![0; order.len()];
        for (place, row) in order.into_iter().enumerate() {
            back[row] = place;
        }
        joined.select(0, indices(&back))
    }

    /// `change` of the rows of every adapter, for `x` of `[batch·tokens, d]`.
    fn by_share_flat(&self, x: Tensor<2>, change: impl Fn(Option<&dyn Edit>, Tensor<2>) -> Tensor<2>) -> Tensor<2> {
        let [n, d] = x.dims();
        assert!(
            n % self.batch == 0,
            "bind_rows was given {} adapter names, but a layer's input has {n} rows, which is no multiple of that; give one name \
             per example of the batch",
            self.batch
        );
        let tokens = n / self.batch;
        let out = self.by_share(x.reshape([self.batch, tokens, d]), |edit, part| {
            let [rows, _, _] = part.dims();
            let out = change(edit, part.reshape([rows * tokens, d]));
            let [_, width] = out.dims();
            out.reshape([rows, tokens, width])
        });
        let [_, _, width] = out.dims();
        out.reshape([n, width])
    }
}

impl Edit for BoundRows {
    fn batch(&self) -> Option<usize> {
        Some(self.batch)
    }

    fn affine(
        &self,
        x: Tensor<2>,
        weight: Tensor<2>,
        bias: Option<Tensor<1>>,
        residual: Option<Tensor<2>>,
    ) -> Tensor<2> {
        let out = self.by_share_flat(x, |edit, x| match edit {
            Some(edit) => edit.affine(x, weight.clone(), None, None),
            None => product(x, weight.clone()),
        });
        with_rest(out, bias, residual)
    }

    fn residual(&self, _weight: Tensor<2>) -> Tensor<2> {
        panic!(
            "in a mixed batch rows have different weights; call wegeft::linear instead of Linear::forward, and wegeft::embedding \
             instead of Embedding::forward"
        )
    }

    fn bias(&self, _bias: Tensor<1>) -> Tensor<1> {
        panic!("in a mixed batch rows have different biases; call wegeft::linear instead of Linear::forward")
    }

    fn add_bias(&self, out: Tensor<2>, bias: Tensor<1>) -> Tensor<2> {
        self.by_share_flat(out, |edit, out| match edit {
            Some(edit) => edit.add_bias(out, bias.clone()),
            None => {
                let dtype = out.dtype();
                out + cast(bias.clone(), dtype).unsqueeze::<2>()
            }
        })
    }

    fn rows(&self, ids: Tensor<1, Int>, weight: Tensor<2>) -> Tensor<2> {
        let [n] = ids.dims();
        let tokens = n / self.batch;
        let mut parts = Vec::new();
        for share in &self.shares {
            let of = |row: &usize| ids.clone().narrow(0, row * tokens, tokens);
            let own = Tensor::cat(share.rows.iter().map(of).collect(), 0);
            let rows = match &share.bound {
                Some(bound) => bound.edit().rows(own, weight.clone()),
                None => weight.clone().select(0, own),
            };
            let [_, d] = rows.dims();
            let rows = rows.reshape([share.rows.len(), tokens, d]);
            parts.extend(
                share
                    .rows
                    .iter()
                    .enumerate()
                    .map(|(i, row)| (*row, rows.clone().narrow(0, i, 1))),
            );
        }
        parts.sort_by_key(|(row, _)| *row);
        let rows = Tensor::cat(parts.into_iter().map(|(_, part)| part).collect(), 0);
        let [_, _, d] = rows.dims();
        rows.reshape([n, d])
    }

    fn activation(&self, x: Tensor<3>) -> Tensor<3> {
        self.by_share(x, |edit, x| match edit {
            Some(edit) => edit.activation(x),
            None => x,
        })
    }

    fn activation_in(&self, x: Tensor<3>, prompts: &Prompts) -> Tensor<3> {
        let [_, tokens, _] = x.dims();
        let rows = (0..self.batch).map(|row| {
            let own = x.clone().narrow(0, row, 1);
            let share = self.shares.iter().find(|share| share.rows.contains(&row));
            match share.and_then(|share| share.bound.as_ref()) {
                Some(bound) => {
                    let places = prompts.places[row * tokens..(row + 1) * tokens].to_vec();
                    bound.edit().activation_in(own, &Prompts { places })
                }
                None => own,
            }
        });
        Tensor::cat(rows.collect(), 0)
    }
}

impl Edit for BoundOwn {
    fn affine(
        &self,
        x: Tensor<2>,
        weight: Tensor<2>,
        bias: Option<Tensor<1>>,
        residual: Option<Tensor<2>>,
    ) -> Tensor<2> {
        affine(x, self.weight.clone().unwrap_or(weight), bias, residual)
    }

    fn residual(&self, weight: Tensor<2>) -> Tensor<2> {
        match &self.weight {
            Some(own) => own.clone() - weight,
            None => weight.zeros_like(),
        }
    }

    fn bias(&self, bias: Tensor<1>) -> Tensor<1> {
        self.bias.clone().unwrap_or(bias)
    }
}
