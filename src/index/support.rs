//! What several indexes share.
//!
//! | module | what is in it | who uses it |
//! |---|---|---|
//! | [`lower_bound`] | short vectors whose distances never exceed the true ones | trees, graphs |
//! | [`pruned_rows`] | rows that are compared by such a bound first | `Annoy`, `Hnsw`, `Ngt` |
//! | [`projection`] | vectors in their principal components | whoever makes codes |

pub(crate) mod lower_bound;
pub(crate) mod projection;
pub(crate) mod pruned_rows;
#[cfg(test)]
pub(crate) mod test_data;
