//! Indexes of inverted lists: k-means parts the rows, a query searches the lists of the nearest
//! centroids.
//!
//! ```text
//!  . .|  .  . |  .         n vectors, parted among nlist centroids (+)
//!  . + . | . + q  .        q searches the nprobe lists whose centroids are nearest
//! ----.--+---.---+--.--
//!   .  .   | .  +  .
//! ```
//!
//! | index | what a list holds | what its vectors are compared by |
//! |---|---|---|
//! | [`IvfFlat`] | whole vectors | true distances |
//! | [`IvfPq`] | product-quantised residuals | estimates, then the best by true distances |
//! | [`Scann`] | residuals, coded by the score-aware loss | the same |
//!
//! A vector near the border of its list has neighbours across it. A query that searches few lists
//! misses those: that is what all three are bad at, the more so the more dimensions the data have.

mod codes_or_rows;
mod coding;
mod held_out;
mod inverted_lists;
mod ivf_flat;
mod ivf_pq;
mod pq_lists;
mod product_quantizer;
mod scann;

pub use self::ivf_flat::{IvfFlat, IvfFlatParams, IvfFlatSearch};
pub use self::ivf_pq::{IvfPq, IvfPqParams, IvfPqSearch};
pub use self::scann::{Scann, ScannParams, ScannSearch};
