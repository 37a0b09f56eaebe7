//! A forest of random-hyperplane trees.
//!
//! # The naive form
//! Cut the space in two by a plane, each half again, until the cells are small. A query compares
//! the rows of its own cell:
//!
//! ```text
//! def search(node, q):
//!     while node is split:
//!         node = node.side(q)
//!     compare the rows of the leaf
//! ```
//!
//! This is fast and misses many neighbours, as they lie just behind a plane.
//!
//! # The idea
//! Many trees with different planes: a neighbour that one tree cuts off is in the query's cell in
//! another. And one queue for all trees: after the query's own leaves come those behind the planes
//! that it is nearest to.
//!
//! ```text
//! tree 0        tree 1        tree 2           q is the query, x its neighbour
//!    |               \
//!  q | x          q x \         q x            queue: behind the plane of tree 0   (0.3 away)
//!    |                 \       -----                  behind the plane of tree 1   (0.8 away)
//! ```
//!
//! The search stops when the leaves that it looked at held `search_k` rows. So neighbours may be
//! lost: those that lie in other leaves in every tree. More trees and a larger `search_k` lose
//! fewer.
//!
//! Ours are two changes that make it faster. The hyperplanes lie in the space of the leading
//! principal components, where a margin costs fewer products than d, and where the centres of
//! clusters differ most anyway: 31 of them, or more where these do not carry most of the variance.
//! And a true distance is computed only for those of the rows collected whose bound in that space
//! is below the k-th best so far: the answer is that of comparing all of them.
//!
//! # Layout
//! Rows and their sketches lie in the order of the first tree's leaves, so that what a query looks
//! at is near in memory. The leaves of all trees hold positions in that order. A row that several
//! trees find is compared once.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::sync::Arc;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use crate::index::parameters::{parameters, positive};
use crate::index::parts::{
    Element, NumberType, Part, PartError, Parts, Saved, expect, expect_each_once, expect_starts,
    saved_list,
};
use crate::index::support::lower_bound::Sketch;
use crate::index::support::pruned_rows::{COMPONENTS, PrunedRows};
use crate::index::{Build, BuildError, Found, Index, Parameters, check_base};
use crate::neighbor::TopK;
use crate::progress::Stage;
use crate::simd::lower_bound as kernels;
use crate::vectors::{Row, Vectors};

parameters! {
    /// How an [`Annoy`] is built.
    pub struct AnnoyParams {
        /// Trees of the forest.
        /// Each costs build time and memory. The `search_k` rows of a query are spread over them;
        /// a row that several trees find counts for each.
        n_trees: usize = 50, sweep [10, 50, 100];
        /// Seed of the random splits.
        /// The same seed gives the same forest on any number of threads.
        seed: u64 = 0;
    }
}

parameters! {
    /// How an [`Annoy`] is searched.
    pub struct AnnoySearch {
        /// Rows that a query collects; 0 for `n_trees` × k.
        /// A row counts once for each tree in which it is met. Never fewer than k different rows
        /// are collected. 0 is the original's default.
        search_k: usize = 7_000,
            sweep [400, 700, 1_000, 1_400, 2_000, 2_800, 4_000, 7_000, 10_000, 20_000];
    }
}

/// The share of the variance that the components of the hyperplanes carry, if
/// [`MOST_COMPONENTS`] do.
///
/// On sentence embeddings of 384 dimensions, where 31 components carry .37, the forest is 1.4 times
/// as fast at recall .90 with 159 (.8), and 1.7 times at .95; with all it is as fast as with 31. On
/// Fashion-MNIST's pixels (31 carry .82) and on SIFT descriptors (.79) more components change the
/// speed at a recall by 5 % at most.
const CARRIED: f64 = 0.8;
/// The most components: as many as [`Pca::fit`](crate::math::pca::Pca::fit) finds in linear time
/// where there are more than 1,024 dimensions.
const MOST_COMPONENTS: usize = 255;
/// The most rows that a leaf holds. Smaller leaves fit closer around a query, and it has to visit
/// more of them for `search_k` rows.
const LEAF_SIZE: usize = 64;
/// Rows that two-means looks at, as in the original.
const SAMPLES: usize = 200;
/// A split that leaves less than this share on one side is drawn again, as in the original. Such
/// splits make a deep tree, whose planes cost time and part little.
const SMALLEST_SHARE: f64 = 0.05;
/// So many times a split is drawn.
const ATTEMPTS: usize = 3;
/// After the last attempt, a split that leaves this share is taken, as in the original: rows of
/// very different sizes are parted no better. With less, the rows are halved without a plane.
const LEAST_SHARE: f64 = 0.01;

