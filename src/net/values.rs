//! The values of candle's tensors as slices, for operations of our own.

use candle_core::{CpuStorage, Layout, Result, Storage, Tensor, bail};

/// The values of a contiguous f32 tensor.
pub(super) fn values<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    match layout.contiguous_offsets() {
        // A contiguous tensor can still be a part of a larger storage, as a row of a batch is.
        Some((start, end)) => Ok(&storage.as_slice::<f32>()?[start..end]),
        None => bail!("expected a contiguous tensor, received {layout:?}"),
    }
}

/// Calls `f` with the values of a contiguous f32 tensor, which candle lends under a lock.
pub(super) fn with_values<T>(tensor: &Tensor, f: impl FnOnce(&[f32]) -> Result<T>) -> Result<T> {
    // `storage` is the guard of a read lock, held until `f` returns. `f` may lock other tensors to
    // read, but must not write to this one.
    let (storage, layout) = tensor.storage_and_layout();
    match &*storage {
        Storage::Cpu(storage) => f(values(storage, layout)?),
        _ => bail!("expected a tensor on the CPU"),
    }
}
