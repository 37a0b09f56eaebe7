//! The files of Fashion-MNIST, plain and gzipped.

use std::io::{self, Read};

use fashion_knn::fashion::{FashionError, contents};
use flate2::read::GzDecoder;

/// What a file of the test set begins with, and how many bytes follow.
struct Idx {
    name: &'static str,
    header: &'static [u8],
    length: usize,
}

const LABELS: Idx = Idx {
    name: "t10k-labels-idx1-ubyte",
    header: &[0, 0, 8, 1, 0, 0, 39, 16],
    length: 10_000,
};
const IMAGES: Idx = Idx {
    name: "t10k-images-idx3-ubyte",
    header: &[0, 0, 8, 3, 0, 0, 39, 16, 0, 0, 0, 28, 0, 0, 0, 28],
    length: 7_840_000,
};

/// IDX. Nothing but the published bytes is taken, and these are no input: what differs is told.
pub fn idx(input: &[u8]) {
    // Millions of bytes are unpacked only if they may be images.
    let is_images = unpacked(input, 4).is_ok_and(|first| first == IMAGES.header[..4]);
    let file = if is_images { IMAGES } else { LABELS };
    let error = contents(file.name, input).expect_err("the published bytes are no input");
    match unpacked(input, file.header.len() + file.length + 1) {
        Err(_) => assert!(matches!(error, FashionError::Io { .. }), "{error}"),
        Ok(bytes) => is_right(&error, &bytes, &file),
    }
}

/// The error says of these bytes what is true.
fn is_right(error: &FashionError, bytes: &[u8], file: &Idx) {
    let body = bytes.strip_prefix(file.header);
    match error {
        FashionError::Header { .. } => assert!(body.is_none(), "{error}"),
        FashionError::Length {
            expected, received, ..
        } => {
            assert_eq!(
                (*expected, Some(*received)),
                (file.length, body.map(<[u8]>::len))
            );
            assert_ne!(expected, received);
        }
        FashionError::Label {
            position, label, ..
        } => {
            assert!(*label > 9, "{error}");
            assert_eq!(body.map(|body| body[*position]), Some(*label));
        }
        FashionError::Hash { .. } => assert_eq!(body.map(<[u8]>::len), Some(file.length)),
        other => panic!("{other}"),
    }
}

/// The first bytes, decompressed if they are gzip's.
fn unpacked(input: &[u8], limit: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let limit = limit as u64;
    match input {
        [0x1f, 0x8b, ..] => GzDecoder::new(input).take(limit).read_to_end(&mut bytes)?,
        _ => input.take(limit).read_to_end(&mut bytes)?,
    };
    Ok(bytes)
}
