//! The report's plots, as SVG text.

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::report::ticks::{self, Ticked};

const COLOURS: [RGBColor; 6] = [
    RGBColor(76, 114, 176),
    RGBColor(221, 132, 82),
    RGBColor(85, 168, 104),
    RGBColor(196, 78, 82),
    RGBColor(129, 114, 179),
    RGBColor(147, 120, 96),
];

/// Name and points of a curve. Curves of one name share a colour and a line of the legend.
pub type Curve = (String, Vec<(f64, f64)>);

/// Curves of percent over epochs.
///
/// # Errors
/// Errors of the plotting library.
pub fn curves(title: &str, curves: &[Curve]) -> Result<String, String> {
    lines(
        title,
        curves,
        &Frame {
            size: (420, 260),
            x: "epoch",
            y: "validation top-1, %",
            least_top: 1.0,
            most: 100.0,
            names: SeriesLabelPosition::LowerRight,
        },
    )
}

/// Curves of loss over steps.
///
/// # Errors
/// Errors of the plotting library.
pub fn losses(title: &str, curves: &[Curve]) -> Result<String, String> {
    lines(
        title,
        curves,
        &Frame {
            size: (560, 300),
            x: "step",
            y: "loss",
            least_top: 0.1,
            most: f64::INFINITY,
            names: SeriesLabelPosition::UpperRight,
        },
    )
}

/// Size and axes of a plot of curves.
struct Frame {
    /// Pixels.
    size: (u32, u32),
    x: &'static str,
    y: &'static str,
    /// Least upper end of the y axis.
    least_top: f64,
    /// Greatest upper end of the y axis.
    most: f64,
    names: SeriesLabelPosition,
}

fn lines(title: &str, curves: &[Curve], frame: &Frame) -> Result<String, String> {
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, frame.size).into_drawing_area();
        area.fill(&WHITE).map_err(|e| e.to_string())?;
        let points = || curves.iter().flat_map(|(_, points)| points);
        let last = points().map(|point| point.0).fold(1.0, f64::max);
        let top = points().map(|point| point.1).fold(frame.least_top, f64::max) * 1.05;
        let mut chart = ChartBuilder::on(&area)
            .caption(title, ("sans-serif", 16))
            .margin(8)
            .margin_right(18)
            .x_label_area_size(34)
            .y_label_area_size(56)
            .build_cartesian_2d(0.0..last, 0.0..top.min(frame.most))
            .map_err(|e| e.to_string())?;
        chart
            .configure_mesh()
            .x_desc(frame.x)
            .y_desc(frame.y)
            .light_line_style(TRANSPARENT)
            .draw()
            .map_err(|e| e.to_string())?;
        let mut names: Vec<&String> = Vec::new();
        for (name, points) in curves {
            let known = names.iter().position(|known| *known == name);
            let colour = COLOURS[known.unwrap_or(names.len()) % COLOURS.len()];
            let drawn = chart
                .draw_series(LineSeries::new(points.iter().copied(), colour.stroke_width(2)))
                .map_err(|e| e.to_string())?;
            if known.is_none() {
                names.push(name);
                drawn
                    .label(name)
                    .legend(move |(x, y)| PathElement::new([(x, y), (x + 14, y)], colour.stroke_width(2)));
            }
        }
        chart
            .configure_series_labels()
            .position(frame.names.clone())
            .background_style(WHITE.mix(0.8))
            .draw()
            .map_err(|e| e.to_string())?;
        area.present().map_err(|e| e.to_string())?;
    }
    Ok(svg)
}

/// A named point.
#[derive(Debug, Clone, PartialEq)]
pub struct Point {
    /// Its name.
    pub name: String,
    /// Coordinate.
    pub x: f64,
    /// Coordinate.
    pub y: f64,
    /// Half the height of its error bar.
    pub spread: Option<f64>,
}

/// Kind of the x axis of [`scatter`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Axis {
    /// Linear.
    Linear,
    /// Logarithmic; a value of 0 is drawn at the left edge, with a tick of its own.
    Logarithmic,
}