/// Annoy (*Approximate Nearest Neighbors Oh Yeah*), after Erik Bernhardsson's library. Approximate,
/// Euclidean.
///
/// Each tree halves the rows by hyperplanes midway between two centres that a short two-means run
/// finds. A query goes down to its own leaf of each tree and then, over all trees, where the margin
/// to the planes crossed is smallest, until it has collected `search_k` rows. The hyperplanes lie
/// in the space of the leading principal components.
///
/// **What it is bad at**: high recall. Its last few neighbours cost many leaves, where a graph
/// reaches them in fewer comparisons. Its trees take memory, 4 bytes a row and tree at least. And
/// data that no component leads: of 10,000 rows of noise in 384 dimensions it finds .78 of the ten
/// nearest by default, as 7,000 rows collected are few there. (The original finds .74.)
///
/// E. Bernhardsson, *Annoy*, <https://github.com/spotify/annoy>.
///
/// ```
/// use fashion_knn::prelude::*;
///
/// let grid = (0..1_000).flat_map(|i| [(i % 40) as f32, (i / 40) as f32]);
/// let base = Arc::new(Vectors::from_floats(2, grid.collect::<Vec<_>>())?);
///
/// let forest = Annoy::build(base, AnnoyParams { n_trees: 10, ..AnnoyParams::default() })?;
/// let thorough = forest.with_search(AnnoySearch { search_k: 10_000 })?;
/// assert_eq!(thorough.query(&[7.1, 3.0], 1)?[0].id, 3 * 40 + 7);
///
/// // Fewer rows are looked at, and a neighbour may be lost.
/// let fast = forest.with_search(AnnoySearch { search_k: 50 })?;
/// let (_, few) = fast.query_counted(&[7.1, 3.0], 1)?;
/// let (_, many) = thorough.query_counted(&[7.1, 3.0], 1)?;
/// assert!(few.bounds < many.bounds);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct Annoy {
    forest: Arc<Forest>,
    search: AnnoySearch,
}

#[derive(Debug)]
struct Forest {
    params: AnnoyParams,
    trees: Vec<Tree>,
    /// In the order of the first tree's leaves, near ones together.
    rows: PrunedRows,
}

/// One tree. A node is a split, or if negative a leaf.
#[derive(Debug)]
struct Tree {
    splits: Vec<Split>,
    /// splits × (components of the hyperplanes).
    normals: Vec<f32>,
    /// The positions of the rows, leaf after leaf, and where each leaf ends.
    rows: Vec<u32>,
    ends: Vec<u32>,
    root: Node,
}

/// The hyperplane normal·x + offset = 0, and what lies on its negative and on its positive side.
#[derive(Debug, Clone, Copy)]
struct Split {
    offset: f32,
    sides: [Node; 2],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Node {
    Split(u32),
    Leaf(u32),
}

/// A node still to be visited: the smallest margin by which the query is on its side of the planes
/// above it.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Pending {
    margin: f32,
    tree: u32,
    node: Node,
}

impl Eq for Pending {}

impl Ord for Pending {
    fn cmp(&self, other: &Self) -> Ordering {
        // Equal margins: the first tree first, whatever the order they came in.
        self.margin
            .total_cmp(&other.margin)
            .then((other.tree, other.node).cmp(&(self.tree, self.node)))
    }
}

