//! Tensors of f32 as little-endian bytes: what is hashed and what safetensors files hold.

use candle_core::Tensor;

/// The values of a tensor of f32, in row order.
pub(super) fn bytes(tensor: &Tensor) -> candle_core::Result<Vec<u8>> {
    let values = tensor.flatten_all()?.to_vec1::<f32>()?;
    Ok(values.into_iter().flat_map(f32::to_le_bytes).collect())
}

/// The reverse of [`bytes`].
pub(super) fn floats(bytes: &[u8]) -> Vec<f32> {
    // Whole words only. What is left over is dropped, but safetensors has checked that a tensor of
    // f32 has four bytes for each value.
    let (words, _) = bytes.as_chunks::<4>();
    words.iter().map(|&word| f32::from_le_bytes(word)).collect()
}
