//! Distances, and the [`Ranker`] with which every index verifies its candidates.
//!
//! There is one definition of each distance, and every kernel in the crate agrees with it to the
//! last bit:
//! - between bytes, an exact integer;
//! - where a float takes part, f64 arithmetic in eight interleaved partial sums (value `i` goes to
//!   sum `i mod 8`), added pairwise at the end. That order is the one of SIMD registers, so that
//!   the fast code and the portable code are the same source compiled twice, and give the same
//!   result: Rust never contracts `a * b + c` into an FMA.
//!
//! Candidates are compared by a **reduced distance** that is cheaper than the distance and orders
//! alike: the squared Euclidean distance, the Manhattan distance itself.
//!
//! Cosine and inner product are no metrics in the sense of mathematics, and no index prunes by
//! them. They are turned into the Euclidean distance of other rows: [`Cosine`] normalises the rows,
//! [`InnerProduct`] makes all rows equally long by a coordinate more.
//!
//! [`Cosine`]: crate::index::Cosine
//! [`InnerProduct`]: crate::index::InnerProduct

use std::borrow::Cow;

use crate::simd::{float_distances, pairwise};
use crate::vectors::{Row, Vectors};

/// How far apart two vectors are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub enum Metric {
    /// √Σ(aᵢ − bᵢ)², the L2 distance. Its reduced distance is the square.
    #[default]
    Euclidean,
    /// Σ|aᵢ − bᵢ|, the L1 distance. Its reduced distance is itself.
    Manhattan,
    /// 1 − cos, by the angle between the vectors: 0 to 2. Its reduced distance is twice that:
    /// the squared Euclidean distance of the normalised vectors
    /// ([`Vectors::normalized`](crate::vectors::Vectors::normalized)).
    Cosine,
    /// −Σaᵢbᵢ: the largest product is the nearest, and distances may be negative. Its
    /// reduced distance is itself.
    InnerProduct,
}

/// The norms of a difference. Only by these can an index bound distances; the other metrics are
/// searched as the Euclidean one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Norm {
    /// Euclidean.
    L2,
    /// Manhattan.
    L1,
}

impl Norm {
    /// The norm of the metric, if it has one.
    pub(crate) fn of(metric: Metric) -> Option<Self> {
        match metric {
            Metric::Euclidean => Some(Self::L2),
            Metric::Manhattan => Some(Self::L1),
            Metric::Cosine | Metric::InnerProduct => None,
        }
    }

    /// The metric of that norm.
    pub(crate) fn metric(self) -> Metric {
        match self {
            Self::L2 => Metric::Euclidean,
            Self::L1 => Metric::Manhattan,
        }
    }
}

impl Metric {
    /// All of them.
    pub const ALL: [Self; 4] = [
        Self::Euclidean,
        Self::Manhattan,
        Self::Cosine,
        Self::InnerProduct,
    ];