impl PartialOrd for Pending {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// A hyperplane of an [`Annoy`] tree, in the space of the data: normal·x + offset = 0.
#[derive(Debug, Clone, PartialEq)]
pub struct Hyperplane {
    /// Zero for the first split.
    pub depth: usize,
    /// d values, not of unit length.
    pub normal: Vec<f64>,
    /// What to add to normal·x.
    pub offset: f64,
    /// The rows that it parts.
    pub ids: Vec<u32>,
}

impl Annoy {
    /// What it was built with.
    #[must_use]
    pub fn build_params(&self) -> &AnnoyParams {
        &self.forest.params
    }

    /// The hyperplanes of one tree, parents before children; none if there is no such tree.
    #[must_use]
    pub fn hyperplanes(&self, tree: usize) -> Vec<Hyperplane> {
        let Some(tree) = self.forest.trees.get(tree) else {
            return Vec::new();
        };
        let mut planes = Vec::new();
        let mut pending = vec![(tree.root, 0)];
        while let Some((node, depth)) = pending.pop() {
            let Node::Split(number) = node else { continue };
            let Split { offset, sides } = tree.splits[number as usize];
            // The planes lie in the space of the sketches. This turns them back to that of the
            // data.
            let (normal, shift) = self.forest.rows.sketch().plane(tree.normal(number));
            // Trees name rows by position; the caller knows them by id.
            let ids = tree
                .rows_below(node)
                .iter()
                .map(|&row| self.forest.rows.ids()[row as usize])
                .collect();
            planes.push(Hyperplane {
                depth,
                normal,
                offset: f64::from(offset) + shift,
                ids,
            });
            pending.extend(sides.map(|side| (side, depth + 1)));
        }
        planes
    }

    /// The rows in each of the regions that the first `depth` levels of one tree leave, by id: at
    /// most 2^depth regions, fewer where a leaf comes before. None if there is no such tree.
    #[must_use]
    pub fn regions(&self, tree: usize, depth: usize) -> Vec<Vec<u32>> {
        let Some(tree) = self.forest.trees.get(tree) else {
            return Vec::new();
        };
        let mut regions = Vec::new();
        let mut pending = vec![(tree.root, 0)];
        while let Some((node, level)) = pending.pop() {
            if let Node::Split(number) = node
                && level < depth
            {
                let sides = tree.splits[number as usize].sides;
                pending.extend(sides.map(|side| (side, level + 1)));
                continue;
            }
            // Trees name rows by position; the caller knows them by id.
            let rows = tree.rows_below(node).iter();
            let id = |&row: &u32| self.forest.rows.ids()[row as usize];
            regions.push(rows.map(id).collect());
        }
        regions
    }
}

saved_list!(Tree {
    splits,
    normals,
    rows,
    ends,
    root
});

/// As a number: that of a split doubled, that of a leaf doubled and one more.
impl Part for Node {
    fn write<'a>(&'a self, name: &str, parts: &mut Parts<'a>) {
        parts.add_number(name, u64::from(self.number()));
    }

    fn read(name: &str, saved: &mut Saved<'_>) -> Result<Self, PartError> {
        let number = u32::try_from(saved.take::<u64>(name)?);
        let number = number.map_err(|error| PartError::invalid(name, error))?;
        Ok(Self::numbered(number))
    }
}

impl Node {
    fn number(self) -> u32 {
        match self {
            Self::Split(split) => 2 * split,
            Self::Leaf(leaf) => 2 * leaf + 1,
        }
    }

    fn numbered(number: u32) -> Self {
        if number.is_multiple_of(2) {
            Self::Split(number / 2)
        } else {
            Self::Leaf(number / 2)
        }
    }
}

/// Three words: the offset, as its bits, and the numbers of the sides.
impl Element for Split {
    const NUMBER: NumberType = NumberType::U32;
    const SIZE: usize = 12;

