//! Fashion-MNIST (Xiao, Rasul & Vollgraf 2017): found or fetched, verified, parsed, split.
//!
//! 60,000 training and 10,000 test images of clothes, 28 × 28 grey pixels each, in ten classes.
//!
//! The four files are looked for in the folder that `FASHION_MNIST_DIR` names, in `fashion-mnist`
//! of the project's data folder ([`files::data_dir`]), and in the folder of Debian's package
//! `dataset-fashion-mnist`. If they are nowhere, [`load`] fetches them into the project's data
//! folder: from the official address or, where that cannot be reached, out of Debian's package
//! (without root). Fetching needs the feature `cli`.
//!
//! A file may be plain or gzipped. Its decompressed bytes are verified against their SHA-256. They
//! are in the IDX format:
//!
//! ```text
//! images   00 00 08 03 │ count: u32, big-endian │ rows │ columns │ count × 784 bytes
//! labels   00 00 08 01 │ count: u32, big-endian │ count bytes, 0 to 9
//! ```

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use flate2::read::GzDecoder;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use sha2::{Digest, Sha256};
use thiserror::Error;

use crate::files;
use crate::vectors::{Storage, Vectors, VectorsError};

#[cfg(feature = "cli")]
mod fetch;

#[cfg(feature = "cli")]
pub use fetch::fetch;

/// The folder that holds the data. Without the feature `cli` nothing can be fetched.
///
/// # Errors
/// If the data are nowhere on this machine.
#[cfg(not(feature = "cli"))]
pub fn fetch() -> Result<PathBuf, FashionError> {
    find().ok_or_else(|| FashionError::Unreachable {
        folder: fashion_dir(),
        why: "this build has no feature cli".to_owned(),
    })
}

/// The names of the ten classes, by label.
pub const CLASSES: [&str; 10] = [
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
];

/// Height and width of an image, in pixels.
pub const SIDE: usize = 28;

/// One of the four files.
#[derive(Debug)]
struct File {
    /// Its name, without `.gz`.
    name: &'static str,
    /// Number of images or labels in it.
    items: usize,
    /// SHA-256 of its decompressed bytes.
    sha256: &'static str,
}

// The hashes are of the decompressed bytes: however a copy was compressed, it is the same data.
const TRAIN_IMAGES: File = File {
    name: "train-images-idx3-ubyte",
    items: 60_000,
    sha256: "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
};
const TRAIN_LABELS: File = File {
    name: "train-labels-idx1-ubyte",
    items: 60_000,
    sha256: "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
};
const TEST_IMAGES: File = File {
    name: "t10k-images-idx3-ubyte",
    items: 10_000,
    sha256: "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
};
const TEST_LABELS: File = File {
    name: "t10k-labels-idx1-ubyte",
    items: 10_000,
    sha256: "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
};
const FILES: [&File; 4] = [&TRAIN_IMAGES, &TRAIN_LABELS, &TEST_IMAGES, &TEST_LABELS];

/// Where Debian's package `dataset-fashion-mnist` puts the files.
const DEBIAN: &str = "/usr/share/datasets/fashion-mnist";

/// Why the data set could not be found, fetched or read.
#[derive(Debug, Error)]
pub enum FashionError {
    /// A file could not be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// One of the four files is missing, in a folder that was named or that has others of them.
    #[error("{}: neither {name} nor {name}.gz is there", folder.display())]
    Missing {
        /// The folder looked in.
        folder: PathBuf,
        /// The file's name.
        name: &'static str,
    },
    /// None of the four files has this name.
    #[error("{received:?} is none of {}", FILES.map(|file| file.name).join(", "))]
    Name {
        /// What was asked for.
        received: String,
    },
    /// A file does not begin as an IDX file of this kind does.
    #[error("{}: {found}; expected {expected}", path.display())]
    Header {
        /// The file.
        path: PathBuf,
        /// What it begins with.
        found: String,
        /// What it should begin with.
        expected: String,
    },
    /// A file is shorter or longer than its header says.
    #[error(
        "{}: {received} bytes after the header{}; expected {expected} (a truncated or padded file)",
        path.display(), if received > expected { ", or more" } else { "" }
    )]
    Length {
        /// The file.
        path: PathBuf,
        /// Bytes that its header promises.
        expected: usize,
        /// Bytes that it has. Of a longer file, no more are counted than tell that it is longer.
        received: usize,
    },
    /// A label is not one of the ten classes.
    #[error("{}: label {label} at {position}; expected 0 to 9", path.display())]
    Label {
        /// The file.
        path: PathBuf,
        /// Which label, from 0.
        position: usize,
        /// Its value.
        label: u8,
    },
    /// The decompressed bytes are not those that were published.
    #[error(
        "{}: SHA-256 of the decompressed bytes is {received}; expected {expected}",
        path.display()
    )]
    Hash {
        /// The file.
        path: PathBuf,
        /// The published hash.
        expected: &'static str,
        /// The file's.
        received: String,
    },
    /// The files are nowhere and could not be fetched.
    #[error(
        "Fashion-MNIST is not here and could not be fetched ({why}): put the four files \
         train-images-idx3-ubyte.gz, train-labels-idx1-ubyte.gz, t10k-images-idx3-ubyte.gz and \
         t10k-labels-idx1-ubyte.gz into {}, or name their folder in FASHION_MNIST_DIR",
        folder.display()
    )]
    Unreachable {
        /// Where to put them.
        folder: PathBuf,
        /// What each way of fetching said.
        why: String,
    },
}

