//! Indexes by cosine and by inner product: [`Cosine`] and [`InnerProduct`] make one of any index
//! that searches by Euclidean distance.
//!
//! Both change the rows and the queries, so that the Euclidean distance of what comes out orders
//! the rows as the wanted metric orders the original ones:
//!
//! ```text
//! cosine           X = x / |x|, Q = q / |q|             |X − Q|² = 2 − 2 cos(x, q)
//! inner product    X = (x, √(M² − |x|²)), Q = (q, 0)    |X − Q|² = M² + |q|² − 2 x·q
//! ```
//!
//! The index inside knows nothing of it. So there is no third kind of bound in any index, and a new
//! index has both metrics from its first day.

mod cosine;
mod inner_product;

pub use self::cosine::Cosine;
pub use self::inner_product::InnerProduct;

use super::{BuildError, Index};
use crate::distance::Metric;

/// Refuses an index that does not search by Euclidean distance: over what the wrappers make of the
/// rows, no other distance means anything.
fn check_euclidean<I: Index>(inner: I, wanted: Metric) -> Result<I, BuildError> {
    match inner.metric() {
        Metric::Euclidean => Ok(inner),
        other => Err(BuildError::Metric {
            index: inner.name(),
            metric: wanted.name(),
            instead: match other {
                Metric::Manhattan => "its own metric is manhattan; expected euclidean",
                _ => "it is an index by cosine or inner product already; expected euclidean",
            },
        }),
    }
}