    fn put(&self, bytes: &mut [u8]) {
        let [left, right] = self.sides.map(Node::number);
        [self.offset.to_bits(), left, right].put(bytes);
    }

    fn take(bytes: &[u8]) -> Self {
        let [offset, left, right] = Element::take(bytes);
        Self {
            offset: f32::from_bits(offset),
            sides: [left, right].map(Node::numbered),
        }
    }
}

impl Tree {
    /// Refuses what is not a tree over `rows` rows, with planes of so many components.
    ///
    /// # Errors
    /// If it is not.
    fn check(&self, rows: usize, components: usize) -> Result<(), PartError> {
        let normals = self.splits.len() * components;
        expect(
            self.normals.len() == normals,
            "normals",
            "one for each split",
        )?;
        expect(self.rows.len() == rows, "rows", "each row")?;
        expect_each_once(&self.rows, "rows")?;
        let ends = [&[0], &*self.ends].concat();
        expect_starts(&ends, rows, "ends")?;
        // From the root, the leaves must come in their order, and no split twice: then no way down
        // leads back up.
        let (mut pending, mut leaves, mut splits) = (vec![self.root], 0, 0);
        while let Some(node) = pending.pop() {
            match node {
                Node::Leaf(leaf) if leaf as usize == leaves => leaves += 1,
                Node::Split(split) if splits < self.splits.len() => {
                    splits += 1;
                    let split = self.splits.get(split as usize);
                    let split = split.ok_or_else(|| PartError::invalid("splits", "too few"))?;
                    pending.extend(split.sides.into_iter().rev());
                }
                _ => return Err(PartError::invalid("splits", "they make no tree")),
            }
        }
        expect(leaves == self.ends.len(), "ends", "the leaves of the tree")
    }

    fn normal(&self, split: u32) -> &[f32] {
        let components = self.normals.len() / self.splits.len();
        &self.normals[split as usize * components..][..components]
    }

    fn leaf(&self, leaf: u32) -> &[u32] {
        &self.rows[self.start(leaf)..self.ends[leaf as usize] as usize]
    }

    /// Where the rows of a leaf begin.
    fn start(&self, leaf: u32) -> usize {
        match leaf {
            0 => 0,
            leaf => self.ends[leaf as usize - 1] as usize,
        }
    }

    /// The rows of all leaves below a node; leaves are numbered from left to right.
    fn rows_below(&self, node: Node) -> &[u32] {
        // Leaves were numbered as their rows lie, so that those below a node are one piece.
        let (first, last) = (self.outermost(node, 0), self.outermost(node, 1));
        &self.rows[self.start(first)..self.ends[last as usize] as usize]
    }

    /// The first leaf below a node (side 0), or the last (side 1).
    fn outermost(&self, mut node: Node, side: usize) -> u32 {
        loop {
            match node {
                Node::Split(split) => node = self.splits[split as usize].sides[side],
                Node::Leaf(leaf) => return leaf,
            }
        }
    }

    fn memory_bytes(&self) -> usize {
        size_of_val(&*self.splits)
            + size_of_val(&*self.normals)
            + size_of_val(&*self.rows)
            + size_of_val(&*self.ends)
    }
}

/// Grows one tree.
struct Grower<'a> {
    sketches: &'a [f32],
    width: usize,
    components: usize,
    rng: ChaCha8Rng,
    tree: Tree,
}

impl<'a> Grower<'a> {
    fn grow(sketch: &Sketch, sketches: &'a [f32], seed: u64, tree: u64) -> Tree {
        // A stream a tree: which thread grows it makes no difference.
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(tree);
        let mut rows: Vec<u32> = (0..(sketches.len() / sketch.width()) as u32).collect();
        let tree = Tree {
            splits: Vec::new(),
            normals: Vec::new(),
            rows: Vec::new(),
            ends: Vec::new(),
            root: Node::Leaf(0),
        };
        let mut grower = Self {
            sketches,
            width: sketch.width(),
            components: sketch.components(),
            rng,
            tree,
        };
        grower.tree.root = grower.branch(&mut rows);
        grower.tree.rows = rows;
        grower.tree
    }