/// Turns an error of the system into one that names the file.
fn at(path: &Path) -> impl FnOnce(io::Error) -> FashionError {
    move |source| FashionError::Io {
        path: path.to_owned(),
        source,
    }
}

/// The data set: 60,000 training and 10,000 test images of 28 × 28 grey pixels, and their labels,
/// 0 to 9.
///
/// In the place of pixels there may be features that a net made of them: then rows are as wide as
/// its penultimate layer.
#[derive(Debug, Clone)]
pub struct Fashion {
    /// Training images, 60,000 × 784 bytes.
    pub train: Arc<Vectors>,
    /// Their labels.
    pub train_labels: Arc<[u8]>,
    /// Test images, 10,000 × 784 bytes.
    pub test: Arc<Vectors>,
    /// Their labels.
    pub test_labels: Arc<[u8]>,
}

/// Images held out of the training set, to choose parameters on: the test set is for the end.
#[derive(Debug, Clone)]
pub struct Split {
    /// What remains to search in.
    pub base: Arc<Vectors>,
    /// The labels of what remains.
    pub base_labels: Arc<[u8]>,
    /// The images held out.
    pub held_out: Arc<Vectors>,
    /// Their labels.
    pub held_out_labels: Arc<[u8]>,
}

/// Images and their labels: the training set, the test set, or a part of one.
#[derive(Debug, Clone)]
pub struct Labelled {
    /// The images, n × 784 bytes.
    pub images: Arc<Vectors>,
    /// Their labels, 0 to 9.
    pub labels: Arc<[u8]>,
}

impl Labelled {
    /// The rows of the images of a class, in order.
    ///
    /// ```
    /// use fashion_knn::fashion::Labelled;
    /// use fashion_knn::vectors::Vectors;
    ///
    /// let images = Vectors::from_bytes(1, vec![10, 20, 30])?.into();
    /// let set = Labelled { images, labels: [7, 3, 7].into() };
    /// assert_eq!(set.of_class(7).collect::<Vec<_>>(), [0, 2]);
    /// # Ok::<(), fashion_knn::vectors::VectorsError>(())
    /// ```
    pub fn of_class(&self, class: usize) -> impl Iterator<Item = usize> + '_ {
        (0..self.labels.len()).filter(move |&row| usize::from(self.labels[row]) == class)
    }

    /// How many images each of the ten classes has.
    #[must_use]
    pub fn class_counts(&self) -> Vec<u32> {
        (0..CLASSES.len())
            .map(|class| self.of_class(class).count() as u32)
            .collect()
    }

    /// The name of the class of image `row`.
    ///
    /// # Panics
    /// If there is no such row, as slices do, or its label is no class.
    #[must_use]
    pub fn class_name(&self, row: usize) -> &'static str {
        CLASSES[usize::from(self.labels[row])]
    }

    /// The first `count` images, or all if there are fewer (a copy).
    #[must_use]
    pub fn head(&self, count: usize) -> Self {
        Self {
            images: Arc::new(self.images.head(count)),
            labels: self.labels[..count.min(self.labels.len())].into(),
        }
    }

    /// The images of the given rows, in that order (a copy).
    ///
    /// # Errors
    /// If there is no such row.
    pub fn select(&self, rows: &[usize]) -> Result<Self, VectorsError> {
        // The images first: a row that does not exist is an error there, and a panic in `labels`.
        let images = Arc::new(self.images.select(rows)?);
        let labels = rows.iter().map(|&row| self.labels[row]).collect();
        Ok(Self { images, labels })
    }

    /// A random sample of `count` images, or all if there are fewer, in random order.
    #[must_use]
    pub fn sample(&self, count: usize, seed: u64) -> Self {
        let mut order: Vec<usize> = (0..self.labels.len()).collect();
        order.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
        order.truncate(count);
        self.select(&order)
            .expect("the order is a permutation of the rows")
    }
}

