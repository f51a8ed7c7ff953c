//! Reports as one HTML file that needs no network, from one template that escapes all its input.

use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, Value, context};

use crate::cli::output::plain;

/// A part of a page. Empty fields are left out.
#[derive(Debug, Default)]
pub struct Section {
    /// Heading.
    pub title: String,
    /// A sentence below it.
    pub note: String,
    /// A table.
    pub rows: Vec<Row>,
    /// Plots, SVG.
    pub plots: Vec<String>,
    /// Links to files beside the page.
    pub links: Vec<Link>,
    /// Images with their predictions.
    pub images: Vec<Image>,
    /// Answers to questions.
    pub answers: Vec<Shown>,
    /// Preformatted text.
    pub text: String,
}

/// A row of a table.
#[derive(Debug)]
pub struct Row {
    /// The heading.
    pub head: bool,
    /// A mean.
    pub mean: bool,
    /// Cells.
    pub cells: Vec<String>,
}

/// A link to a file beside the page.
#[derive(Debug)]
pub struct Link {
    /// Where it leads, a relative URL.
    pub href: String,
    /// What it says.
    pub text: String,
}

/// An image with its prediction.
#[derive(Debug)]
pub struct Image {
    /// `data:` URI.
    pub source: String,
    /// Label.
    pub label: String,
    /// Most likely class.
    pub predicted: String,
    /// Its probability, percent.
    pub percent: String,
    /// Whether the two differ.
    pub wrong: bool,
}

/// An answer to a question.
#[derive(Debug)]
pub struct Shown {
    /// The question.
    pub prompt: String,
    /// The answer.
    pub output: String,
    /// What was extracted.
    pub extracted: String,
    /// The right answer.
    pub gold: String,
    /// Whether it is right.
    pub right: bool,
}

/// Rows as a table, the first one its heading.
pub fn rows(cells: Vec<Vec<String>>) -> Vec<Row> {
    let row = |(index, cells)| Row {
        head: index == 0,
        mean: false,
        cells,
    };
    cells.into_iter().enumerate().map(row).collect()
}

/// Rows of a table that has a mean in some rows.
pub fn with_means(cells: Vec<Vec<String>>, is_mean: impl Fn(&str) -> bool) -> Vec<Row> {
    let mut rows = rows(cells);
    for row in &mut rows {
        row.mean = row.cells.first().is_some_and(|name| is_mean(name));
    }
    rows
}

impl From<&Section> for Value {
    fn from(section: &Section) -> Self {
        let row = |row: &Row| context! { head => row.head, mean => row.mean, cells => row.cells.clone() };
        let image = |image: &Image| {
            context! {
                source => image.source.as_str(),
                label => image.label.as_str(),
                predicted => image.predicted.as_str(),
                percent => image.percent.as_str(),
                wrong => image.wrong,
            }
        };
        let link = |link: &Link| context! { href => link.href.as_str(), text => link.text.as_str() };
        let answer = |answer: &Shown| {
            context! {
                prompt => answer.prompt.as_str(),
                output => answer.output.as_str(),
                extracted => answer.extracted.as_str(),
                gold => answer.gold.as_str(),
                right => answer.right,
            }
        };
        context! {
            title => section.title.as_str(),
            note => section.note.as_str(),
            rows => section.rows.iter().map(row).collect::<Vec<_>>(),
            plots => section.plots.clone(),
            links => section.links.iter().map(link).collect::<Vec<_>>(),
            images => section.images.iter().map(image).collect::<Vec<_>>(),
            answers => section.answers.iter().map(answer).collect::<Vec<_>>(),
            text => section.text.as_str(),
        }
    }
}

/// A page with `sections`; `folder` is shown next to the title.
///
/// # Errors
/// A template that fails.
pub fn page(title: &str, folder: &str, sections: &[Section]) -> Result<String, String> {
    // The file name's ending turns on escaping.
    const NAME: &str = "report.html";
    let mut environment = Environment::new();
    // Lines that contain only tags must not leave empty lines.
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
    environment.set_syntax(syntax.map_err(|e| e.to_string())?);
    environment
        .add_template(NAME, include_str!("report.html"))
        .map_err(|e| e.to_string())?;
    let template = environment.get_template(NAME).map_err(|e| e.to_string())?;
    let html = template
        .render(context! { title, folder, sections => sections.iter().map(Value::from).collect::<Vec<_>>() })
        .map_err(|e| format!("the report cannot be made: {e}"))?;
    // A name must not turn the text around it, which a browser would show in another order.
    Ok(plain(&html))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_become_markup() {
        let bad = "<b a=\"&\">\u{202e}\u{2066}".to_string();
        let section = Section {
            title: bad.clone(),
            rows: rows(vec![vec![bad.clone()], vec![bad.clone()]]),
            links: vec![Link {
                href: bad.clone(),
                text: bad.clone(),
            }],
            images: vec![Image {
                source: bad.clone(),
                label: bad.clone(),
                predicted: bad.clone(),
                percent: bad.clone(),
                wrong: true,
            }],
            answers: vec![Shown {
                prompt: bad.clone(),
                output: bad.clone(),
                extracted: bad.clone(),
                gold: bad.clone(),
                right: false,
            }],
            text: bad.clone(),
            plots: vec!["<svg/>".into()],
            note: bad.clone(),
        };
        let html = page(&bad, &bad, &[section]).unwrap();
        assert!(
            !html.contains("<b a") && html.contains("&lt;b a=&quot;&amp;&quot;&gt;\\u202e\\u2066"),
            "{html}"
        );
        assert!(!html.contains(['\u{202e}', '\u{2066}']), "{html}");
        assert!(html.contains("<svg/>"));
    }
}