    fn at(&self, row: u32) -> &'a [f32] {
        &self.sketches[row as usize * self.width..][..self.components]
    }

    fn branch(&mut self, rows: &mut [u32]) -> Node {
        // A leaf: its rows end where those of the leaf before end, plus their number. The rows
        // themselves are in place already, since every split moves rows within its own piece only.
        if rows.len() <= LEAF_SIZE {
            self.tree
                .ends
                .push(self.tree.ends.last().unwrap_or(&0) + rows.len() as u32);
            return Node::Leaf(self.tree.ends.len() as u32 - 1);
        }
        let (normal, offset, middle) = self.split(rows);
        // The split is stored before its sides grow, so that parents come before children. Its
        // sides are filled in when they are known.
        let number = self.tree.splits.len();
        self.tree.splits.push(Split {
            offset,
            sides: [Node::Leaf(0); 2],
        });
        self.tree.normals.extend_from_slice(&normal);
        let (left, right) = rows.split_at_mut(middle);
        self.tree.splits[number].sides = [self.branch(left), self.branch(right)];
        Node::Split(number as u32)
    }

    /// Parts the rows by a hyperplane; returns it, and how many are on its negative side.
    fn split(&mut self, rows: &mut [u32]) -> (Vec<f32>, f32, usize) {
        let least = |share: f64| ((rows.len() as f64 * share) as usize).max(1);
        let (wanted, enough) = (least(SMALLEST_SHARE), least(LEAST_SHARE));
        for attempt in 1..=ATTEMPTS {
            let smallest = if attempt < ATTEMPTS { wanted } else { enough };
            let (normal, offset) = self.two_means(rows);
            let side = |row| kernels::dot_f32(&normal, self.at(row)) + offset > 0.0;
            // Rows of the negative side change places with the first that is not on it. So
            // `rows[..middle]` is the negative side of the rows looked at so far.
            let mut middle = 0;
            for i in 0..rows.len() {
                if !side(rows[i]) {
                    rows.swap(i, middle);
                    middle += 1;
                }
            }
            if middle >= smallest && rows.len() - middle >= smallest {
                return (normal, offset, middle);
            }
        }
        // Rows that no plane parts well, such as equal ones, are halved as they lie. The plane is
        // all zeros: every query is on it, and both sides have the margin zero.
        (vec![0.0; self.components], 0.0, rows.len() / 2)
    }

    /// The hyperplane midway between two centres. Two of the rows are the first centres. Then each
    /// row of a sample moves the nearer centre towards itself, so that each centre stays the mean
    /// of the rows that it has taken.
    ///
    /// A centre's distance is multiplied by the number of rows that it has taken. So the one with
    /// fewer rows gets the next row more easily, and the sides do not become too unequal.
    fn two_means(&mut self, rows: &[u32]) -> (Vec<f32>, f32) {
        // Two different rows: the second is 1 to n − 1 places after the first, round the end.
        let first = self.rng.random_range(0..rows.len());
        let second = (first + self.rng.random_range(1..rows.len())) % rows.len();
        let mut centres = [
            self.at(rows[first]).to_vec(),
            self.at(rows[second]).to_vec(),
        ];
        let mut taken = [1.0f32; 2];
        for _ in 0..SAMPLES {
            let drawn = self.rng.random_range(0..rows.len());
            let row = self.at(rows[drawn]);
            let [a, b] = [0, 1].map(|i| taken[i] * kernels::squared_euclidean(&centres[i], row));
            // A row that is equally near to both, as all are where the centres are equal, moves
            // neither.
            let nearer = if a < b {
                0
            } else if b < a {
                1
            } else {
                continue;
            };
            // The mean of `weight` rows becomes that of one row more.
            let weight = taken[nearer];
            for (centre, value) in centres[nearer].iter_mut().zip(row) {
                *centre = (*centre * weight + value) / (weight + 1.0);
            }
            taken[nearer] += 1.0;
        }
        midway(&centres)
    }
}

