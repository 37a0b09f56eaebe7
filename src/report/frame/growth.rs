//! How curves grow: the exponent of a power law, and what a doubling gives.

use polars::prelude::{Column, DataFrame, IdxSize, PolarsResult, df};

use super::{FrameError, fastest_at, numbers, texts};
use crate::lab::frontier::exponent;

/// A curve of a frame: its name and its points (x, y), by ascending x.
struct Curve {
    name: String,
    points: Vec<(f64, f64)>,
}

/// For each value of the column `name` the exponent e of y ≈ c·xᵉ, by least squares of the
/// logarithms: columns `name`, `points` (how many), `exponent` (null for fewer than two different
/// x). The curves are in the order in which their names appear.
///
/// ```
/// use fashion_knn::report::frame::exponents;
/// use polars::prelude::df;
///
/// // Twice the rows, four times the microseconds.
/// let frame = df!["index" => ["a", "a", "a"], "n" => [1, 2, 4], "us" => [3.0, 12.0, 48.0]]?;
/// let exponent = exponents(&frame, "index", "n", "us")?.column("exponent")?.f64()?.get(0);
/// assert!((exponent.unwrap_or_default() - 2.0).abs() < 1e-12);
/// # Ok::<(), polars::prelude::PolarsError>(())
/// ```
///
/// # Errors
/// If a column is missing, or `x` or `y` holds no numbers.
pub fn exponents(frame: &DataFrame, name: &str, x: &str, y: &str) -> PolarsResult<DataFrame> {
    let curves = curves(frame, name, x, y)?;
    let each = || curves.iter();
    df![
        name => each().map(|curve| curve.name.as_str()).collect::<Vec<_>>(),
        "points" => each().map(|curve| curve.points.len() as IdxSize).collect::<Vec<_>>(),
        "exponent" => each().map(|curve| exponent(&curve.points)).collect::<Vec<_>>(),
    ]
}

/// For each value of the column `name`, what y gained for each doubling of x between the two
/// greatest x: columns `name`, `from` and `to` (these x), `gain` (null for fewer than two).
///
/// ```
/// use fashion_knn::report::frame::doublings;
/// use polars::prelude::df;
///
/// // From 10 to 40 are two doublings.
/// let frame = df!["model" => ["a", "a"], "n" => [10, 40], "accuracy" => [0.5, 0.75]]?;
/// let gain = doublings(&frame, "model", "n", "accuracy")?.column("gain")?.f64()?.get(0);
/// assert_eq!(gain, Some(0.125));
/// # Ok::<(), polars::prelude::PolarsError>(())
/// ```
///
/// # Errors
/// If a column is missing, or `x` or `y` holds no numbers.
pub fn doublings(frame: &DataFrame, name: &str, x: &str, y: &str) -> PolarsResult<DataFrame> {
    let curves = curves(frame, name, x, y)?;
    let mut names = Vec::new();
    let (mut from, mut to, mut gains) = (Vec::new(), Vec::new(), Vec::new());
    for curve in &curves {
        let [.., before, last] = curve.points[..] else {
            continue;
        };
        names.push(curve.name.as_str());
        from.push(before.0);
        to.push(last.0);
        gains.push((last.1 - before.1) / (last.0 / before.0).log2());
    }
    df![name => names, "from" => from, "to" => to, "gain" => gains]
}

/// [`fastest_at`] each of the recalls `wanted`, one below the other, with the column `wanted`.
///
/// # Errors
/// As [`fastest_at`].
pub fn fastest_at_each(frame: &DataFrame, wanted: &[f64]) -> Result<DataFrame, FrameError> {
    let mut all = DataFrame::empty();
    for &recall in wanted {
        let mut fastest = fastest_at(frame, recall)?;
        let height = fastest.height();
        fastest.with_column(Column::new("wanted".into(), vec![recall; height]))?;
        // An empty frame has no columns, so nothing can be put below it.
        all = if all.width() == 0 {
            fastest
        } else {
            all.vstack(&fastest)?
        };
    }
    Ok(all)
}

/// The curves of a frame, in the order in which their names appear. Rows without an x or a y are
/// left out.
fn curves(frame: &DataFrame, name: &str, x: &str, y: &str) -> PolarsResult<Vec<Curve>> {
    let (x, y) = (numbers(frame, x)?, numbers(frame, y)?);
    let mut curves: Vec<Curve> = Vec::new();
    for (row, name) in texts(frame, name)?.into_iter().enumerate() {
        let (Some(x), Some(y)) = (x[row], y[row]) else {
            continue;
        };
        match curves.iter_mut().find(|curve| curve.name == name) {
            Some(curve) => curve.points.push((x, y)),
            None => curves.push(Curve {
                name,
                points: vec![(x, y)],
            }),
        }
    }
    for curve in &mut curves {
        curve.points.sort_by(|a, b| a.0.total_cmp(&b.0));
    }
    Ok(curves)
}