impl Split {
    /// What remains to search in, images and labels.
    #[must_use]
    pub fn base_set(&self) -> Labelled {
        Labelled {
            images: self.base.clone(),
            labels: self.base_labels.clone(),
        }
    }
}

impl Fashion {
    /// The training set.
    #[must_use]
    pub fn train_set(&self) -> Labelled {
        Labelled {
            images: self.train.clone(),
            labels: self.train_labels.clone(),
        }
    }

    /// The test set.
    #[must_use]
    pub fn test_set(&self) -> Labelled {
        Labelled {
            images: self.test.clone(),
            labels: self.test_labels.clone(),
        }
    }

    /// The data set with only the first `count` training images, or all if there are fewer: for a
    /// quick look.
    #[must_use]
    pub fn with_training_images(&self, count: usize) -> Self {
        if count >= self.train.len() {
            return self.clone();
        }
        Self {
            train: Arc::new(self.train.head(count)),
            train_labels: self.train_labels[..count].into(),
            ..self.clone()
        }
    }

    /// The data set with every row divided by its length ([`Vectors::normalized`]): among these
    /// rows the nearest by Euclidean distance are the nearest by cosine.
    #[must_use]
    pub fn normalized(&self) -> Self {
        Self {
            train: Arc::new(self.train.normalized()),
            test: Arc::new(self.test.normalized()),
            ..self.clone()
        }
    }

    /// Holds out `count` random training images, or all if there are fewer.
    #[must_use]
    pub fn hold_out(&self, count: usize, seed: u64) -> Split {
        // A random sample, not the first rows, and the same for the same seed. The first `count` of
        // the shuffled rows are held out; at most all of them.
        let mut order: Vec<usize> = (0..self.train.len()).collect();
        order.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
        let (held_out, base) = order.split_at(count.min(order.len()));
        self.split(base, held_out)
            .expect("the order is a permutation of the rows")
    }

    /// Splits the training images by their rows: those to search in, and those held out.
    ///
    /// # Errors
    /// If there is no such row.
    pub fn split(&self, base: &[usize], held_out: &[usize]) -> Result<Split, VectorsError> {
        let images = |rows: &[usize]| self.train.select(rows).map(Arc::new);
        let labels = |rows: &[usize]| rows.iter().map(|&row| self.train_labels[row]).collect();
        Ok(Split {
            // The images first: a row that does not exist is an error there. `labels` would panic
            // at it.
            base: images(base)?,
            held_out: images(held_out)?,
            base_labels: labels(base),
            held_out_labels: labels(held_out),
        })
    }
}

/// The images (n × 784) shifted to the right by `pixels`: black comes in from the left, and what
/// leaves on the right is lost. By 28 or more, nothing is left.
///
/// ```
/// use fashion_knn::fashion::shifted_right;
/// use fashion_knn::vectors::Vectors;
///
/// let image: Vec<u8> = (0..784).map(|pixel| (pixel % 28) as u8).collect();
/// let moved = shifted_right(&Vectors::from_bytes(784, image)?, 2)?;
/// assert_eq!(moved.row_bytes(0).map(|row| &row[..5]), Some(&[0, 0, 0, 1, 2][..]));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// If the images are not 784 values each.
pub fn shifted_right(images: &Vectors, pixels: usize) -> Result<Vectors, VectorsError> {
    let (dim, received) = (SIDE * SIDE, images.dim());
    if received != dim {
        return Err(VectorsError::Ragged { received, dim });
    }
    match images.storage() {
        Storage::Bytes(values) => Vectors::from_bytes(dim, lines_shifted(values, pixels)),
        Storage::Floats(values) => Vectors::from_floats(dim, lines_shifted(values, pixels)),
    }
}

/// Lines of 28 values, each shifted to the right.
fn lines_shifted<T: Copy + Default>(values: &[T], pixels: usize) -> Vec<T> {
    let kept = SIDE - pixels.min(SIDE);
    let mut shifted = Vec::with_capacity(values.len());
    for line in values.chunks_exact(SIDE) {
        shifted.extend(std::iter::repeat_n(T::default(), SIDE - kept));
        shifted.extend(&line[..kept]);
    }
    shifted
}