/// The hyperplane midway between two centres: its normal, of unit length, and its offset.
fn midway([first, second]: &[Vec<f32>; 2]) -> (Vec<f32>, f32) {
    let both = || first.iter().zip(second);
    let mut normal: Vec<f32> = both().map(|(a, b)| b - a).collect();
    let length = kernels::dot_f32(&normal, &normal).sqrt();
    for value in &mut normal {
        // The centres of equal rows are equal, and no plane is between them.
        *value = if length > 0.0 { *value / length } else { 0.0 };
    }
    // The plane goes through the middle of both: normal·middle + offset = 0.
    let middle: Vec<f32> = both().map(|(a, b)| 0.5 * (a + b)).collect();
    let offset = -kernels::dot_f32(&normal, &middle);
    (normal, offset)
}

/// A query on its way through the forest.
struct Search<'a> {
    trees: &'a [Tree],
    /// The query in the components of the hyperplanes.
    place: Vec<f32>,
    /// Nodes still to be visited in any tree, that of the largest margin first.
    pending: BinaryHeap<Pending>,
}

impl<'a> Search<'a> {
    fn begin(trees: &'a [Tree], place: Vec<f32>) -> Self {
        // Nothing has been crossed on the way to a root: its margin is infinite, and all roots come
        // first.
        let root = |(tree, root): (u32, &Tree)| Pending {
            margin: f32::INFINITY,
            tree,
            node: root.root,
        };
        let pending = (0..).zip(trees).map(root).collect();
        Self {
            trees,
            place,
            pending,
        }
    }

    /// The rows of the most promising leaf that was not visited yet, or `None` after the last one.
    #[inline]
    fn next_leaf(&mut self) -> Option<&'a [u32]> {
        // The margin of a node is the smallest of those on the way to it. Where the way leads to
        // the side that the query is not on, the margin is minus the distance from the plane.
        let nearest = self.pending.pop()?;
        let tree = &self.trees[nearest.tree as usize];
        let (mut margin, mut node) = (nearest.margin, nearest.node);
        loop {
            let split = match node {
                Node::Leaf(leaf) => return Some(tree.leaf(leaf)),
                Node::Split(split) => split,
            };
            let Split { offset, sides } = tree.splits[split as usize];
            // The signed distance from the plane, as normals have unit length.
            let side = kernels::dot_f32(tree.normal(split), &self.place) + offset;
            let (near, far) = if side > 0.0 {
                (sides[1], sides[0])
            } else {
                (sides[0], sides[1])
            };
            // The far side waits until no node has a larger margin. Its own is negative: the query
            // is not on that side.
            self.pending.push(Pending {
                margin: margin.min(-side.abs()),
                tree: nearest.tree,
                node: far,
            });
            margin = margin.min(side.abs());
            node = near;
        }
    }
}

impl Build for Annoy {
    const KEY: &'static str = "annoy";
    const NAME: &'static str = "Annoy";
    const EXACT: bool = false;
    type Params = AnnoyParams;
    type Search = AnnoySearch;