    /// The name, as scikit-learn has it where it has the metric: "euclidean", "manhattan",
    /// "cosine", "inner_product".
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Euclidean => "euclidean",
            Self::Manhattan => "manhattan",
            Self::Cosine => "cosine",
            Self::InnerProduct => "inner_product",
        }
    }

    /// The distance that a reduced distance stands for.
    #[inline]
    #[must_use]
    pub fn distance_of_reduced(self, reduced: f64) -> f64 {
        match self {
            Self::Euclidean => reduced.sqrt(),
            Self::Manhattan | Self::InnerProduct => reduced,
            Self::Cosine => reduced / 2.0,
        }
    }

    /// The largest reduced distance whose distance is not above `distance`: for a search within a
    /// radius.
    ///
    /// A square would not do. The distance that a neighbour was reported at is a rounded root, and
    /// its square may be below the neighbour's own reduced distance.
    ///
    /// Nothing is as near as a negative Euclidean distance: its reduced distance is −∞.
    ///
    /// ```
    /// use fashion_knn::distance::Metric;
    ///
    /// let distance = Metric::Euclidean.distance_of_reduced(3.0); // √3, rounded down
    /// assert!(distance * distance < 3.0);
    /// assert!(Metric::Euclidean.reduced_of_distance(distance) >= 3.0);
    /// ```
    #[must_use]
    pub fn reduced_of_distance(self, distance: f64) -> f64 {
        let mut reduced = match self {
            Self::Euclidean if distance < 0.0 => return f64::NEG_INFINITY,
            Self::Euclidean => distance * distance,
            Self::Manhattan | Self::InnerProduct => distance,
            Self::Cosine => 2.0 * distance,
        };
        // Roots are rounded to the nearest and ascend. So the right value is a step or two of the
        // last bit away from the square.
        while self.distance_of_reduced(reduced) > distance {
            reduced = reduced.next_down();
        }
        while reduced < f64::INFINITY && self.distance_of_reduced(reduced.next_up()) <= distance {
            reduced = reduced.next_up();
        }
        reduced
    }

    /// Reduced distance of two float vectors of equal length. By cosine they are to be normalised
    /// already.
    ///
    /// # Panics
    /// If the lengths differ.
    #[must_use]
    pub fn reduced(self, a: &[f32], b: &[f32]) -> f64 {
        assert_eq!(a.len(), b.len(), "vectors of one dimension");
        match self {
            Self::Euclidean | Self::Cosine => float_distances::squared_euclidean(a, b),
            Self::Manhattan => float_distances::manhattan(a, b),
            // Not `-product`, which would make −0 of 0, and that is below 0 in the total order.
            Self::InnerProduct => 0.0 - float_distances::product(a, b),
        }
    }

    /// Reduced distance of two byte vectors of equal length: an integer.
    ///
    /// # Panics
    /// If the lengths differ.
    #[must_use]
    pub fn reduced_bytes(self, a: &[u8], b: &[u8]) -> i64 {
        assert_eq!(a.len(), b.len(), "vectors of one dimension");
        // No sum reaches 2⁶³ below 10¹⁴ dimensions.
        match self {
            Self::Euclidean | Self::Cosine => pairwise::squared_euclidean_bytes(a, b) as i64,
            Self::Manhattan => pairwise::manhattan_bytes(a, b) as i64,
            Self::InnerProduct => -(pairwise::product_bytes(a, b) as i64),
        }
    }

    /// What one coordinate adds to the reduced distance of two byte vectors: the square of the gap
    /// between its two values, the gap itself, or less their product.
    ///
    /// The sum of these is the definition of the reduced distance; everything else here computes it
    /// faster.
    ///
    /// ```
    /// use fashion_knn::distance::Metric;
    ///
    /// assert_eq!(Metric::Euclidean.term(3, 7), 16.0);
    /// assert_eq!(Metric::Manhattan.term(3, 7), 4.0);
    /// ```
    #[must_use]
    pub fn term(self, a: u8, b: u8) -> f64 {
        let gap = f64::from(a.abs_diff(b));
        match self {
            Self::Euclidean | Self::Cosine => gap * gap,
            Self::Manhattan => gap,
            Self::InnerProduct => 0.0 - f64::from(a) * f64::from(b),
        }
    }

    /// Reduced distance of a float vector and a byte vector of equal length.
    ///
    /// # Panics
    /// If the lengths differ.
    #[must_use]
    pub fn reduced_mixed(self, a: &[f32], b: &[u8]) -> f64 {
        assert_eq!(a.len(), b.len(), "vectors of one dimension");
        match self {
            Self::Euclidean | Self::Cosine => float_distances::squared_euclidean_mixed(a, b),
            Self::Manhattan => float_distances::manhattan_mixed(a, b),
            Self::InnerProduct => 0.0 - float_distances::product_mixed(a, b),
        }
    }
}

impl std::str::FromStr for Metric {
    type Err = UnknownMetric;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|metric| metric.name() == name)
            .ok_or_else(|| UnknownMetric {
                received: name.to_owned(),
            })
    }
}

/// A name that no metric has.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("metric {received:?}; expected {}", Metric::ALL.map(Metric::name).join(", "))]
pub struct UnknownMetric {
    /// What was given.
    pub received: String,
}