/// The data set: found on this machine, or fetched.
///
/// # Errors
/// If a file that is there is not what was published, or none is there and none can be fetched.
pub fn load() -> Result<Fashion, FashionError> {
    load_from(&fetch()?)
}

/// The data set out of one folder, verified.
///
/// ```no_run
/// use fashion_knn::fashion;
///
/// let data = fashion::load_from("data/fashion-mnist".as_ref())?;
/// assert_eq!((data.train.len(), data.train.dim()), (60_000, 784));
/// println!("the first image is a {}", fashion::CLASSES[usize::from(data.train_labels[0])]);
/// # Ok::<(), fashion::FashionError>(())
/// ```
///
/// # Errors
/// If a file is missing, unreadable, or not what was published.
pub fn load_from(folder: &Path) -> Result<Fashion, FashionError> {
    let images = |file: &File| {
        let pixels = file.read(folder)?;
        let vectors = Vectors::from_bytes(SIDE * SIDE, pixels)
            .expect("`File::verify` has checked that the images are whole");
        Ok::<_, FashionError>(Arc::new(vectors))
    };
    Ok(Fashion {
        train: images(&TRAIN_IMAGES)?,
        train_labels: TRAIN_LABELS.read(folder)?.into(),
        test: images(&TEST_IMAGES)?,
        test_labels: TEST_LABELS.read(folder)?.into(),
    })
}

/// The images or labels in one of the four files, if `stored` is what was published under this
/// name, plain or gzipped: the bytes behind the header.
///
/// ```
/// use fashion_knn::fashion::contents;
///
/// let error = contents("t10k-labels-idx1-ubyte", b"not found").unwrap_err();
/// assert!(error.to_string().contains("expected the IDX header"));
/// ```
///
/// # Errors
/// If it is not, or none of the files has this name.
pub fn contents(name: &str, stored: &[u8]) -> Result<Vec<u8>, FashionError> {
    let Some(file) = FILES.into_iter().find(|file| file.name == name) else {
        return Err(FashionError::Name {
            received: name.to_owned(),
        });
    };
    file.verify(Path::new(name), stored)
}

/// The folder in which the project keeps the files that it fetches.
#[must_use]
pub fn fashion_dir() -> PathBuf {
    files::data_dir().join("fashion-mnist")
}

/// The first folder that has the data: `FASHION_MNIST_DIR` if set, the project's own, Debian's.
///
/// A folder has the data if one of the four files is there, so that a damaged copy is reported and
/// not passed over. `FASHION_MNIST_DIR` is taken as soon as it is set.
#[must_use]
pub fn find() -> Option<PathBuf> {
    // A folder that was named is not looked into here. If it lacks a file, the user should read
    // that, and not get other data from elsewhere. An empty variable counts as unset.
    if let Some(named) = std::env::var_os("FASHION_MNIST_DIR").filter(|named| !named.is_empty()) {
        return Some(named.into());
    }
    [fashion_dir(), DEBIAN.into()]
        .into_iter()
        .find(|folder| FILES.iter().any(|file| file.path(folder).is_some()))
}

impl File {
    /// Where the file is in `folder`, plain or gzipped.
    fn path(&self, folder: &Path) -> Option<PathBuf> {
        // The plain file first: if both are there, it need not be unpacked.
        [
            folder.join(self.name),
            folder.join(format!("{}.gz", self.name)),
        ]
        .into_iter()
        .find(|path| path.exists())
    }

    /// The file's verified contents, without the header.
    fn read(&self, folder: &Path) -> Result<Vec<u8>, FashionError> {
        let path = self.path(folder).ok_or(FashionError::Missing {
            folder: folder.to_owned(),
            name: self.name,
        })?;
        let stored = fs::File::open(&path)
            .and_then(|stored| read_at_most(stored, self.stored_limit()))
            .map_err(at(&path))?;
        self.verify(&path, &stored)
    }

    /// Whether it holds images; else it holds labels.
    fn has_images(&self) -> bool {
        self.name.contains("images")
    }

    /// The IDX header that the file should have.
    fn header(&self) -> Vec<u8> {
        let (items, side) = (self.items as u32, SIDE as u32);
        // The first word is two zeros, the type of the values (08 is u8) and the number of
        // dimensions (3 for images, 1 for labels). The sizes of the dimensions follow.
        let words = if self.has_images() {
            vec![0x0803, items, side, side]
        } else {
            vec![0x0801, items]
        };
        words.into_iter().flat_map(u32::to_be_bytes).collect()
    }

