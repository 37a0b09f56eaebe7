//! The second pass of the build: walks through the graph find near vectors that the first missed.
//!
//! The first pass compares a vector with those of twelve of √n clusters
//! ([`near_rows`](crate::index::graph::near_rows)). The more vectors there are, the smaller a part
//! of them that is: 1.2 % of a million. Where the data have many directions, some of a vector's
//! nearest then lie in other clusters, and are missed.
//!
//! The naive remedy looks into more clusters, and most of what it compares is far. But the graph of
//! the first pass leads from near to nearer, across the borders of clusters. So it is searched with
//! each of its own vectors, as if it did not have that one:
//!
//! ```text
//!    +-----+-----+-----+
//!    | . x | o o | o   |      @: the vector
//!    +---|-+-/---+-----+      o: in the clusters that the first pass looked into
//!    | .  `x-|-@ | o o |      x: in others, found by the edges of what is near
//!    +-----+-----+-----+
//! ```
//!
//! What is found and what the old edges lead to are thinned as before. All walks go through the old
//! graph, so their order, and the number of threads, makes no difference.
//!
//! What it is bad at: it takes half as long as all the rest of the build.

use rayon::prelude::*;

use super::QuantizedGraphParams;
use super::build::{Codes, Edges, copy_of, settle, thin};
use super::seeds::{Groups, Seeds};
use super::walk::{Limits, Network, Scratch, Walk};
use crate::index::graph::code_plan::Sampled;
use crate::index::graph::near_rows::{Near, Neighborhoods, order_from};
use crate::progress::Stage;
use crate::simd;

/// The second pass is made where the first compares less than this share of near vectors. Of
/// Fashion-MNIST's pixels it compares all, and the pass would be of no use; of 60,000 SIFT
/// descriptors .92, of 22,000 embeddings .87, and the pass finds more.
const ENOUGH: f64 = 0.95;

/// Whether the first pass misses many near vectors.
pub fn is_worth_it(neighborhoods: &Neighborhoods, sample: &[Sampled]) -> bool {
    neighborhoods.share_compared(sample) < ENOUGH
}

/// New edges, from the near vectors that walks through the old ones find.
pub fn refine<const LINES: usize>(
    neighborhoods: &Neighborhoods,
    edges: Vec<Edges>,
    params: &QuantizedGraphParams,
) -> Vec<Edges> {
    let codes = &Codes::<LINES>::of(neighborhoods);
    let (seeds, groups) = Groups::of(codes, neighborhoods.central.clone());
    // Walks read here and there: address translation is a good part of their cost.
    simd::in_huge_pages(codes.codes);
    simd::in_huge_pages(&edges);
    let network = Network {
        codes: codes.codes,
        edges: &edges,
        seeds: Seeds {
            positions: &seeds,
            codes: &copy_of(codes.codes, &seeds),
            groups: groups.as_ref(),
        },
        // It says what to keep beyond the k-th nearest. Here k fills the pool.
        error: 0.0,
    };
    let alpha = params.alpha as f32;
    let stage = Stage::new("walks", edges.len());
    let out: Vec<Edges> = (0..edges.len() as u32)
        .into_par_iter()
        .map_init(Scratch::default, |scratch, position| {
            stage.advance(1);
            let near = near_by_walk(network, codes, position, params.candidates, scratch);
            Edges::to(position, thin(codes, position, &near, alpha))
        })
        .collect();
    // No walk needs them any more, and the new ones take as much memory.
    drop(edges);
    settle(codes, &out, alpha)
}

