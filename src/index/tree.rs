//! Indexes that part the space by trees: [`KdTree`] by coordinates, [`BallTree`] by nested balls,
//! [`Annoy`] by random planes.

mod annoy;
mod ball_tree;
mod kd_tree;

pub use self::annoy::{Annoy, AnnoyParams, AnnoySearch, Hyperplane};
pub use self::ball_tree::{Ball, BallTree, BallTreeParams};
pub use self::kd_tree::{KdTree, KdTreeParams};