    /// Bytes that should follow the header.
    fn body_len(&self) -> usize {
        if self.has_images() {
            self.items * SIDE * SIDE
        } else {
            self.items
        }
    }

    /// Bytes of the file, the header included.
    fn whole_len(&self) -> usize {
        self.header().len() + self.body_len()
    }

    /// More bytes than any copy of the file has, however it is packed: gzip adds less than a
    /// hundredth to what it cannot compress, and a few names.
    fn stored_limit(&self) -> usize {
        2 * self.whole_len()
    }

    /// Unpacks `stored` and returns it without the header, if it is what was published.
    ///
    /// The hash alone would do. The other checks come first because they say more about what is
    /// wrong. `path` is for the errors.
    fn verify(&self, path: &Path, stored: &[u8]) -> Result<Vec<u8>, FashionError> {
        // One byte more than the file has tells that there are too many; a small gzip file can hold
        // any number of them.
        let mut bytes = unpack(stored, self.whole_len() + 1).map_err(at(path))?;
        let header = self.header();
        if !bytes.starts_with(&header) {
            // The file may be shorter than a header, or be another thing altogether, such as the
            // page of a server that says "not found".
            let begins = &bytes[..header.len().min(bytes.len())];
            return Err(FashionError::Header {
                path: path.to_owned(),
                found: format!("begins with {begins:02x?}"),
                expected: format!("the IDX header {header:02x?}"),
            });
        }
        let body = &bytes[header.len()..];
        if body.len() != self.body_len() {
            return Err(FashionError::Length {
                path: path.to_owned(),
                expected: self.body_len(),
                received: body.len(),
            });
        }
        // This comes before the hash, which would say only that something differs.
        let is_foreign = |&label: &u8| usize::from(label) >= CLASSES.len();
        if !self.has_images()
            && let Some(position) = body.iter().position(is_foreign)
        {
            return Err(FashionError::Label {
                path: path.to_owned(),
                position,
                label: body[position],
            });
        }
        // Over header and body. From here on the bytes are the published ones, and callers rely on
        // it: the images are whole, the labels below 10.
        let hash = format!("{:x}", Sha256::digest(&bytes));
        if hash != self.sha256 {
            return Err(FashionError::Hash {
                path: path.to_owned(),
                expected: self.sha256,
                received: hash,
            });
        }
        Ok(bytes.split_off(header.len()))
    }
}

/// The first `limit` bytes, decompressed if they are gzip's; all, if there are fewer.
fn unpack(stored: &[u8], limit: usize) -> io::Result<Vec<u8>> {
    // Every gzip file begins with these two bytes (RFC 1952), and an IDX file with two zeros: the
    // contents decide, not the name.
    if stored.starts_with(&[0x1f, 0x8b]) {
        read_at_most(GzDecoder::new(stored), limit)
    } else {
        read_at_most(stored, limit)
    }
}

