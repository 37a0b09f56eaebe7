//! Indexes of inverted lists: k-means parts the rows, a query searches the lists of the nearest centroids.

pub(crate) mod inverted_lists;
pub(crate) mod ivf_flat;
pub(crate) mod ivf_pq;
pub(crate) mod pq_lists;
pub(crate) mod product_quantizer;
pub(crate) mod scann;
