//! What several indexes share: lower bounds, rows behind a bound, the projection that codes are
//! made in.

pub(crate) mod lower_bound;
pub(crate) mod projection;
pub(crate) mod pruned_rows;
#[cfg(test)]
pub(crate) mod test_data;
