//! Indexes that look at a code of every row and never miss a neighbour.

pub(crate) mod brute_force;
pub(crate) mod va_file;

pub use self::brute_force::{BruteForce, BruteForceParams};
pub use self::va_file::{Plan, VaFile, VaFileParams};
