//! Indexes that part the space by trees.

pub(crate) mod annoy;
pub(crate) mod ball_tree;
pub(crate) mod kd_tree;
