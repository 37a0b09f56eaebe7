//! Indexes that look at codes of every row and never miss a neighbour.

pub(crate) mod brute_force;
pub(crate) mod va_file;
