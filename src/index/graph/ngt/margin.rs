//! How much farther than usual a walk has to explore, measured on rows of the base.
//!
//! The naive walk ends at 1 + ε times the k-th distance, with one ε for all data. But where the
//! directions are all alike, as in noise, a row's near rows lie on all sides of it, few of them are
//! its edges, and the walk ends before it comes to the others. So rows of the base are searched as
//! if they were not in it, and what they miss decides:
//!
//! ```text
//! for margin in 0, 0.1, 0.2 …
//!     search for SAMPLE rows with the default ε + margin, each of them left out
//!     enough of the true nearest found: take this margin
//! ```

use std::sync::Arc;

use rayon::prelude::*;

use super::{Graph, LEAST_KEPT, NgtSearch};
use crate::index::exact::{BruteForce, BruteForceParams};
use crate::index::{Build, Index};
use crate::neighbor::Candidate;
use crate::vectors::Vectors;

/// Rows that are searched for. Ten nearest each are about 1,000, of which a share near [`ENOUGH`]
/// is known to one or two per cent.
const SAMPLE: usize = 100;

/// The nearest of each that should be found: as many as a walk keeps at least.
const NEAREST: usize = LEAST_KEPT;

/// The share of them that should be found.
const ENOUGH: f64 = 0.95;

/// What is tried. With the last one and the default, a walk explores out to twice the distance.
const MARGINS: [f64; 8] = [0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.6, 0.9];

/// The least margin with which enough is found at the default epsilon; if it is with none, the one
/// with which most is.
///
/// `distinct` has the rows by their numbers among the distinct ones.
pub fn choose(graph: &Graph, distinct: &Arc<Vectors>) -> f64 {
    let len = distinct.len();
    let sample: Vec<usize> = (0..len).step_by(len.div_ceil(SAMPLE)).collect();
    let scan = BruteForce::build(Arc::clone(distinct), BruteForceParams::default());
    let rows = distinct.select(&sample).expect("rows of the base");
    // The row itself is among them.
    let nearest = scan
        .expect("there are rows")
        .search_batch(&rows, NEAREST + 1);
    let mut positions = vec![0; len];
    for (position, &id) in graph.rows.ids().iter().enumerate() {
        positions[id as usize] = position as u32;
    }
    let mut best = (-1.0, 0.0);
    for margin in MARGINS {
        let epsilon = NgtSearch::default().epsilon + margin;
        let shares: Vec<f64> = sample
            .par_iter()
            .zip(&nearest)
            .map(|(&row, nearest)| {
                let mut comparison = graph.rows.comparison(distinct.row(row));
                comparison.leave_out(positions[row]);
                let room = NEAREST.min(len - 1);
                share(nearest, &graph.walk(&mut comparison, epsilon, room))
            })
            .collect();
        let found = shares.iter().sum::<f64>() / shares.len() as f64;
        if found > best.0 {
            best = (found, margin);
        }
        if found >= ENOUGH {
            break;
        }
    }
    best.1
}

/// The share of the nearest that was found, by distance: of rows as far as the last any will do.
/// `nearest` has the row itself, too.
fn share(nearest: &[Candidate], found: &[Candidate]) -> f64 {
    let Some(last) = nearest.get(1..).and_then(<[_]>::last) else {
        return 1.0;
    };
    let near = found.iter().filter(|found| found.reduced <= last.reduced);
    near.count() as f64 / (nearest.len() - 1) as f64
}