/// The nearest that a walk towards `position` finds, at most `count`, and those that its edges lead
/// to; nearest first.
fn near_by_walk<const LINES: usize>(
    network: Network<'_, LINES>,
    codes: &Codes<'_, LINES>,
    position: u32,
    count: usize,
    scratch: &mut Scratch,
) -> Vec<Near> {
    let known = &network.edges[position as usize];
    let known: Vec<u32> = known.others(position).collect();
    let mut near = codes.near(position, &known);
    let limits = Limits {
        ef: count,
        k: count,
        reach: 1.0,
        // The walk is to come to its neighbours by other ways than its own edges.
        left_out: Some(position),
    };
    let found = Walk::run(network, codes.query(position), limits, scratch);
    near.extend(found.iter().map(|entry| entry.near()));
    // What was both known and found is there twice, at one and the same distance.
    near.sort_unstable_by_key(order_from(position));
    near.dedup();
    near
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::index::graph::code_plan::Plan;
    use crate::index::graph::quantized_graph::build::{build, link};
    use crate::index::support::test_data::clustered;
    use crate::lab::evaluate::on_threads;
    use crate::lab::shapes;
    use crate::progress::{self, Step};
    use crate::vectors::Vectors;

    /// The length of the codes.
    const LINES: usize = 2;

    /// Noise, whose rows have near ones on all sides: in more clusters than are looked into.
    fn noise(rows: usize) -> Arc<Vectors> {
        let shape = shapes::find("noise_64").unwrap();
        Arc::new(shape.sample(rows, 1, shape.dim, 3).base)
    }

    fn plan(base: &Arc<Vectors>) -> Plan {
        Plan::choose(base, Some(LINES), 0)
    }

    fn params() -> QuantizedGraphParams {
        QuantizedGraphParams {
            candidates: 40,
            // Thinning then leaves out few of the nearest.
            alpha: 1.2,
            ..Default::default()
        }
    }

    /// The positions by row number.
    fn position_of(neighborhoods: &Neighborhoods) -> Vec<u32> {
        let mut positions = vec![0; neighborhoods.ids().len()];
        for (position, &id) in neighborhoods.ids().iter().enumerate() {
            positions[id as usize] = position as u32;
        }
        positions
    }

    /// To what share of the sampled rows' three nearest by brute force an edge leads.
    fn joined(neighborhoods: &Neighborhoods, edges: &[Edges], sample: &[Sampled]) -> f64 {
        let position_of = position_of(neighborhoods);
        let (mut joined, mut all) = (0, 0);
        for sampled in sample {
            let edges = edges[position_of[sampled.row] as usize].0;
            for near in &sampled.near[..3] {
                joined += usize::from(edges.contains(&position_of[near.id as usize]));
                all += 1;
            }
        }
        joined as f64 / f64::from(all)
    }

    #[test]
    fn edges_lead_to_near_rows_that_the_first_pass_missed() {
        let base = noise(4_000);
        let plan = plan(&base);
        let neighborhoods = Neighborhoods::find::<LINES>(&base, &plan, 0);
        let first = link::<LINES>(&neighborhoods, &params());
        let second = refine::<LINES>(&neighborhoods, first.clone(), &params());
        let [before, after] =
            [&first, &second].map(|edges| joined(&neighborhoods, edges, &plan.sample));
        assert!(before < 0.85 && after > 0.95, "{before}, then {after}");
    }

    /// Of the sampled rows' nearest, by near rows without a limit: these are all rows that one is
    /// compared with.
    fn share_among_near(neighborhoods: &Neighborhoods, sample: &[Sampled]) -> f64 {
        let position_of = position_of(neighborhoods);
        let (mut among, mut all) = (0, 0);
        for sampled in sample {
            let near = neighborhoods.near::<LINES>(position_of[sampled.row], position_of.len());
            for wanted in &sampled.near {
                let wanted = position_of[wanted.id as usize];
                among += usize::from(near.iter().any(|&(_, other)| other == wanted));
                all += 1;
            }
        }
        among as f64 / f64::from(all)
    }

    /// Whether a build makes a second pass.
    fn is_refined(base: &Vectors, plan: &Plan) -> bool {
        let stages = Arc::new(Mutex::new(Vec::new()));
        let told = Arc::clone(&stages);
        let observer = move |step: Step| told.lock().unwrap().push(step.stage);
        progress::observe(observer, || build::<LINES>(base, plan, &params()));
        stages.lock().unwrap().contains(&"walks")
    }

    #[test]
    fn a_second_pass_is_made_where_the_first_misses_near_rows() {
        let clusters = Arc::new(clustered(4_000, 30, 1));
        for (base, expected) in [(noise(4_000), true), (clusters, false)] {
            let plan = plan(&base);
            let neighborhoods = Neighborhoods::find::<LINES>(&base, &plan, 0);
            let share = share_among_near(&neighborhoods, &plan.sample);
            assert_eq!(neighborhoods.share_compared(&plan.sample), share);
            assert_eq!(share < ENOUGH, expected, "{share}");
            assert_eq!(is_refined(&base, &plan), expected);
            // Of no rows, none is missed.
            assert_eq!(neighborhoods.share_compared(&[]), 1.0);
        }
    }

    #[test]
    fn threads_change_no_edge() {
        let base = noise(1_500);
        let plan = plan(&base);
        let on = |threads| {
            on_threads(threads, || {
                let neighborhoods = Neighborhoods::find::<LINES>(&base, &plan, 0);
                let first = link::<LINES>(&neighborhoods, &params());
                refine::<LINES>(&neighborhoods, first, &params())
            })
        };
        assert!(on(1).unwrap() == on(3).unwrap());
    }
}
