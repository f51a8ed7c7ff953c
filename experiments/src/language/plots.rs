//! The report's loss curves, as SVG text.

use plotters::prelude::*;

const COLOURS: [RGBColor; 4] = [
    RGBColor(76, 114, 176),
    RGBColor(221, 132, 82),
    RGBColor(85, 168, 104),
    RGBColor(196, 78, 82),
];

/// Name and points (step, loss) of a curve.
pub type Curve = (String, Vec<(f64, f64)>);

/// Loss over steps.
///
/// # Errors
/// What the drawing library says.
pub fn losses(title: &str, curves: &[Curve]) -> Result<String, String> {
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, (560, 300)).into_drawing_area();
        area.fill(&WHITE).map_err(|e| e.to_string())?;
        let points = || curves.iter().flat_map(|(_, points)| points);
        let last = points().map(|point| point.0).fold(1.0, f64::max);
        let top = points().map(|point| point.1).fold(0.1, f64::max) * 1.05;
        let mut chart = ChartBuilder::on(&area)
            .caption(title, ("sans-serif", 16))
            .margin(8)
            .margin_right(18)
            .x_label_area_size(34)
            .y_label_area_size(56)
            .build_cartesian_2d(0.0..last, 0.0..top)
            .map_err(|e| e.to_string())?;
        chart
            .configure_mesh()
            .x_desc("step")
            .y_desc("loss")
            .light_line_style(TRANSPARENT)
            .draw()
            .map_err(|e| e.to_string())?;
        for (index, (name, points)) in curves.iter().enumerate() {
            let colour = COLOURS[index % COLOURS.len()];
            chart
                .draw_series(LineSeries::new(points.iter().copied(), colour.stroke_width(2)))
                .map_err(|e| e.to_string())?
                .label(name)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 14, y)], colour.stroke_width(2)));
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperRight)
            .background_style(WHITE.mix(0.8))
            .draw()
            .map_err(|e| e.to_string())?;
        area.present().map_err(|e| e.to_string())?;
    }
    Ok(svg)
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_plot_holds_what_it_shows() {
        let svg = super::losses("lora", &[("train".into(), vec![(1.0, 2.0), (2.0, 1.0)])]).unwrap();
        assert!(svg.contains("lora") && svg.contains("<polyline"), "{svg}");
        assert!(super::losses("nothing", &[]).is_ok());
    }
}
