//! The frozen weights that some methods start from (their principal part, their norms, a bias).

use std::collections::{HashMap, HashSet};

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{DType, Tensor};

use crate::site::Site;
use crate::tensor::dequantized;

/// Handles to the weights of a model's sites, by path. Nothing is copied.
pub struct Weights {
    matrices: HashMap<String, Tensor<2>>,
    vectors: HashMap<String, Tensor<1>>,
}

impl Weights {
    pub(crate) fn of<M: Module>(model: &M, sites: &[Site]) -> Self {
        let mut reader = Reader {
            path: Vec::new(),
            wanted: sites.iter().map(|site| site.path.as_str()).collect(),
            found: Self {
                matrices: HashMap::new(),
                vectors: HashMap::new(),
            },
        };
        model.visit(&mut reader);
        reader.found
    }

    /// The weight of a site, or its block of a fused weight, `[d_in, d_out]`, in f32 and without gradient.
    ///
    /// # Panics
    /// A site that is not a rank-2 weight among those that the method selected.
    pub fn matrix(&self, site: &Site) -> Tensor<2> {
        let weight = self.matrices[&site.path].clone().without_autodiff();
        let weight = dequantized(weight).cast(DType::F32);
        match &site.block {
            Some(block) => weight.narrow(1, block.start, site.d_out),
            None => weight,
        }
    }

    /// The whole weight of a site as a float tensor, `[d_in, columns]`, in its own dtype.
    pub(crate) fn whole(&self, site: &Site) -> Tensor<2> {
        dequantized(self.matrices[&site.path].clone())
    }

    /// The vector at a rank-1 site, `[d_out]`, in f32 and without gradient.
    ///
    /// # Panics
    /// A site that is not a vector among those that the method selected.
    pub fn vector(&self, site: &Site) -> Tensor<1> {
        dequantized(self.vectors[&site.path].clone().without_autodiff()).cast(DType::F32)
    }
}

struct Reader<'a> {
    path: Vec<String>,
    wanted: HashSet<&'a str>,
    found: Weights,
}

impl ModuleVisitor for Reader<'_> {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let path = self.path.join(".");
        if !self.wanted.contains(path.as_str()) {
            return;
        }
        let value = param.base();
        match value.dims()[..] {
            [rows, columns] => drop(self.found.matrices.insert(path, value.reshape([rows, columns]))),
            [length] => drop(self.found.vectors.insert(path, value.reshape([length]))),
            _ => {}
        }
    }
}
