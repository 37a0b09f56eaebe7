//! How far a build is, for whoever waits for it.
//!
//! A build of minutes is a row of *stages*: "k-means", "near rows", "edges". An index tells each as
//! it goes along; whoever called the build listens with [`observe`]:
//!
//! ```
//! use std::sync::atomic::{AtomicUsize, Ordering};
//! use fashion_knn::prelude::*;
//! use fashion_knn::progress;
//!
//! let values: Vec<f32> = (0..30_000u32).map(|i| (i * i % 997) as f32).collect();
//! let base = Arc::new(Vectors::from_floats(30, values)?);
//! let told = Arc::new(AtomicUsize::new(0));
//! let counter = Arc::clone(&told);
//! let observer = move |step: progress::Step| {
//!     assert!(step.done <= step.total);
//!     counter.fetch_add(1, Ordering::Relaxed);
//! };
//! let index = progress::observe(observer, || Hnsw::build(base, HnswParams::default()))?;
//! assert!(index.len() == 1_000 && told.load(Ordering::Relaxed) > 0);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! What is told changes nothing in what is built.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// How far a build is within one of its stages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// What is being done: "k-means". A build may come to a stage of the same name more than once.
    pub stage: &'static str,
    /// How much of it is done, from 1 to `total`.
    pub done: usize,
    /// How much there is to do.
    pub total: usize,
}

impl Step {
    /// The share that is done, in percent, rounded down.
    #[must_use]
    pub fn percent(&self) -> usize {
        self.done * 100 / self.total.max(1)
    }
}

/// Who listens; threads share it.
pub(crate) type Observer = Arc<dyn Fn(Step) + Send + Sync>;

thread_local! {
    static OBSERVER: RefCell<Option<Observer>> = const { RefCell::new(None) };
}

/// Runs `work`, and calls `observer` with the steps of the builds in it.
///
/// The observer is called at most some hundred times a stage, from any of the threads that build,
/// and they wait for it: it should return at once. Builds inside
/// [`on_threads`](crate::lab::evaluate::on_threads) are observed as well; a `work` that enters a
/// rayon pool by itself has to call this inside of it.
pub fn observe<T>(observer: impl Fn(Step) + Send + Sync + 'static, work: impl FnOnce() -> T) -> T {
    observed_by(Some(Arc::new(observer)), work)
}

/// The observer of what this thread does.
pub(crate) fn observer() -> Option<Observer> {
    OBSERVER.with_borrow(Clone::clone)
}

/// Runs `work` with another observer in place, or with none.
pub(crate) fn observed_by<T>(observer: Option<Observer>, work: impl FnOnce() -> T) -> T {
    /// Puts the old one back, also where `work` panics.
    struct Restore(Option<Observer>);
    impl Drop for Restore {
        fn drop(&mut self) {
            OBSERVER.replace(self.0.take());
        }
    }
    let _restore = Restore(OBSERVER.replace(observer));
    work()
}

/// One stage of a build. Threads advance it together.
pub(crate) struct Stage {
    observer: Option<Observer>,
    name: &'static str,
    total: usize,
    done: AtomicUsize,
}

impl Stage {
    /// A stage of `total` pieces of work, told to the observer of this thread.
    pub(crate) fn new(name: &'static str, total: usize) -> Self {
        Self {
            observer: observer(),
            name,
            total,
            done: AtomicUsize::new(0),
        }
    }

    /// So many more pieces are done.
    pub(crate) fn advance(&self, pieces: usize) {
        /// A stage is told in so many steps at most.
        const STEPS: usize = 200;
        let Some(observer) = &self.observer else {
            return;
        };
        let before = self.done.fetch_add(pieces, Ordering::Relaxed);
        let done = (before + pieces).min(self.total);
        let step = |done: usize| done * STEPS / self.total.max(1);
        if done > before && (step(done) > step(before) || done == self.total) {
            observer(Step {
                stage: self.name,
                done,
                total: self.total,
            });
        }
    }

    /// Nothing is left to do, whether or not all pieces were needed.
    pub(crate) fn finish(&self) {
        self.advance(self.total.saturating_sub(self.done.load(Ordering::Relaxed)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    /// The steps that `work` tells.
    fn told(work: impl FnOnce()) -> Vec<Step> {
        let steps = Arc::new(Mutex::new(Vec::new()));
        let list = Arc::clone(&steps);
        observe(move |step| list.lock().unwrap().push(step), work);
        let steps = steps.lock().unwrap();
        steps.clone()
    }

    #[test]
    fn a_stage_is_told_to_its_end_in_no_more_than_some_hundred_steps() {
        for total in [1, 7, 200, 12_345] {
            let steps = told(|| {
                let stage = Stage::new("counting", total);
                (0..total).for_each(|_| stage.advance(1));
            });
            assert!(steps.len() <= 201 && steps.is_sorted_by_key(|step| step.done));
            assert_eq!(
                steps.last().map(|step| (step.done, step.percent())),
                Some((total, 100))
            );
        }
    }

    #[test]
    fn what_ends_early_is_told_as_done() {
        let steps = told(|| {
            let stage = Stage::new("rounds", 10);
            stage.advance(3);
            stage.finish();
            stage.finish();
        });
        let done: Vec<usize> = steps.iter().map(|step| step.done).collect();
        assert_eq!(done, [3, 10]);
        assert!(told(|| Stage::new("nothing", 0).finish()).is_empty());
    }

    #[test]
    fn an_observer_hears_its_own_work_alone() {
        let mut inner = Vec::new();
        let outer = told(|| {
            inner = told(|| Stage::new("inner", 1).advance(1));
            Stage::new("outer", 1).advance(1);
        });
        Stage::new("nobody listens", 1).advance(1);
        let names = |steps: &[Step]| steps.iter().map(|step| step.stage).collect::<Vec<_>>();
        assert_eq!(
            (names(&inner), names(&outer)),
            (vec!["inner"], vec!["outer"])
        );
        let caught = std::panic::catch_unwind(|| observe(|_| (), || panic!("as a build might")));
        assert!(caught.is_err() && observer().is_none());
    }
}
