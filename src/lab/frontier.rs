//! What the rows of the record say when they are compared.
//!
//! The form of the comparison is that of ann-benchmarks (Aumüller, Bernhardsson, Faithfull 2020):
//! of each index only the settings that no other of its settings beats in both recall and queries
//! per second.
//!
//! ```text
//! queries/s
//!     | x
//!     |    .  x            x  on the frontier
//!     |  .        x        .  beaten: another setting is faster and finds more
//!     |       .     x
//!     +---------------- recall
//! ```

use crate::index::registry;
use crate::lab::record::Measurement;

/// The names of the real libraries' indexes, as `benches/peers` writes them and for a reader. A
/// library that is not here, such as hnswlib, has a name that reads well as it is.
const LIBRARIES: [(&str, &str); 22] = [
    ("annoy_spotify", "Annoy (Spotify)"),
    ("annsearch_kmknn", "ann-search, k-means"),
    ("annsearch_qg", "ann-search, QG"),
    ("faiss_flat", "FAISS Flat"),
    ("faiss_hnsw", "FAISS HNSW"),
    ("faiss_ivf_flat", "FAISS IVF Flat"),
    ("faiss_ivf_panorama", "FAISS IVF Panorama"),
    ("faiss_ivf_pq", "FAISS IVF PQ"),
    ("faiss_ivf_rabitq", "FAISS IVF RaBitQ"),
    ("faiss_panorama", "FAISS Panorama"),
    ("glass_hnsw", "pyglass HNSW"),
    ("glass_nsg", "pyglass NSG"),
    ("ngt_anng", "NGT (Yahoo), ANNG"),
    ("ngt_onng", "NGT (Yahoo), ONNG"),
    ("nmslib", "NMSLIB"),
    ("pynear_vp_tree", "pynear, VP-tree"),
    ("pynndescent", "PyNNDescent"),
    ("scann_google", "ScaNN (Google)"),
    ("sklearn_ball_tree", "scikit-learn, ball tree"),
    ("sklearn_brute", "scikit-learn, brute"),
    ("sklearn_kd_tree", "scikit-learn, KD-tree"),
    ("symphony_qg", "SymphonyQG"),
];

/// The name of an index for a reader: that of the registry for ours, the library's for theirs,
/// otherwise what the record calls it.
#[must_use]
pub fn label(index: &str) -> &str {
    if let Some(entry) = registry::find(index) {
        return entry.name;
    }
    let library = LIBRARIES.iter().find(|(known, _)| *known == index);
    library.map_or(index, |(_, name)| name)
}

/// Whether the index is one of this crate.
#[must_use]
pub fn is_ours(index: &str) -> bool {
    registry::find(index).is_some()
}

/// Whether the index finds the true neighbours, each time. Of a library that is not known here it
/// is not to be told, and it counts as approximate.
#[must_use]
pub fn is_exact(index: &str) -> bool {
    const EXACT_LIBRARIES: [&str; 7] = [
        "annsearch_kmknn",
        "faiss_flat",
        "faiss_panorama",
        "pynear_vp_tree",
        "sklearn_ball_tree",
        "sklearn_brute",
        "sklearn_kd_tree",
    ];
    registry::find(index).map_or(EXACT_LIBRARIES.contains(&index), |entry| entry.exact)
}

/// The names of the indexes in the rows: ours in the registry's order, then the others as they
/// come.
#[must_use]
pub fn indexes(rows: &[Measurement]) -> Vec<&str> {
    // The registry's order is that of the report's tables, whichever order the rows were measured
    // in. The loop then adds what the registry does not know: ours are in `names` already.
    let ours = registry::REGISTRY.iter().map(|entry| entry.key);
    let is_there = |key: &&str| rows.iter().any(|row| row.index == *key);
    let mut names: Vec<&str> = ours.filter(is_there).collect();
    for row in rows {
        if !names.contains(&row.index.as_str()) {
            names.push(&row.index);
        }
    }
    names
}

/// The Pareto frontier: the rows that no other beats in both recall and cost (less is better), by
/// ascending recall. For queries per second, the cost is `|row| -row.qps`.
#[must_use]
pub fn pareto<R>(
    rows: impl IntoIterator<Item = R>,
    recall: impl Fn(&R) -> f64,
    cost: impl Fn(&R) -> f64,
) -> Vec<R> {
    // From the greatest recall down, and within a recall from the cheapest up. All rows before a
    // row then find as much as it does or more, so it is on the frontier exactly if it is cheaper
    // than all of them. Of rows alike in both, the first stays: the others are not cheaper. The
    // sort makes this n log n, where comparing all pairs would be n².
    let mut rows: Vec<R> = rows.into_iter().collect();
    rows.sort_by(|a, b| {
        let by_recall = recall(b).total_cmp(&recall(a));
        by_recall.then(cost(a).total_cmp(&cost(b)))
    });
    let mut least = f64::INFINITY;
    let mut frontier = Vec::new();
    for row in rows {
        if cost(&row) < least {
            least = cost(&row);
            frontier.push(row);
        }
    }
    frontier.reverse();
    frontier
}

/// What a setting finds, and how fast.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RecallAndSpeed {
    /// recall@k, from 0 to 1.
    pub recall: f64,
    /// Queries per second.
    pub qps: f64,
}

