//! k-nearest neighbours: exact and approximate indexes behind one trait, made to be measured
//! against each other, and the pieces of the notebooks that report on them.
//!
//! | module | what is in it |
//! |---|---|
//! | [`vectors`] | [`Vectors`](vectors::Vectors): n × d bytes or floats, shared; files of them |
//! | [`distance`] | Euclidean, Manhattan, cosine, inner product, exact to the last bit |
//! | [`neighbor`] | [`Neighbor`](neighbor::Neighbor), and the k-best collector |
//! | [`index`] | how an index is built, searched and asked; the indexes; their registry |
//! | [`math`] | principal components and k-means, on which several indexes stand |
//! | [`progress`] | how far a build is, for whoever waits for it |
//! | [`simd`] | the inner loops, and which instructions they use |
//! | [`classify`] | the k-NN classifier: uniform votes, votes by distance |
//! | [`lab`] | recall and speed, the tuner, the measured record |
//! | `fashion`, `files` | Fashion-MNIST, verified; where files are kept (feature `files`) |
//! | `net` | logistic regression, SVM, MLP, CNN: training and features (feature `net`) |
//! | `report` | tables, charts, the rich output of a notebook (feature `report`) |
//!
//! ```
//! use std::sync::Arc;
//! use fashion_knn::prelude::*;
//!
//! let corners = Arc::new(Vectors::from_floats(2, vec![0.0, 0.0, 4.0, 0.0, 0.0, 3.0])?);
//! let index = BruteForce::build(corners, BruteForceParams::default())?;
//! let nearest = index.query(&[4.0, 3.0], 2)?;
//! assert_eq!(nearest, [Neighbor { id: 1, distance: 3.0 }, Neighbor { id: 2, distance: 4.0 }]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! An approximate index is built once and searched with several settings. They share what was
//! built:
//!
//! ```
//! use fashion_knn::prelude::*;
//!
//! let values: Vec<u8> = (0..16_000u32).map(|i| (i * i % 251) as u8).collect();
//! let base = Arc::new(Vectors::from_bytes(16, values)?);
//! let index = IvfFlat::build(Arc::clone(&base), IvfFlatParams { nlist: 16, seed: 0 })?;
//! for nprobe in [1, 4, 16] {
//!     let index = index.with_search(IvfFlatSearch { nprobe })?;
//!     assert_eq!(index.query(base.row(42), 1)?[0].distance, 0.0);
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![deny(unsafe_code)]
#![warn(missing_docs)]

pub mod classify;
pub mod distance;
pub mod error;
#[cfg(feature = "files")]
pub mod fashion;
#[cfg(feature = "files")]
pub mod files;
pub mod index;
pub mod lab;
pub mod math;
pub mod neighbor;
#[cfg(feature = "net")]
pub mod net;
pub mod progress;
#[cfg(feature = "report")]
pub mod report;
#[allow(unsafe_code)]
pub mod simd;
pub mod vectors;

// The crates whose types its functions take or give, in the versions that it uses.
#[cfg(feature = "net")]
pub use candle_core;
pub use ndarray;
#[cfg(feature = "report")]
pub use polars;

/// What a notebook's first cell brings in.
pub mod prelude {
    pub use std::sync::Arc;

    /// Data frames, and the words of a question to one, as in
    /// `frame.lazy().filter(col("k").eq(lit(10)))`.
    #[cfg(feature = "report")]
    pub use polars::prelude::{
        DataFrame, DataType, Expr, IntoLazy, JoinArgs, JoinType, LazyFrame, SortMultipleOptions,
        UnionArgs, col, cols, concat, df, len, lit, when,
    };

    pub use crate::classify::{KnnClassifier, Trial, Weights};
    pub use crate::distance::Metric;
    #[cfg(feature = "files")]
    pub use crate::fashion::{self, CLASSES, Fashion, Labelled, Split};
    #[cfg(feature = "files")]
    pub use crate::files;
    pub use crate::index::*;
    pub use crate::lab::calibration::{
        CoveragePoint, ReliabilityBin, Vote, calibration_error, coverage, coverage_at, reliability,
        surest, vote_share,
    };
    #[cfg(feature = "files")]
    pub use crate::lab::classified::{
        Chosen, Classified, Comparison, Confidence, Spread, compared, purity,
    };
    pub use crate::lab::difficulty::{
        Difficulty, between_classes, difficulty, intrinsic_dimension, relative_contrast,
    };
    pub use crate::lab::evaluate::{
        ConfusionMatrix, Evaluated, FirstLook, Passes, Speed, Timed, TimedQueries, accuracy,
        evaluate, first_look, on_threads, recall, three_passes, time_batch, time_queries, timed,
    };
    pub use crate::lab::layout::map_of_neighbours;
    pub use crate::lab::neighbourhood::{
        Disagreement, Hub, Nearest, Pair, beyond, disagreeing, hubs, in_common, k_occurrence,
        knn_graph, near_duplicates, nearest_of, skewness, without,
    };
    #[cfg(feature = "files")]
    pub use crate::lab::record::{Measurement, read_csv};
    pub use crate::lab::statistics::{Interval, McNemar, correct, mcnemar, wilson};
    #[cfg(feature = "files")]
    pub use crate::lab::sweep::{BuiltIndex, Run};
    #[cfg(feature = "files")]
    pub use crate::lab::task::Task;
    pub use crate::lab::tune::{Target, Tuned, tune};
    pub use crate::math::pca::Pca;
    pub use crate::neighbor::{Candidate, Neighbor, Neighbors, TopK};
    #[cfg(feature = "net")]
    pub use crate::net;
    #[cfg(feature = "report")]
    pub use crate::report::chart::{
        AccuracyLabels, BarChart, ClassMap, DataName, Heatmap, LineChart, Plane, Series,
        SpeedLabels, accuracy_by_k, hover_maps, recall_and_speed,
    };
    #[cfg(feature = "report")]
    pub use crate::report::{
        figure::{Figure, Silent, prose, side_by_side},
        frame::{
            MillionRow, Tabular, beside_the_handout, column, doublings, exponents, fastest_at,
            fastest_at_each, frame_of, frontier, growth_at, leading, machines, million_table,
            number_at, pivoted, record, records, text_at,
        },
        gallery::{Gallery, Tile},
        maps::{class_plane, plane_of},
        notebook::parameter,
        numbers::{by_size, decimal, integer, percent, short_decimal},
        pictures::{as_point, cells, in_the_plane, neighbour_gallery, point_of, points_of, tile},
        table::table,
        words::{
            Words, bins_of, caption_of, confusion_map, coverage_of, growth_chart, is,
            learning_chart, recall_chart, stacked, whole,
        },
    };
    pub use crate::vectors::{Row, Vectors};
}

/// The README's example, so that it is tested with the others.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
