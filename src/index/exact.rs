//! Indexes that part nothing and never miss a neighbour: [`BruteForce`] looks at every row,
//! [`VaFile`] at a few bytes of it.

pub(crate) mod brute_force;
pub(crate) mod va_file;

pub use self::brute_force::{BruteForce, BruteForceParams};
pub use self::va_file::{Plan, VaFile, VaFileParams};
