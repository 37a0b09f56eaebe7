//! Which sample of which hard shape is searched: what `--data shape:` says.

use std::str::FromStr;

use fashion_knn::lab::shapes::{self, Sample, Shape};

/// Rows of a hard shape, where nothing else is asked for.
const ROWS: usize = 20_000;

/// Most values of a hard shape, base and queries together: 4 GB of floats.
const VALUES: usize = 1 << 30;

/// A sample that is asked for: "outlier_1e4,n=20000,d=32,seed=0".
#[derive(Debug)]
pub struct Wanted {
    pub shape: &'static Shape,
    pub rows: usize,
    pub dim: usize,
    pub seed: u64,
}

impl FromStr for Wanted {
    type Err = String;

    fn from_str(wanted: &str) -> Result<Self, String> {
        let (name, sizes) = wanted.split_once(',').unwrap_or((wanted, ""));
        let Some(shape) = shapes::find(name) else {
            return Err(format!("no shape {name:?}; --list has their names"));
        };
        let (mut rows, mut dim, mut seed) = (ROWS, shape.dim, 0);
        for part in sizes.split(',').filter(|part| !part.is_empty()) {
            let malformed =
                || format!("{part:?} of shape {name}; expected n=, d= or seed= a number");
            let (size, value) = part.split_once('=').ok_or_else(malformed)?;
            let value = value.parse::<u32>().map_err(|_| malformed())?;
            match size {
                "n" if value > 0 => rows = value as usize,
                "d" if value > 0 => dim = value as usize,
                "seed" => seed = u64::from(value),
                _ => return Err(malformed()),
            }
        }
        Ok(Self {
            shape,
            rows,
            dim,
            seed,
        })
    }
}

impl Wanted {
    /// What the record calls it. Number of rows and dimension have columns of their own there, the
    /// seed has none.
    pub fn name(&self) -> String {
        match self.seed {
            0 => self.shape.name.to_owned(),
            seed => format!("{} seed={seed}", self.shape.name),
        }
    }

    /// The sample, with so many queries.
    pub fn sample(&self, queries: usize) -> Result<Sample, String> {
        let Self {
            shape,
            rows,
            dim,
            seed,
        } = *self;
        let values = queries.saturating_add(rows).saturating_mul(dim);
        if values > VALUES {
            return Err(format!(
                "shape {}: {rows} rows and {queries} queries of {dim} dimensions; expected at most \
                 {VALUES} values in all",
                shape.name
            ));
        }
        Ok(shape.sample(rows, queries, dim, seed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shape_is_given_with_its_size_and_malformed_ones_are_refused() {
        let size = |wanted: &str| {
            let wanted: Wanted = wanted.parse().unwrap();
            let Sample { base, queries } = wanted.sample(3).unwrap();
            (wanted.name(), base.len(), base.dim(), queries.len())
        };
        assert_eq!(size("d2,n=50"), ("d2".to_owned(), 50, 2, 3));
        assert_eq!(
            size("noise_64,d=5,n=9,seed=1"),
            ("noise_64 seed=1".to_owned(), 9, 5, 3)
        );
        // More than memory holds: n × d values, or the rows themselves.
        for wanted in ["d2,n=4000000000", "d2,n=40000,d=40000"] {
            let error = wanted.parse::<Wanted>().unwrap().sample(3).unwrap_err();
            assert!(error.contains("values"), "{error}");
        }
        assert!("d2".parse::<Wanted>().unwrap().sample(usize::MAX).is_err());
        for wanted in ["d4", "d2,n", "d2,n=0", "d2,d=0", "d2,m=3", "d2,n=1e3"] {
            assert!(wanted.parse::<Wanted>().is_err(), "{wanted}");
        }
    }
}