/// The first `limit` bytes; all, if there are fewer.
fn read_at_most(reader: impl Read, limit: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    reader.take(limit as u64).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_keeps_each_label_beside_its_image() {
        // The label of an image is its one pixel.
        let pixels: Vec<u8> = (0..10).collect();
        let images = Arc::new(Vectors::from_bytes(1, pixels.clone()).unwrap());
        let labels = pixels.into();
        let set = Labelled { images, labels };
        assert_eq!(set.class_counts(), [1; 10]);
        let sample = set.sample(6, 1);
        assert_eq!(sample.images.bytes().unwrap(), &sample.labels[..]);
        assert_eq!(sample.labels.len(), 6);
        // No image twice: as a set there are six.
        let mut once = sample.labels.to_vec();
        once.sort_unstable();
        once.dedup();
        assert_eq!(once.len(), 6);
        assert_ne!(sample.labels, set.sample(6, 2).labels);
        assert_eq!(set.sample(99, 1).labels.len(), 10);
        assert_eq!(set.head(3).labels[..], [0, 1, 2]);
        assert_eq!(set.class_name(9), "Ankle boot");
        assert!(set.select(&[10]).is_err());
    }

    /// A labels file with a header that promises what the real one does, and `body` after it.
    fn labels(body: &[u8]) -> Vec<u8> {
        [&[0, 0, 8, 1, 0, 0, 0x27, 0x10], body].concat()
    }

    fn verdict(bytes: &[u8]) -> FashionError {
        TEST_LABELS.verify(Path::new("labels"), bytes).unwrap_err()
    }

    #[test]
    fn each_kind_of_damage_has_its_own_error() {
        assert!(matches!(
            verdict(b"<html>not found</html>"),
            FashionError::Header { .. }
        ));
        assert!(matches!(verdict(&[]), FashionError::Header { .. }));
        let images = [0, 0, 8, 3, 0, 0, 0x27, 0x10, 0, 0, 0, 28, 0, 0, 0, 28];
        assert!(matches!(verdict(&images), FashionError::Header { .. }));
        assert!(matches!(
            verdict(&labels(&[0; 9_999])),
            FashionError::Length {
                expected: 10_000,
                received: 9_999,
                ..
            }
        ));
        let mut foreign = [0; 10_000];
        foreign[7] = 10;
        assert!(matches!(
            verdict(&labels(&foreign)),
            FashionError::Label {
                position: 7,
                label: 10,
                ..
            }
        ));
        assert!(matches!(
            verdict(&labels(&[0; 10_000])),
            FashionError::Hash { .. }
        ));
    }

    #[test]
    fn a_gzip_cut_short_is_an_error_that_names_the_file() {
        let packed = packed(&labels(&[3; 10_000])[..]);
        let error = verdict(&packed[..packed.len() - 9]);
        assert!(matches!(error, FashionError::Io { .. }), "{error}");
        assert!(error.to_string().starts_with("labels: "), "{error}");
    }

    fn packed(bytes: impl Read) -> Vec<u8> {
        let mut packed = Vec::new();
        flate2::read::GzEncoder::new(bytes, flate2::Compression::fast())
            .read_to_end(&mut packed)
            .unwrap();
        packed
    }

    /// 256 MB of zeros behind the header, packed into one; and no more of them are unpacked than
    /// show that there are too many.
    #[test]
    fn a_gzip_bomb_is_unpacked_to_the_length_of_the_file_and_no_further() {
        let zeros = io::repeat(0).take(1 << 28);
        let bomb = packed((&labels(&[])[..]).chain(zeros));
        assert!(bomb.len() < 1 << 21, "{} bytes", bomb.len());
        let error = verdict(&bomb);
        assert!(
            matches!(
                error,
                FashionError::Length {
                    expected: 10_000,
                    received: 10_001,
                    ..
                }
            ),
            "{error}"
        );
        assert!(
            error
                .to_string()
                .contains("10001 bytes after the header, or more")
        );
        assert_eq!(unpack(&bomb, 30).unwrap().len(), 30);
    }

    /// A file of 64 GB, of which the disk holds nothing.
    #[test]
    fn a_file_longer_than_the_data_set_is_not_read_to_its_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(TEST_LABELS.name);
        fs::write(&path, labels(&[])).unwrap();
        let file = fs::File::options().append(true).open(&path).unwrap();
        file.set_len(1 << 36).unwrap();
        let error = TEST_LABELS.read(folder.path()).unwrap_err();
        assert!(matches!(error, FashionError::Length { .. }), "{error}");
    }

    #[test]
    fn a_missing_file_is_named() {
        let empty = tempfile::tempdir().unwrap();
        let error = load_from(empty.path()).unwrap_err().to_string();
        assert!(error.contains("train-images-idx3-ubyte.gz"), "{error}");
    }

    #[test]
    fn a_split_parts_the_training_set() {
        let train = Vectors::from_bytes(1, (0..100).collect::<Vec<u8>>()).unwrap();
        let labels: Arc<[u8]> = (0..100).map(|row| row % 10).collect();
        let fashion = Fashion {
            test: Arc::new(train.head(1)),
            test_labels: labels[..1].into(),
            train: Arc::new(train),
            train_labels: labels,
        };
        let split = fashion.hold_out(30, 1);
        let (base, held_out) = (split.base.bytes().unwrap(), split.held_out.bytes().unwrap());
        assert_eq!((base.len(), held_out.len()), (70, 30));
        let mut all = [base, held_out].concat();
        all.sort_unstable();
        assert_eq!(all, (0..100).collect::<Vec<u8>>());
        assert!(
            held_out
                .iter()
                .zip(&*split.held_out_labels)
                .all(|(&image, &label)| image % 10 == label)
        );
        assert_ne!(fashion.hold_out(30, 2).held_out.bytes().unwrap(), held_out);
        assert_eq!(fashion.hold_out(1_000, 1).base.len(), 0);
    }
}
