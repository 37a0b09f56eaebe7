//! The bytes of a saved index.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};

use serde_json::json;
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use super::{FORMAT, HEADER, LENGTH, VERSION, dtype, hexadecimal};
use crate::index::Index;
use crate::index::parts::{NumberType, PartOut, Parts};

/// An array as it lies in a file: its name, and the part; `None` for the header's checksum.
type Placed<'p, 'a> = (&'p str, Option<&'p PartOut<'a>>);

/// The arrays in the order in which they lie in the file.
fn placed<'p, 'a>(parts: &'p Parts<'a>) -> Vec<Placed<'p, 'a>> {
    let mut placed: Vec<Placed<'_, '_>> = parts.iter().map(|(n, part)| (n, Some(part))).collect();
    // Wide numbers first. So each array begins at a multiple of its numbers' size, and can be
    // mapped. The sort is stable: of one size they lie by name.
    placed.sort_by_key(|(_, part)| std::cmp::Reverse(part.map(|part| part.number.size())));
    placed.insert(0, (HEADER, None));
    placed
}

/// The length of the header, and the header, filled up to a multiple of 8 bytes.
pub fn header(metadata: &BTreeMap<&str, String>, parts: &Parts<'_>) -> Vec<u8> {
    let mut arrays = serde_json::Map::new();
    arrays.insert("__metadata__".to_owned(), json!(metadata));
    let mut start = 0;
    for (name, part) in placed(parts) {
        let (number, shape) = part.map_or((NumberType::U64, &[][..]), |part| {
            (part.number, &part.shape[..])
        });
        let end = start + shape.iter().product::<usize>() * number.size();
        let info = json!({
            "dtype": dtype(number).to_string(),
            "shape": shape,
            "data_offsets": [start, end],
        });
        arrays.insert(name.to_owned(), info);
        start = end;
    }
    let mut header = vec![0; LENGTH];
    header.extend(json!(arrays).to_string().into_bytes());
    header.resize(header.len().next_multiple_of(LENGTH), b' ');
    let length = (header.len() - LENGTH) as u64;
    header[..LENGTH].copy_from_slice(&length.to_le_bytes());
    header
}

/// What the header says of the index.
pub fn metadata<I: Index + ?Sized>(index: &I, parts: &Parts<'_>) -> BTreeMap<&'static str, String> {
    let checksums: BTreeMap<&str, String> = parts
        .iter()
        .map(|(name, part)| (name, hexadecimal(checksum_of(part))))
        .collect();
    let (build, search) = parts.settings();
    let mut metadata = BTreeMap::from([
        ("format", FORMAT.to_owned()),
        ("version", VERSION.to_owned()),
        ("kind", parts.kind().to_owned()),
        ("metric", index.metric().name().to_owned()),
        ("build", build.to_string()),
        ("search", search.to_string()),
        ("n", index.len().to_string()),
        ("d", index.dim().to_string()),
        ("checksums", json!(checksums).to_string()),
    ]);
    if let Some(vectors) = parts.vectors() {
        metadata.insert("vectors", checksums[vectors].clone());
    }
    metadata
}

fn checksum_of(part: &PartOut<'_>) -> u64 {
    let mut hash = Xxh3::new();
    part.for_each_piece(&mut |piece| hash.update(piece));
    hash.digest()
}

/// Writes the header, its checksum, and all parts.
pub fn write(file: &mut File, header: &[u8], parts: &Parts<'_>) -> io::Result<()> {
    file.write_all(header)?;
    for (_, part) in placed(parts) {
        let Some(part) = part else {
            file.write_all(&xxh3_64(header).to_le_bytes())?;
            continue;
        };
        // The first fault is kept, and nothing is written after it.
        let mut written = Ok(());
        part.for_each_piece(&mut |piece| {
            if written.is_ok() {
                written = file.write_all(piece);
            }
        });
        written?;
    }
    Ok(())
}