/// Named points, each in its own colour, with bars of their standard deviations.
///
/// # Errors
/// Errors of the plotting library.
pub fn scatter(x_desc: &str, y_desc: &str, axis: Axis, points: &[Point]) -> Result<String, String> {
    let least = points
        .iter()
        .map(|p| p.x)
        .filter(|x| *x > 0.0)
        .fold(f64::INFINITY, f64::min);
    let least = if least.is_finite() { least } else { 1.0 };
    let place = |x: f64| match axis {
        Axis::Linear => x,
        Axis::Logarithmic => x.max(least / 10.0).log10(),
    };
    let extent = |values: &[f64]| {
        let low = values.iter().copied().fold(f64::INFINITY, f64::min);
        let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let room = if high > low { 0.15 * (high - low) } else { 1.0 };
        if values.is_empty() {
            0.0..1.0
        } else {
            low - room..high + room
        }
    };
    let xs = extent(&points.iter().map(|p| place(p.x)).collect::<Vec<_>>());
    let zero = place(0.0);
    let has_zero = points.iter().any(|p| p.x <= 0.0);
    let xs_ticks = match axis {
        Axis::Linear => ticks::linear(&xs),
        // Between 0 and the other points the axis has no scale.
        Axis::Logarithmic if has_zero => {
            let scaled = ticks::logarithmic(&(xs.start.max(least.log10() - 0.4)..xs.end));
            [zero].into_iter().chain(scaled).collect()
        }
        Axis::Logarithmic => ticks::logarithmic(&xs),
    };
    let ends = |p: &Point| [p.y - p.spread.unwrap_or(0.0), p.y + p.spread.unwrap_or(0.0)];
    let ys = extent(&points.iter().flat_map(ends).collect::<Vec<_>>());
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, (560, 340)).into_drawing_area();
        area.fill(&WHITE).map_err(|e| e.to_string())?;
        let step = (xs.end - xs.start) / 100.0;
        let mut chart = ChartBuilder::on(&area)
            .margin(8)
            .margin_right(18)
            .x_label_area_size(40)
            .y_label_area_size(60)
            .build_cartesian_2d(Ticked::new(xs.clone(), xs_ticks), ys)
            .map_err(|e| e.to_string())?;
        let label = |x: &f64| match axis {
            Axis::Linear => ticks::label(*x),
            Axis::Logarithmic if has_zero && *x <= zero => "0".into(),
            Axis::Logarithmic => ticks::label(10f64.powf(*x)),
        };
        chart
            .configure_mesh()
            .x_label_formatter(&label)
            .x_desc(x_desc)
            .y_desc(y_desc)
            .light_line_style(TRANSPARENT)
            .draw()
            .map_err(|e| e.to_string())?;
        let middle = 50.0 * step + xs.start;
        for (index, point) in points.iter().enumerate() {
            let colour = COLOURS[index % COLOURS.len()];
            let at = (place(point.x), point.y);
            if point.spread.is_some() {
                let [low, high] = ends(point);
                let cap = |y| vec![(at.0 - step, y), (at.0 + step, y)];
                let bar = [vec![(at.0, low), (at.0, high)], cap(low), cap(high)];
                chart
                    .draw_series(bar.map(|line| PathElement::new(line, colour)))
                    .map_err(|e| e.to_string())?;
            }
            chart
                .draw_series([Circle::new(at, 5, colour.filled())])
                .map_err(|e| e.to_string())?;
            // On the side that has room.
            let (side, end) = match at.0 > middle {
                true => (-1.5, HPos::Right),
                false => (1.5, HPos::Left),
            };
            let style = ("sans-serif", 12)
                .into_font()
                .color(&colour)
                .pos(Pos::new(end, VPos::Center));
            let text = Text::new(point.name.clone(), (at.0 + side * step, at.1), style);
            chart.draw_series([text]).map_err(|e| e.to_string())?;
        }
        area.present().map_err(|e| e.to_string())?;
    }
    Ok(svg)
}

/// Points and a straight line through them.
pub struct Panel {
    /// What x counts.
    pub x: String,
    /// What y measures.
    pub y: String,
    /// Points.
    pub points: Vec<(f64, f64)>,
    /// Ends of the line.
    pub line: Vec<(f64, f64)>,
}

