//! The checkpoint of a training.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::sync::LazyLock;

use fashion_knn::net::{
    Config, Labelled, MlpConfig, ModelConfig, NetError, Options, PIXELS, Trained, train,
};
use fashion_knn::vectors::Vectors;
use safetensors::SafeTensors;
use sha2::{Digest, Sha256};
use tempfile::tempdir;

use super::{changed, file};

/// Keys of the metadata.
const RECORD: &str = "fashion-knn training";
const HASH: &str = "sha256";

/// A training of milliseconds, and its checkpoints.
struct Lesson {
    config: Config,
    images: Vectors,
    labels: Vec<u8>,
    /// After the first of two epochs, and when it was finished.
    checkpoints: [Vec<u8>; 2],
    /// What it comes to, interrupted or not.
    fingerprint: String,
}

static LESSON: LazyLock<Lesson> = LazyLock::new(Lesson::new);

impl Lesson {
    fn new() -> Self {
        let count = 12;
        let pixels: Vec<u8> = (0..count * PIXELS)
            .map(|at| (at * at % 251) as u8)
            .collect();
        let hidden = vec![1];
        let mut lesson = Self {
            config: Config {
                epochs: 2,
                batch_size: 4,
                validation: 3,
                ..Config::of(ModelConfig::Mlp(MlpConfig {
                    hidden,
                    dropout: 0.0,
                }))
            },
            images: Vectors::from_bytes(PIXELS, pixels).expect("whole images"),
            labels: (0..count).map(|at| (at % 10) as u8).collect(),
            checkpoints: Default::default(),
            fingerprint: String::new(),
        };
        let folder = tempdir().expect("the folder of temporary files can be written");
        let path = folder.path().join("lesson.safetensors");
        let mut after = Vec::new();
        let each = || after.push(fs::read(&path).expect("a checkpoint after each epoch"));
        let trained = lesson.learn(&path, each).expect("a usual training");
        lesson.fingerprint = trained.model.fingerprint().expect("parameters");
        lesson.checkpoints = [after.swap_remove(0), fs::read(&path).expect("the last one")];
        lesson
    }

    /// Trains, from the checkpoint at `path` on.
    fn learn(&self, path: &Path, mut each: impl FnMut()) -> Result<Trained, NetError> {
        let all = Labelled::new(&self.images, &self.labels)?;
        let options = Options {
            checkpoint: Some(path.to_owned()),
            again: false,
        };
        train(&self.config, all, all.head(3), &options, |_| each())
    }
}

/// What is done to a checkpoint, which of the two, and the changes; or the whole file.
pub fn checkpoint(input: &[u8]) {
    let lesson = &*LESSON;
    let Some((&[kind, which], changes)) = input.split_first_chunk::<2>() else {
        return;
    };
    let good = &lesson.checkpoints[usize::from(which % 2)];
    match kind % 4 {
        0 => damaged(lesson, changes),
        1 => damaged(lesson, &changed(good, changes)),
        2 => signed(lesson, &with_record(good, changes)),
        _ => signed(lesson, &with_header(good, changes)),
    }
}

/// A file without the right hash is refused and left as it is; one with it is the good one.
fn damaged(lesson: &Lesson, contents: &[u8]) {
    let file = file(".safetensors", contents);
    match lesson.learn(file.path(), || ()) {
        Ok(trained) => {
            assert_eq!(
                trained.model.fingerprint().expect("parameters"),
                lesson.fingerprint
            );
        }
        Err(NetError::Corrupt { .. } | NetError::Mismatch { .. }) => {
            assert_eq!(fs::read(file.path()).expect("it is there"), contents);
        }
        Err(other) => panic!("{other}"),
    }
}

/// A file with the right hash is a whole training, whatever its figures; or it is refused.
fn signed(lesson: &Lesson, contents: &[u8]) {
    let file = file(".safetensors", contents);
    match lesson.learn(file.path(), || ()) {
        Ok(trained) => {
            assert_eq!(trained.history.len(), lesson.config.epochs);
            assert!(trained.best < trained.history.len());
        }
        Err(NetError::Corrupt { .. } | NetError::Mismatch { .. } | NetError::NotFinite { .. }) => {}
        Err(other) => panic!("{other}"),
    }
}

/// The checkpoint with a changed record, and the hash of that.
fn with_record(good: &[u8], changes: &[u8]) -> Vec<u8> {
    let archive = SafeTensors::deserialize(good).expect("a checkpoint");
    let record = changed(record(good).as_bytes(), changes);
    let record = String::from_utf8_lossy(&record).into_owned();
    let hash = hash(&record, &archive);
    let metadata = HashMap::from([(RECORD.to_owned(), record), (HASH.to_owned(), hash)]);
    safetensors::serialize(archive.iter(), Some(metadata)).expect("as it was read")
}

/// The checkpoint with a changed header, and the hash of what that says, if it says anything.
fn with_header(good: &[u8], changes: &[u8]) -> Vec<u8> {
    let (length, rest) = good.split_first_chunk::<8>().expect("a checkpoint");
    let (header, tensors) = rest.split_at(u64::from_le_bytes(*length) as usize);
    let header = changed(header, changes);
    let length = (header.len() as u64).to_le_bytes();
    let file = [&length[..], &header, tensors].concat();
    let Ok(archive) = SafeTensors::deserialize(&file) else {
        return file;
    };
    let old = metadata(&file, HASH);
    let (Some(old), Some(record)) = (old, metadata(&file, RECORD)) else {
        return file;
    };
    let header = String::from_utf8(header).expect("it was read as JSON");
    let header = header.replace(&old, &hash(&record, &archive));
    let length = (header.len() as u64).to_le_bytes();
    [&length[..], header.as_bytes(), tensors].concat()
}

fn record(checkpoint: &[u8]) -> String {
    metadata(checkpoint, RECORD).expect("a checkpoint")
}

fn metadata(file: &[u8], key: &str) -> Option<String> {
    let (_, header) = SafeTensors::read_metadata(file).ok()?;
    header.metadata().as_ref()?.get(key).cloned()
}

/// The hash of a checkpoint: over the record, and the names and values of the tensors by name.
fn hash(record: &str, archive: &SafeTensors<'_>) -> String {
    let mut tensors: Vec<_> = archive.iter().collect();
    tensors.sort_by_key(|&(name, _)| name);
    let mut hash = Sha256::new_with_prefix(record);
    for (name, tensor) in tensors {
        hash.update(name);
        hash.update(tensor.data());
    }
    format!("{:x}", hash.finalize())
}
