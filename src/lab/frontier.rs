//! Reading the record: what the measured rows of `data/results/*.csv` say when they are put together.
//!
//! The form of the comparison is that of ann-benchmarks (Aumüller, Bernhardsson, Faithfull 2020): of each index only the
//! settings that no other of its settings beats in both recall and queries per second.

use crate::index::registry;
use crate::lab::task::Measurement;

/// The names of the real libraries' indexes, as `benches/peers.py` writes them and for a reader.
const LIBRARIES: [(&str, &str); 13] = [
    ("annoy_spotify", "Annoy (Spotify)"),
    ("faiss_flat", "FAISS Flat"),
    ("faiss_hnsw", "FAISS HNSW"),
    ("faiss_ivf_flat", "FAISS IVF Flat"),
    ("faiss_ivf_pq", "FAISS IVF PQ"),
    ("ngt_anng", "NGT (Yahoo), ANNG"),
    ("ngt_onng", "NGT (Yahoo), ONNG"),
    ("nmslib", "NMSLIB"),
    ("scann_google", "ScaNN (Google)"),
    ("sklearn_ball_tree", "scikit-learn, ball tree"),
    ("sklearn_brute", "scikit-learn, brute"),
    ("sklearn_kd_tree", "scikit-learn, KD-tree"),
    ("symphony_qg", "SymphonyQG"),
];

/// The name of an index for a reader: that of the registry for ours, the library's for theirs, otherwise what the record calls it.
#[must_use]
pub fn label(index: &str) -> &str {
    let library = || {
        LIBRARIES
            .iter()
            .find(|(known, _)| *known == index)
            .map_or(index, |(_, name)| name)
    };
    registry::find(index).map_or_else(library, |entry| entry.name)
}

/// Whether the index is one of this crate.
#[must_use]
pub fn is_ours(index: &str) -> bool {
    registry::find(index).is_some()
}

/// The names of the indexes in the rows: ours in the registry's order, then the others as they come.
#[must_use]
pub fn indexes(rows: &[Measurement]) -> Vec<&str> {
    let known = registry::REGISTRY.iter().map(|entry| entry.key);
    let mut names: Vec<&str> = known
        .filter(|key| rows.iter().any(|row| row.index == *key))
        .collect();
    for row in rows {
        if !names.contains(&row.index.as_str()) {
            names.push(&row.index);
        }
    }
    names
}

/// The rows that none of the others beats, in both recall and what `cost` says (less is better), by ascending recall.
#[must_use]
pub fn pareto<'a>(
    rows: impl IntoIterator<Item = &'a Measurement>,
    cost: impl Fn(&Measurement) -> f64,
) -> Vec<&'a Measurement> {
    let mut rows: Vec<_> = rows.into_iter().collect();
    rows.sort_by(|a, b| {
        b.recall
            .total_cmp(&a.recall)
            .then(cost(a).total_cmp(&cost(b)))
    });
    let mut least = f64::INFINITY;
    rows.retain(|row| {
        let kept = cost(row) < least;
        least = least.min(cost(row));
        kept
    });
    rows.reverse();
    rows
}

/// Queries per second at a recall: of the measured settings that reach it the fastest, or, where one below and one above
/// enclose it, what the line between them says in log(1 − recall) and log(queries per second), if that is more. Nothing if no
/// setting reaches it.
#[must_use]
pub fn qps_at<'a>(rows: impl IntoIterator<Item = &'a Measurement>, recall: f64) -> Option<f64> {
    let front = pareto(rows, |row| -row.qps);
    let above = front.iter().position(|row| row.recall >= recall)?;
    let high = front[above];
    if above == 0 || high.recall == recall {
        return Some(high.qps);
    }
    let low = front[above - 1];
    let miss = |recall: f64| (1.0 - recall).max(1e-5).ln();
    let share = (miss(recall) - miss(high.recall)) / (miss(low.recall) - miss(high.recall));
    Some((high.qps.ln() + share * (low.qps.ln() - high.qps.ln())).exp())
}

/// The exponent e of y ≈ c·xᵉ by least squares of the logarithms; nothing for fewer than two different x.
#[must_use]
pub fn exponent(points: &[(f64, f64)]) -> Option<f64> {
    let mean = |values: &dyn Fn(&(f64, f64)) -> f64| {
        points.iter().map(values).sum::<f64>() / points.len() as f64
    };
    let (x, y) = (mean(&|point| point.0.ln()), mean(&|point| point.1.ln()));
    let spread: f64 = points.iter().map(|point| (point.0.ln() - x).powi(2)).sum();
    let slope: f64 = points
        .iter()
        .map(|point| (point.0.ln() - x) * (point.1.ln() - y))
        .sum();
    (spread > 0.0).then(|| slope / spread)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_beaten_in_both_is_left_out() {
        let rows = [
            Measurement::toy("a", 0.9, 100.0),
            Measurement::toy("a", 0.95, 120.0),
            Measurement::toy("a", 0.99, 50.0),
            Measurement::toy("a", 0.99, 40.0),
        ];
        let kept: Vec<_> = pareto(&rows, |row| -row.qps)
            .iter()
            .map(|row| (row.recall, row.qps))
            .collect();
        assert_eq!(kept, [(0.95, 120.0), (0.99, 50.0)]);
        assert!(pareto(&[], |row| -row.qps).is_empty());
    }

    #[test]
    fn between_two_settings_the_line_is_logarithmic() {
        let rows = [
            Measurement::toy("a", 0.9, 1_000.0),
            Measurement::toy("a", 0.99, 10.0),
        ];
        // Half way from a tenth to a hundredth missed, half way from 1,000 to 10.
        let middle = qps_at(&rows, 1.0 - 10f64.powf(-1.5)).unwrap();
        assert!((middle - 100.0).abs() < 1e-6, "{middle}");
        assert_eq!(qps_at(&rows, 0.5), Some(1_000.0));
        assert_eq!(qps_at(&rows, 0.99), Some(10.0));
        assert_eq!(qps_at(&rows, 0.995), None);
        assert_eq!(
            qps_at(&[Measurement::toy("exact", 1.0, 5.0)], 0.99),
            Some(5.0)
        );
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
