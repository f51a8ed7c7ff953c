//! Labels of records: given, or computed from a record by VTAB's rules.

use crate::vtab::example::Example;
use crate::vtab::tasks::{Label, TaskInfo};

/// Lower edges of Clevr's distance bins; the last value is the end of the last bin.
const CLEVR_EDGES: [f32; 7] = [0.0, 8.0, 8.5, 9.0, 9.5, 10.0, 100.0];

/// Lower edges of KITTI's distance bins, metres.
const KITTI_EDGES: [f32; 4] = [-100.0, 8.0, 20.0, 999.0];

/// Distance for an image without a vehicle, metres.
const NO_VEHICLE: f32 = 1000.0;

/// TFDS numbers KITTI's types Car, Van, Truck, Pedestrian, …
const VEHICLES: i64 = 3;

/// The label of `example`.
///
/// # Errors
/// A feature that is missing, a label outside `classes`.
pub fn label(rule: Label, classes: usize, example: &Example) -> Result<usize, String> {
    let value = match rule {
        Label::Given(feature) => example.int(feature)?,
        Label::Scaled(feature, times, by) => return scaled(example.int(feature)?, times, by, classes),
        Label::Objects => (points(example, "objects/pixel_coords")?.len() / 3) as i64 - 3,
        Label::NearestObject => {
            let depths = points(example, "objects/pixel_coords")?
                .chunks_exact(3)
                .map(|point| point[2]);
            bin(&CLEVR_EDGES, depths.fold(f32::INFINITY, f32::min))?
        }
        Label::NearestVehicle => {
            let types = example.ints("objects/type")?;
            let places = points(example, "objects/location")?;
            if places.len() != 3 * types.len() {
                let (places, types) = (places.len(), types.len());
                return Err(format!(
                    "{places} values of 'objects/location' for {types} objects, expected 3 each"
                ));
            }
            let vehicles = places.chunks_exact(3).zip(types).filter(|(_, kind)| **kind < VEHICLES);
            bin(
                &KITTI_EDGES,
                vehicles.map(|(place, _)| place[2]).fold(NO_VEHICLE, f32::min),
            )?
        }
    };
    checked(value, classes)
}

/// The label of [`Label::Scaled`] for `value`.
///
/// # Errors
/// A label outside `classes`.
pub fn scaled(value: i64, times: usize, by: usize, classes: usize) -> Result<usize, String> {
    let value = value
        .checked_mul(times as i64)
        .ok_or(format!("value {value} is out of range"))?;
    checked(value.div_euclid(by as i64), classes)
}

fn checked(value: i64, classes: usize) -> Result<usize, String> {
    match usize::try_from(value) {
        Ok(label) if label < classes => Ok(label),
        _ => Err(format!(
            "label {value} is out of range; the task has {classes} classes (0 to {})",
            classes - 1
        )),
    }
}

/// Class names: `known` if their number is that of the task's classes, otherwise names from the label rule.
pub fn class_names(task: &TaskInfo, known: Option<Vec<String>>) -> Vec<String> {
    if let Some(names) = known.filter(|names| names.len() == task.classes) {
        return names;
    }
    let name = |class: usize| match task.label {
        Label::Given(_) => class.to_string(),
        Label::Objects => format!("{} objects", class + 3),
        Label::NearestObject => format!("{} to {}", CLEVR_EDGES[class], CLEVR_EDGES[class + 1]),
        Label::NearestVehicle => ["below 8 m", "8 to 20 m", "beyond 20 m", "no vehicle"][class].into(),
        Label::Scaled(feature, ..) => format!("{} {class}/{}", feature.trim_start_matches("label_"), task.classes),
    };
    (0..task.classes).map(name).collect()
}

fn points<'a>(example: &'a Example, feature: &str) -> Result<&'a [f32], String> {
    let values = example.floats(feature)?;
    match values.len() % 3 {
        0 => Ok(values),
        _ => Err(format!(
            "feature '{feature}' has {} values, expected 3 per object",
            values.len()
        )),
    }
}

