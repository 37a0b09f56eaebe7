//! The chart of what was measured: `--plot`.

use std::error::Error;
use std::path::Path;

#[cfg(feature = "report")]
use {
    fashion_knn::files,
    fashion_knn::lab::record::Measurement,
    fashion_knn::report::figure::{Figure, escape},
    fashion_knn::report::frame::{frame_of, frontier, machines},
    fashion_knn::report::numbers::{NumberFormat, write_as},
    fashion_knn::report::words::recall_chart,
};

/// Whether so many charts can be put there: one for each k and size of the base.
#[cfg(feature = "report")]
pub fn check(path: &Path, charts: usize) -> Result<(), Box<dyn Error>> {
    let told = |why: &str| format!("--plot {}: {why}", path.display());
    match ending(path) {
        Some("html") => {}
        Some("svg") if charts == 1 => {}
        Some("svg") => {
            let why = "an .svg file has one chart; give a name that ends in .html for several k \
                       or sizes of the base";
            return Err(told(why).into());
        }
        _ => return Err(told("expected a name that ends in .svg or .html").into()),
    }
    files::check_file(path).map_err(|error| told(&error.to_string()))?;
    Ok(())
}

#[cfg(not(feature = "report"))]
pub fn check(path: &Path, _: usize) -> Result<(), Box<dyn Error>> {
    let path = path.display();
    Err(format!("--plot {path}: built without the feature `report`, which draws charts").into())
}

#[cfg(feature = "report")]
fn ending(path: &Path) -> Option<&str> {
    path.extension().and_then(|ending| ending.to_str())
}

/// Draws the rows: queries per second against recall, a line an index, of the settings that no
/// other setting of the index beats in both.
#[cfg(feature = "report")]
pub fn draw(path: &Path, rows: &[Measurement]) -> Result<(), Box<dyn Error>> {
    // This program speaks English, and the reports Catalan.
    write_as(NumberFormat::ENGLISH);
    let mut charts = Vec::new();
    // Rows of another size or k are of another task, and have a chart of their own.
    let mut tasks: Vec<(usize, usize)> = rows.iter().map(|row| (row.n, row.k)).collect();
    tasks.sort_unstable();
    tasks.dedup();
    for task in tasks {
        let of_task = rows.iter().filter(|row| (row.n, row.k) == task);
        charts.push(chart(&of_task.cloned().collect::<Vec<_>>())?);
    }
    let text = match &charts[..] {
        [] => return Ok(()),
        [chart] if ending(path) == Some("svg") => chart.svg(),
        charts => page(&rows[0].data, charts),
    };
    files::write_atomically(path, text.as_bytes())?;
    Ok(())
}

/// The chart of rows of one task.
#[cfg(feature = "report")]
fn chart(rows: &[Measurement]) -> Result<Figure, Box<dyn Error>> {
    let Measurement { data, n, d, k, .. } = &rows[0];
    let title = format!("{data}: {n} × {d}, k = {k}");
    let frame = frame_of(rows)?;
    let front = frontier(&frame, "qps")?;
    let chart = recall_chart(&title, &front, "qps", "queries per second, one at a time")?;
    Ok(chart.note(machines(&frame)?).figure()?)
}

/// A page of charts. It needs nothing from elsewhere.
#[cfg(feature = "report")]
fn page(data: &str, charts: &[Figure]) -> String {
    let title = escape(data);
    let charts: Vec<String> = charts.iter().map(Figure::svg).collect();
    let charts = charts.join("\n");
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <title>{title}: recall and queries per second</title>\n</head>\n<body>\n{charts}\n\
         </body>\n</html>\n"
    )
}