/// Queries per second at a recall, by the frontier of the measured settings; `None` if no setting
/// reaches it.
///
/// Between the last setting below the recall and the first one above, the frontier is a straight
/// line in log(1 − recall) and log(queries per second). Where no setting is below, or one has the
/// recall itself, it is that setting's.
#[must_use]
pub fn qps_at(settings: &[RecallAndSpeed], recall: f64) -> Option<f64> {
    let settings = settings.iter().copied();
    let front = pareto(settings, |setting| setting.recall, |setting| -setting.qps);
    // The frontier ascends in recall, so the first setting that reaches it is the fastest that
    // does, and the one before it, if there is one, falls short.
    let above = front.iter().position(|row| row.recall >= recall)?;
    let high = front[above];
    if above == 0 || high.recall == recall {
        return Some(high.qps);
    }
    let low = front[above - 1];
    // The line is straight in the logarithm of the share missed: from .9 to .99 is as far as from
    // .99 to .999, since both leave a tenth of the misses. At recall 1 the logarithm has no value.
    // It is taken at 10⁻⁵, one neighbour missed in 100,000: the least that 10,000 queries of 10
    // neighbours can tell from none.
    let missed = |recall: f64| (1.0 - recall).max(1e-5).ln();
    let span = missed(low.recall) - missed(high.recall);
    // Both miss less than can be told: there is no line between them.
    if span == 0.0 {
        return Some(high.qps);
    }
    let share = (missed(recall) - missed(high.recall)) / span;
    // `share` is how far the recall lies from `high` towards `low`: 0 at `high`, 1 at `low`.
    Some((high.qps.ln() + share * (low.qps.ln() - high.qps.ln())).exp())
}

/// The exponent e of y ≈ c·xᵉ for points (x, y), by least squares of the logarithms; `None`
/// for fewer than two different x.
#[must_use]
pub fn exponent(points: &[(f64, f64)]) -> Option<f64> {
    // y = c·xᵉ is ln y = ln c + e·ln x: e is the slope of a straight line, which is the
    // covariance of ln x and ln y over the variance of ln x. Both sums lack the division by the
    // count, which cancels. Without points the means are NaN, which nothing reads.
    let logarithms: Vec<(f64, f64)> = points.iter().map(|(x, y)| (x.ln(), y.ln())).collect();
    let count = points.len() as f64;
    let mean_x = logarithms.iter().map(|(x, _)| x).sum::<f64>() / count;
    let mean_y = logarithms.iter().map(|(_, y)| y).sum::<f64>() / count;
    let mut variance = 0.0;
    let mut covariance = 0.0;
    for (x, y) in logarithms {
        variance += (x - mean_x).powi(2);
        covariance += (x - mean_x) * (y - mean_y);
    }
    // Without two different x there is no slope.
    (variance > 0.0).then(|| covariance / variance)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(recall: f64, qps: f64) -> RecallAndSpeed {
        RecallAndSpeed { recall, qps }
    }

    #[test]
    fn what_is_beaten_in_both_is_left_out() {
        let rows = [
            at(0.9, 100.0),
            at(0.95, 120.0),
            at(0.99, 50.0),
            at(0.99, 40.0),
        ];
        let kept = pareto(rows, |row| row.recall, |row| -row.qps);
        assert_eq!(kept, [at(0.95, 120.0), at(0.99, 50.0)]);
        assert!(pareto([], |row: &RecallAndSpeed| row.recall, |row| -row.qps).is_empty());
    }

    #[test]
    fn between_two_settings_the_line_is_logarithmic() {
        let rows = [at(0.9, 1_000.0), at(0.99, 10.0)];
        // Half way from a tenth to a hundredth missed, half way from 1,000 to 10.
        let middle = qps_at(&rows, 1.0 - 10f64.powf(-1.5)).unwrap();
        assert!((middle - 100.0).abs() < 1e-6, "{middle}");
        assert_eq!(qps_at(&rows, 0.5), Some(1_000.0));
        assert_eq!(qps_at(&rows, 0.99), Some(10.0));
        assert_eq!(qps_at(&rows, 0.995), None);
        assert_eq!(qps_at(&[at(1.0, 5.0)], 0.99), Some(5.0));
        // Both miss less than can be told.
        let close = [at(0.999_991, 20.0), at(1.0, 10.0)];
        assert_eq!(qps_at(&close, 0.999_995), Some(10.0));
    }

    #[test]
    fn exponents_are_slopes_of_logarithms() {
        let points = [10.0f64, 20.0, 40.0].map(|n| (n, 3.0 * n.powf(1.5)));
        assert!((exponent(&points).unwrap() - 1.5).abs() < 1e-12);
        assert_eq!(exponent(&points[..1]), None);
        assert_eq!(exponent(&[]), None);
    }

    #[test]
    fn ours_come_first_and_by_name() {
        let rows = [
            Measurement::toy("hnswlib", 0.9, 1.0),
            Measurement::toy("hnsw", 0.9, 1.0),
            Measurement::toy("brute_force", 1.0, 1.0),
            Measurement::toy("hnsw", 0.8, 2.0),
        ];
        assert_eq!(indexes(&rows), ["brute_force", "hnsw", "hnswlib"]);
        assert_eq!(
            (
                label("hnsw"),
                label("hnswlib"),
                is_ours("hnsw"),
                is_ours("hnswlib")
            ),
            ("HNSW", "hnswlib", true, false)
        );
    }
}