/// Index of the last edge strictly below `distance`.
fn bin(edges: &[f32], distance: f32) -> Result<i64, String> {
    match edges.iter().rposition(|edge| *edge < distance) {
        Some(index) => Ok(index as i64),
        None => Err(format!(
            "distance {distance} is at or below the first edge, {}",
            edges[0]
        )),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::vtab::example::{Feature, Features, FloatList, IntList, Kind};

    fn example(features: &[(&str, Kind)]) -> Example {
        let feature = features.iter().map(|(name, kind)| {
            let kind = Some(kind.clone());
            (name.to_string(), Feature { kind })
        });
        Example {
            features: Some(Features {
                feature: feature.collect::<HashMap<_, _>>(),
            }),
        }
    }

    fn floats(value: &[f32]) -> Kind {
        Kind::Floats(FloatList { value: value.to_vec() })
    }

    fn ints(value: &[i64]) -> Kind {
        Kind::Ints(IntList { value: value.to_vec() })
    }

    fn clevr(depths: &[f32]) -> Example {
        let points: Vec<f32> = depths.iter().flat_map(|depth| [1.0, 2.0, *depth]).collect();
        example(&[("objects/pixel_coords", floats(&points))])
    }

    #[test]
    fn clevr_counts_objects_from_three() {
        for count in 3..=10 {
            assert_eq!(label(Label::Objects, 8, &clevr(&vec![9.0; count])), Ok(count - 3));
        }
        assert!(
            label(Label::Objects, 8, &clevr(&[9.0; 2]))
                .unwrap_err()
                .contains("label -1")
        );
        assert!(
            label(Label::Objects, 8, &clevr(&[9.0; 11]))
                .unwrap_err()
                .contains("label 8")
        );
    }

    #[test]
    fn clevr_distance_is_the_bin_of_the_nearest_and_an_edge_belongs_to_the_bin_below() {
        for (depths, expected) in [
            (&[9.2, 7.9, 12.0][..], 0),
            (&[8.0, 9.0], 0),
            (&[8.1, 9.0], 1),
            (&[8.5, 9.0], 1),
            (&[9.0, 9.4], 2),
            (&[9.5], 3),
            (&[10.0], 4),
            (&[10.1, 11.0], 5),
        ] {
            assert_eq!(
                label(Label::NearestObject, 6, &clevr(depths)),
                Ok(expected),
                "{depths:?}"
            );
        }
        assert!(label(Label::NearestObject, 6, &clevr(&[])).is_err());
    }

    #[test]
    fn kitti_looks_at_cars_vans_and_trucks_only() {
        let kitti = |objects: &[(i64, f32)]| {
            let types: Vec<i64> = objects.iter().map(|(kind, _)| *kind).collect();
            let places: Vec<f32> = objects.iter().flat_map(|(_, z)| [0.0, 0.0, *z]).collect();
            label(
                Label::NearestVehicle,
                4,
                &example(&[("objects/type", ints(&types)), ("objects/location", floats(&places))]),
            )
        };
        assert_eq!(kitti(&[(0, 30.0), (1, 7.0)]), Ok(0));
        assert_eq!(kitti(&[(0, 8.0)]), Ok(0));
        assert_eq!(kitti(&[(2, 20.0)]), Ok(1));
        assert_eq!(kitti(&[(0, 20.5), (3, 2.0)]), Ok(2));
        assert_eq!(kitti(&[(3, 2.0), (7, 9.0)]), Ok(3));
        assert_eq!(kitti(&[]), Ok(3));
    }

    #[test]
    fn dsprites_factors_fall_into_sixteen_bins() {
        let of = |rule, feature: &str, value| label(rule, 16, &example(&[(feature, ints(&[value]))]));
        let x = Label::Scaled("label_x_position", 1, 2);
        let angle = Label::Scaled("label_orientation", 2, 5);
        let bins = |rule, feature: &str, values: i64| -> Vec<usize> {
            (0..values).map(|value| of(rule, feature, value).unwrap()).collect()
        };
        assert_eq!(
            bins(x, "label_x_position", 32),
            (0..32).map(|i| i / 2).collect::<Vec<_>>()
        );
        let expected: Vec<usize> = (0..40).map(|i| (f64::from(i) / 2.5).floor() as usize).collect();
        assert_eq!(bins(angle, "label_orientation", 40), expected);
        assert!(of(x, "label_x_position", 32).is_err());
        assert!(of(x, "label_x_position", -1).is_err());
    }

    #[test]
    fn a_missing_feature_is_named_with_those_there_are() {
        let message = label(Label::Given("label"), 2, &example(&[("labels", ints(&[1]))])).unwrap_err();
        assert!(message.contains("'label'") && message.contains("labels"), "{message}");
    }
}
