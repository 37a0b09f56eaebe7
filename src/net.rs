//! Nets.

mod conv;

pub use conv::conv_relu_pool;
