//! report.html of a run folder.

use std::path::Path;

use crate::cli::settings::LONGEST;
use crate::report::layout::Layout;
use crate::report::page::{Section, page};
use crate::report::{image_page, text_page};
use crate::run::files::replace;
use crate::run::outcome::Outcome;

/// Writes `report.html` into the run folder `out` of program `title`: the results, curves of each training, samples of what
/// the models say, the settings. `table` is the table as the terminal shows it.
///
/// # Errors
/// A plot that cannot be drawn or a file that cannot be read or written.
pub fn write(out: &Path, title: &str, layout: &Layout, outcomes: &[Outcome], table: &str) -> Result<(), String> {
    let mut sections = match layout {
        Layout::Tasks => image_page::sections(out, layout, outcomes)?,
        Layout::Sets { .. } | Layout::Losses | Layout::Texts { .. } => {
            text_page::sections(out, layout, outcomes, table)?
        }
    };
    let settings = files::read_text(&out.join("config.toml"), LONGEST).unwrap_or_default();
    sections.push(Section {
        title: "Settings".into(),
        text: settings,
        ..Section::default()
    });
    let html = page(title, &out.display().to_string(), &sections)?;
    replace(&out.join("report.html"), html.as_bytes())
}
