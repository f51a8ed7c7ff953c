//! Methods of a user: what a file could not hold is refused when the adapter is made.

use std::sync::Arc;

use burn::module::Module;
use burn::nn::{Linear, LinearConfig};
use burn::tensor::{Device, Tensor};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use wegeft::{
    Adapted, AdapterConfig, AdapterError, Edit, Factors, Group, Init, Method, Spec, read, read_config_with, settings,
};

#[derive(Module, Debug)]
struct Model {
    up: Linear,
    head: Linear,
}

fn model() -> Model {
    let device = Device::flex();
    Model {
        up: LinearConfig::new(4, 3).init(&device),
        head: LinearConfig::new(3, 2).init(&device),
    }
}

/// A method of which only settings and factors matter.
macro_rules! method {
    ($method:ident, $specs:expr) => {
        impl Method for $method {
            fn name(&self) -> &'static str {
                "OWN"
            }

            fn settings(&self) -> Map<String, Value> {
                settings(self)
            }

            fn specs(&self, group: &Group) -> Vec<Spec> {
                let specs: fn(&Self, usize) -> Vec<Spec> = $specs;
                specs(self, group.site().d_out)
            }

            fn bind(&self, _group: &Group, factors: &Factors) -> Arc<dyn Edit> {
                Arc::new(Gain(factors.vector("gain")))
            }
        }
    };
}

#[derive(Debug)]
struct Gain(Tensor<1>);

impl Edit for Gain {
    fn residual(&self, weight: Tensor<2>) -> Tensor<2> {
        weight * self.0.clone().unsqueeze::<2>()
    }
}

fn gain(d_out: usize) -> Vec<Spec> {
    vec![Spec::new("gain", "own_gain", [d_out]).with_init(Init::Full(0.5))]
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Unit;
method!(Unit, |_, d_out| gain(d_out));

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum Kind {
    Plain,
    Times(f64),
}
method!(Kind, |_, d_out| gain(d_out));

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Bare(f64);
method!(Bare, |_, d_out| gain(d_out));

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Taken {
    modules_to_save: Vec<String>,
}
method!(Taken, |_, d_out| gain(d_out));

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Shaped {
    twice: bool,
}
method!(Shaped, |own, d_out| match own.twice {
    true => vec![
        Spec::new("gain", "first", [d_out]),
        Spec::new("gain", "second", [d_out])
    ],
    false => vec![Spec::new("gain", "gain", [d_out, 1, 1, 1, 1])],
});

fn init(method: impl Method) -> Result<Adapted<Model>, AdapterError> {
    AdapterConfig::new(method).with_target_modules(["up"]).init(model())
}

/// The settings after a way to disk and back.
fn again<M: Method + DeserializeOwned + Clone>(method: &M) -> M {
    let folder = tempfile::tempdir().unwrap();
    let adapted = init(method.clone()).unwrap();
    adapted.save(folder.path()).unwrap();
    let config = read_config_with(folder.path(), &[("OWN", read::<M>)]).unwrap();
    let loaded = config.load(model(), folder.path()).unwrap();
    let gains = [&adapted, &loaded].map(|adapted| adapted.bank().factors[0].vector("gain").into_data());
    assert_eq!(gains[0], gains[1]);
    config.settings::<M>().unwrap().clone()
}

#[test]
fn settings_are_fields_of_the_config() {
    assert_eq!(again(&Unit), Unit);
    assert_eq!(again(&Kind::Times(2.5)), Kind::Times(2.5));
    for (error, value) in [
        (init(Bare(2.5)).unwrap_err(), "2.5"),
        (init(Kind::Plain).unwrap_err(), "\"Plain\""),
    ] {
        let message = error.to_string();
        assert!(
            message.contains("OWN") && message.contains(value) && message.contains("named fields"),
            "{message}"
        );
    }
    let taken = Taken {
        modules_to_save: vec!["mine".to_string()],
    };
    let message = init(taken).unwrap_err().to_string();
    assert!(
        message.contains("field 'modules_to_save'") && message.contains("OWN"),
        "{message}"
    );
}

#[test]
fn factors_have_one_name_each_and_at_most_four_dimensions() {
    for (twice, part) in [(true, "two factors called 'gain'"), (false, "[3, 1, 1, 1, 1]")] {
        let message = init(Shaped { twice }).unwrap_err().to_string();
        assert!(
            message.contains("OWN") && message.contains("'up'") && message.contains(part),
            "{message}"
        );
    }
}

#[test]
fn a_file_of_an_unknown_method_says_how_to_read_one() {
    let folder = tempfile::tempdir().unwrap();
    init(Unit).unwrap().save(folder.path()).unwrap();
    let message = Adapted::load(model(), folder.path()).unwrap_err().to_string();
    for part in ["'OWN'", "LORA", "read_config_with", "attach_with"] {
        assert!(message.contains(part), "{message} lacks {part}");
    }
}