/// A query in the type in which it is compared with the base.
#[derive(Debug, Clone)]
pub enum QueryForm<'a> {
    /// The base is bytes, and all values of the query are integers 0..=255: distances are exact
    /// integers.
    Bytes(Cow<'a, [u8]>),
    /// Anything else.
    Floats(Cow<'a, [f32]>),
}

impl<'a> QueryForm<'a> {
    /// The form in which `query` is compared with the rows of `base`.
    #[must_use]
    pub fn new(base: &Vectors, query: Row<'a>) -> Self {
        // A copy is made only where the type has to change. Over bytes, a query of floats becomes
        // bytes if nothing is lost by it: integer distances are exact and faster. Over floats, a
        // query of bytes becomes floats, which never loses anything.
        match (base.bytes().is_some(), query) {
            (true, Row::Bytes(query)) => Self::Bytes(Cow::Borrowed(query)),
            (false, Row::Bytes(query)) => {
                Self::Floats(query.iter().map(|&value| f32::from(value)).collect())
            }
            (true, Row::Floats(query)) => match to_bytes(query) {
                Some(bytes) => Self::Bytes(Cow::Owned(bytes)),
                None => Self::Floats(Cow::Borrowed(query)),
            },
            (false, Row::Floats(query)) => Self::Floats(Cow::Borrowed(query)),
        }
    }

    /// The query as a row.
    pub(crate) fn row(&self) -> Row<'_> {
        match self {
            Self::Bytes(query) => Row::Bytes(query),
            Self::Floats(query) => Row::Floats(query),
        }
    }
}

/// The values as bytes, if every one is an integer 0..=255.
fn to_bytes(values: &[f32]) -> Option<Vec<u8>> {
    // The kernel writes all bytes and says at the end whether they mean anything.
    let mut bytes = vec![0; values.len()];
    pairwise::to_bytes(values, &mut bytes).then_some(bytes)
}

/// Exact reduced distances between one query and the rows of a base: what candidates are verified
/// with.
#[derive(Debug, Clone)]
pub struct Ranker<'a> {
    base: &'a Vectors,
    metric: Metric,
    query: QueryForm<'a>,
}

impl<'a> Ranker<'a> {
    /// Prepares `query`, which has the dimension of `base`.
    #[must_use]
    pub fn new(base: &'a Vectors, metric: Metric, query: Row<'a>) -> Self {
        Self {
            base,
            metric,
            query: QueryForm::new(base, query),
        }
    }