/// Panels side by side; all axes start at 0.
///
/// # Errors
/// Errors of the plotting library.
pub fn panels(title: &str, panels: &[Panel]) -> Result<String, String> {
    let mut svg = String::new();
    {
        let size = (300 * panels.len().max(1) as u32, 280);
        let area = SVGBackend::with_string(&mut svg, size).into_drawing_area();
        area.fill(&WHITE).map_err(|e| e.to_string())?;
        let area = area.titled(title, ("sans-serif", 14)).map_err(|e| e.to_string())?;
        for (area, panel) in area.split_evenly((1, panels.len().max(1))).iter().zip(panels) {
            let most =
                |axis: fn(&(f64, f64)) -> f64| panel.points.iter().map(axis).fold(f64::MIN_POSITIVE, f64::max) * 1.1;
            let mut chart = ChartBuilder::on(area)
                .margin(8)
                .x_label_area_size(34)
                .y_label_area_size(48)
                .build_cartesian_2d(0.0..most(|p| p.0), 0.0..most(|p| p.1))
                .map_err(|e| e.to_string())?;
            chart
                .configure_mesh()
                .x_labels(6)
                .x_label_formatter(&|x| format!("{x:.0}"))
                .x_desc(&panel.x)
                .y_desc(&panel.y)
                .light_line_style(TRANSPARENT)
                .draw()
                .map_err(|e| e.to_string())?;
            chart
                .draw_series(LineSeries::new(panel.line.iter().copied(), COLOURS[0].stroke_width(2)))
                .map_err(|e| e.to_string())?;
            chart
                .draw_series(
                    panel
                        .points
                        .iter()
                        .map(|point| Circle::new(*point, 4, COLOURS[1].filled())),
                )
                .map_err(|e| e.to_string())?;
        }
        area.present().map_err(|e| e.to_string())?;
    }
    Ok(svg)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plots_hold_what_they_show() {
        let svg = curves("digits", &[("wegeft".into(), vec![(1.0, 20.0), (2.0, 60.0)])]).unwrap();
        assert!(
            svg.contains("digits") && svg.contains("wegeft") && svg.contains("<polyline"),
            "{svg}"
        );
        let seeds = [("lora", 20.0), ("wegeft", 30.0), ("lora", 40.0)];
        let seeds = seeds.map(|(name, y)| (name.to_string(), vec![(1.0, y), (2.0, y)]));
        let svg = curves("digits", &seeds).unwrap();
        assert_eq!(svg.matches("lora").count(), 1, "{svg}");
        let point = |name: &str, x, y, spread| Point {
            name: name.into(),
            x,
            y,
            spread,
        };
        let points = [point("linear", 0.0, 60.0, None), point("wegeft", 0.029, 74.1, None)];
        let svg = scatter("trainable, %", "top-1", Axis::Logarithmic, &points).unwrap();
        assert!(svg.contains("wegeft") && svg.matches("<circle").count() == 2, "{svg}");
        // A tick of its own for 0, and none between it and the other points.
        for (shown, label) in [(true, "\n0\n"), (true, "\n0.02\n"), (false, "\n0.005\n")] {
            assert_eq!(svg.contains(label), shown, "{label}: {svg}");
        }
        let lines = svg.matches("<line").count() + svg.matches("<polyline").count();
        let points = [
            point("linear", 0.0, 60.0, Some(2.0)),
            point("wegeft", 0.029, 74.1, None),
        ];
        let barred = scatter("trainable, %", "top-1", Axis::Logarithmic, &points).unwrap();
        assert!(
            barred.matches("<line").count() + barred.matches("<polyline").count() > lines,
            "{barred}"
        );
        let svg = losses("lora", &[("train".into(), vec![(1.0, 2.0), (2.0, 1.0)])]).unwrap();
        assert!(svg.contains("lora") && svg.contains("<polyline"), "{svg}");
        let panel = Panel {
            x: "rank".into(),
            y: "ms".into(),
            points: vec![(8.0, 1.0), (16.0, 2.0)],
            line: vec![(0.0, 0.0), (16.0, 2.0)],
        };
        let svg = panels("cost", &[panel]).unwrap();
        assert!(svg.contains("rank") && svg.matches("<circle").count() == 2, "{svg}");
        assert!(losses("nothing", &[]).is_ok() && panels("nothing", &[]).is_ok());
        assert!(curves("empty", &[]).is_ok());
        assert!(scatter("empty", "", Axis::Linear, &[]).is_ok());
    }
}
