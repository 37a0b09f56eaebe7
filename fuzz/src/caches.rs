//! What is kept in the cache folder: a damaged file counts as none, and is replaced.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::LazyLock;

use fashion_knn::lab::task::Task;
use fashion_knn::neighbor::Neighbors;
use fashion_knn::vectors::Vectors;
use tempfile::tempdir;

use super::changed;

/// A kept answer and its file.
struct Kept<T> {
    answer: T,
    name: String,
    contents: Vec<u8>,
}

impl<T: PartialEq + std::fmt::Debug> Kept<T> {
    /// What `ask` answers with a folder for its cache, and the one file that it leaves there.
    fn new(ask: fn(&Path) -> T) -> Self {
        let folder = tempdir().expect("the folder of temporary files can be written");
        let answer = ask(folder.path());
        let mut files = fs::read_dir(folder.path()).expect("it is there");
        let file = files.next().expect("a file").expect("it is there");
        Self {
            answer,
            name: file.file_name().into_string().expect("a plain name"),
            contents: fs::read(file.path()).expect("it is there"),
        }
    }

    /// The answer and the file are the same where the file was changed before, or was another one
    /// altogether.
    fn holds(&self, ask: fn(&Path) -> T, input: &[u8]) {
        let Some((&kind, changes)) = input.split_first() else {
            return;
        };
        let folder = tempdir().expect("the folder of temporary files can be written");
        let path = folder.path().join(&self.name);
        let contents = match kind % 2 {
            0 => changes.to_vec(),
            _ => changed(&self.contents, changes),
        };
        fs::write(&path, contents).expect("it has room");
        assert_eq!(ask(folder.path()), self.answer);
        assert!(fs::read(&path).expect("it is there") == self.contents);
    }
}

/// The true neighbours of a task.
pub fn truth(input: &[u8]) {
    static KEPT: LazyLock<Kept<Neighbors>> = LazyLock::new(|| Kept::new(ask));
    fn ask(cache: &Path) -> Neighbors {
        let base = Vectors::from_bytes(2, (0..40).collect::<Vec<u8>>()).expect("whole rows");
        let queries = Vectors::from_bytes(2, vec![1, 9, 30, 7, 0, 0]).expect("whole rows");
        let task = Task::new("line", Arc::new(base), queries, &[2], 1, Some(cache));
        task.expect("a usual task").truth().clone()
    }
    KEPT.holds(ask, input);
}

/// The features of images.
#[cfg(feature = "net")]
pub fn features(input: &[u8]) {
    use fashion_knn::net::{MlpConfig, Model, ModelConfig, PIXELS, Scaling, cached_features};
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    static KEPT: LazyLock<Kept<Vec<f32>>> = LazyLock::new(|| Kept::new(ask));
    fn ask(cache: &Path) -> Vec<f32> {
        let config = ModelConfig::Mlp(MlpConfig {
            hidden: vec![4],
            dropout: 0.0,
        });
        let scaling = Scaling {
            mean: 0.5,
            deviation: 0.25,
        };
        let mut rng = ChaCha8Rng::seed_from_u64(0);
        let model = Model::random(&config, scaling, &mut rng).expect("sizes in range");
        let pixels: Vec<u8> = (0..3 * PIXELS).map(|at| (at * at % 251) as u8).collect();
        let images = Vectors::from_bytes(PIXELS, pixels).expect("whole images");
        let features = cached_features(&model, &images, cache).expect("a usual model");
        features.to_floats()
    }
    KEPT.holds(ask, input);
}