    /// Grows the forest, a tree a task on the current rayon pool, O(`n_trees`·n·log n).
    ///
    /// # Errors
    /// If `base` is empty or `n_trees` is zero.
    fn build(base: Arc<Vectors>, params: AnnoyParams) -> Result<Self, BuildError> {
        check_base(&base)?;
        positive("n_trees", params.n_trees)?;
        let sketched = Sketch::carrying(&base, CARRIED, COMPONENTS..=MOST_COMPONENTS)?;
        // Trees are grown over ids. Each has a random stream of its own, so that the order in which
        // they grow makes no difference.
        let stage = Stage::new("trees", params.n_trees);
        let grow = |tree| {
            let grown = Grower::grow(&sketched.sketch, &sketched.rows, params.seed, tree);
            stage.advance(1);
            grown
        };
        let mut trees: Vec<Tree> = (0..params.n_trees as u64)
            .into_par_iter()
            .map(grow)
            .collect();

        // Rows take the order of the first tree's leaves: what a query looks at is then near in
        // memory.
        let ids = trees[0].rows.clone();
        // position[id] is the place of row `id` in that order. All trees then name rows by it.
        let mut position = vec![0u32; ids.len()];
        for (at, &id) in (0..).zip(&ids) {
            position[id as usize] = at;
        }
        trees.par_iter_mut().for_each(|tree| {
            for row in &mut tree.rows {
                *row = position[*row as usize];
            }
        });
        let rows = PrunedRows::new(&base, sketched, ids);
        Ok(Self {
            forest: Arc::new(Forest {
                params,
                trees,
                rows,
            }),
            search: AnnoySearch::default(),
        })
    }

    /// Free of cost, and never an error.
    fn with_search(&self, search: AnnoySearch) -> Result<Self, BuildError> {
        let forest = Arc::clone(&self.forest);
        Ok(Self { forest, search })
    }

    fn from_parts(saved: &mut Saved<'_>) -> Result<Self, PartError> {
        let forest = Forest {
            params: saved.build_parameters()?,
            trees: saved.take("trees")?,
            rows: saved.take("rows")?,
        };
        forest.rows.check()?;
        let sketch = forest.rows.sketch();
        for tree in &forest.trees {
            tree.check(forest.rows.ids().len(), sketch.components())?;
        }
        let trees = forest.params.n_trees == forest.trees.len() && !forest.trees.is_empty();
        expect(trees, "trees", "n_trees of them")?;
        Ok(Self {
            forest: Arc::new(forest),
            search: saved.search_parameters()?,
        })
    }
}

impl Index for Annoy {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn params(&self) -> Vec<(&'static str, f64)> {
        [self.forest.params.values(), self.search.values()].concat()
    }

    fn len(&self) -> usize {
        self.forest.rows.ids().len()
    }

    fn dim(&self) -> usize {
        self.forest.rows.rows().dim()
    }

    fn memory_bytes(&self) -> usize {
        let Forest { trees, rows, .. } = &*self.forest;
        rows.memory_bytes() + trees.iter().map(Tree::memory_bytes).sum::<usize>()
    }

    fn search(&self, query: Row<'_>, k: usize) -> Found {
        let Forest {
            params,
            trees,
            rows,
        } = &*self.forest;
        let ids = rows.ids();
        let k = k.min(ids.len());
        // 0 stands for the original's default.
        let search_k = if self.search.search_k == 0 {
            params.n_trees.saturating_mul(k)
        } else {
            self.search.search_k
        };
        let mut comparison = rows.comparison(query);
        // The hyperplanes lie in the components alone, without the norm of the rest.
        let place = comparison.sketch()[..rows.sketch().components()].to_vec();
        let mut search = Search::begin(trees, place);
        let mut top = TopK::new(k);
        // A row counts once for each tree, as in the original; but k different ones are needed.
        let mut collected = 0;
        while collected < search_k || comparison.visits.bounds < k {
            let Some(positions) = search.next_leaf() else {
                break;
            };
            collected += positions.len();
            comparison.visits.leaves += 1;
            // Rows that another tree has found before are passed over. So are those whose bound is
            // above the k-th best.
            comparison.compare(positions, |position, reduced| {
                top.push(ids[position as usize], reduced);
                top.threshold()
            });
        }
        Found {
            candidates: top.into_candidates(),
            visits: comparison.visits,
        }
    }

    fn parts<'a>(&'a self, parts: &mut Parts<'a>) {
        parts.describe::<Self>(&self.forest.params, &self.search);
        parts.add("trees", &self.forest.trees);
        parts.add("rows", &self.forest.rows);
    }
}
