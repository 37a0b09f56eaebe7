//! Indexes of inverted lists: k-means parts the rows, a query searches the lists of the nearest centroids.

mod inverted_lists;
mod ivf_flat;
mod ivf_pq;
mod pq_lists;
mod product_quantizer;
mod scann;

pub use self::ivf_flat::{IvfFlat, IvfFlatParams, IvfFlatSearch};
pub use self::ivf_pq::{IvfPq, IvfPqParams, IvfPqSearch};
pub use self::scann::{Scann, ScannParams, ScannSearch};