    /// The query in the form in which it is compared.
    pub(crate) fn query(&self) -> &QueryForm<'a> {
        &self.query
    }

    /// Reduced distance of row `id` of the base.
    ///
    /// # Panics
    /// If there is no such row.
    #[inline]
    #[must_use]
    pub fn reduced(&self, id: usize) -> f64 {
        // Integers below 2⁵³ are exact in f64, and no sum of squares of bytes reaches that below
        // 10¹¹ dimensions.
        match (&self.query, self.base.row(id)) {
            (QueryForm::Bytes(query), Row::Bytes(row)) => {
                self.metric.reduced_bytes(query, row) as f64
            }
            (QueryForm::Floats(query), Row::Bytes(row)) => self.metric.reduced_mixed(query, row),
            (QueryForm::Floats(query), Row::Floats(row)) => self.metric.reduced(query, row),
            (QueryForm::Bytes(_), Row::Floats(_)) => {
                unreachable!("a query has the form of its base")
            }
        }
    }

    /// Reduced distance of row `id` of the base, or `None` if it is above `limit`. Between floats,
    /// f32 arithmetic mostly tells, in half the time.
    ///
    /// # Panics
    /// If there is no such row.
    #[inline]
    #[must_use]
    pub fn reduced_within(&self, id: usize, limit: f64) -> Option<f64> {
        // First a lower bound of the f64 distance, from f32 arithmetic. It is not worth its time
        // where there is no limit yet, nor between bytes, whose distances are integers and fast
        // already. For products it does not hold: their terms have both signs.
        if limit < f64::INFINITY
            && self.metric != Metric::InnerProduct
            && let (QueryForm::Floats(query), Row::Floats(row)) = (&self.query, self.base.row(id))
        {
            let rough = f64::from(if self.metric == Metric::Manhattan {
                pairwise::manhattan_f32(query, row)
            } else {
                pairwise::squared_euclidean_f32(query, row)
            });
            // The f32 sum is at most (1 + share) times the true one, and a little more for
            // underflow. So the true one is at least this.
            let share = pairwise::relative_error(query.len());
            let underflow = pairwise::UNDERFLOW * query.len() as f64;
            let least = rough * (1.0 - share) - underflow;
            // Where f32 overflowed to infinity, f64 need not, and the bound tells nothing.
            if rough.is_finite() && least > limit {
                return None;
            }
        }
        // The answer is always that of the one definition, in f64 or in integers.
        let reduced = self.reduced(id);
        (reduced <= limit).then_some(reduced)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn nothing_is_within_a_negative_distance() {
        let reduced = Metric::Euclidean.reduced_of_distance(-1.0);
        assert_eq!(reduced, f64::NEG_INFINITY);
    }

    /// Kahan's compensated sum of exact terms: closer to the truth than either kernel.
    fn compensated(terms: impl Iterator<Item = f64>) -> f64 {
        let (mut sum, mut lost) = (0.0, 0.0);
        for term in terms {
            let corrected = term - lost;
            let next: f64 = sum + corrected;
            lost = (next - sum) - corrected;
            sum = next;
        }
        sum
    }

    fn pairs() -> impl Strategy<Value = Vec<(f32, f32)>> {
        prop::collection::vec((-1e3f32..1e3, -1e3f32..1e3), 1..100)
    }

    proptest! {
        #[test]
        fn floats_agree_with_a_compensated_sum(pairs in pairs()) {
            let (a, b): (Vec<f32>, Vec<f32>) = pairs.iter().copied().unzip();
            let differences = || pairs.iter().map(|&(a, b)| f64::from(a) - f64::from(b));
            let squared = compensated(differences().map(|d| d * d));
            let absolute = compensated(differences().map(f64::abs));
            prop_assert!((Metric::Euclidean.reduced(&a, &b) - squared).abs() <= 1e-14 * squared);
            prop_assert!((Metric::Manhattan.reduced(&a, &b) - absolute).abs() <= 1e-14 * absolute);
        }

        /// At its own reduced distance a row is kept, just below it is not, at any magnitude: no
        /// f32 arithmetic may say otherwise.
        #[test]
        fn within_its_reduced_distance_and_not_below(pairs in pairs(), magnitude in -42i32..36) {
            let scale = 10f32.powi(magnitude);
            let scaled = pairs.into_iter().map(|(a, b)| (a * scale, b * scale));
            let (a, b): (Vec<f32>, Vec<f32>) = scaled.unzip();
            let base = Vectors::from_floats(b.len(), b.clone()).unwrap();
            for metric in Metric::ALL {
                let ranker = Ranker::new(&base, metric, Row::Floats(&a));
                let reduced = ranker.reduced(0);
                prop_assert_eq!(ranker.reduced_within(0, reduced), Some(reduced));
                prop_assert_eq!(ranker.reduced_within(0, reduced.next_down()), None);
            }
        }

        /// The radius of a neighbour's own distance takes the neighbour in, and nothing farther.
        #[test]
        fn a_radius_is_the_largest_of_its_distance(reduced in 0f64..1e6, magnitude in -90i32..76) {
            let reduced = reduced * 10f64.powi(magnitude);
            for metric in Metric::ALL {
                let distance = metric.distance_of_reduced(reduced);
                let radius = metric.reduced_of_distance(distance);
                prop_assert!(radius >= reduced);
                prop_assert_eq!(metric.distance_of_reduced(radius), distance);
                prop_assert!(metric.distance_of_reduced(radius.next_up()) > distance);
            }
        }

        #[test]
        fn bytes_mixed_and_floats_give_one_number(bytes: Vec<(u8, u8)>) {
            let (a, b): (Vec<u8>, Vec<u8>) = bytes.into_iter().unzip();
            let fa: Vec<f32> = a.iter().map(|&value| value.into()).collect();
            let fb: Vec<f32> = b.iter().map(|&value| value.into()).collect();
            for metric in Metric::ALL {
                let exact = metric.reduced_bytes(&a, &b) as f64;
                prop_assert_eq!(metric.reduced_mixed(&fa, &b), exact);
                prop_assert_eq!(metric.reduced(&fa, &fb), exact);
            }
        }
    }

    #[test]
    fn long_byte_rows_do_not_overflow() {
        let (black, white) = (vec![0u8; 100_000], vec![255u8; 100_000]);
        assert_eq!(
            Metric::Euclidean.reduced_bytes(&black, &white),
            65_025 * 100_000
        );
        assert_eq!(
            Metric::Manhattan.reduced_bytes(&black, &white),
            255 * 100_000
        );
    }

    #[test]
    fn a_float_query_is_taken_as_bytes_only_where_nothing_is_lost() {
        let base = Vectors::from_bytes(2, vec![0, 1]).unwrap();
        assert!(matches!(
            QueryForm::new(&base, Row::Floats(&[0.0, 255.0])),
            QueryForm::Bytes(_)
        ));
        for other in [[0.5, 1.0], [-1.0, 0.0], [256.0, 0.0]] {
            assert!(
                matches!(
                    QueryForm::new(&base, Row::Floats(&other)),
                    QueryForm::Floats(_)
                ),
                "{other:?}"
            );
        }
    }
}
