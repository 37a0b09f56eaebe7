//! Which settings of which indexes are measured: what `--index` and `--sweep` say.

use std::error::Error;

use fashion_knn::distance::Metric;
use fashion_knn::index::registry::{Entry, REGISTRY, Settings, find};

/// Settings of an index, at most: at a second each they take three hours. A sweep can ask for any
/// number of them in a few letters.
const MOST_SETTINGS: usize = 10_000;

/// What is measured of an index: each of `builds` with each of `queries`.
#[derive(Debug)]
pub struct Plan {
    pub entry: &'static Entry,
    /// The settings of the builds.
    pub builds: Vec<Settings>,
    /// The settings of the queries.
    pub queries: Vec<Settings>,
}

/// The plan of each index. What the registry does not have is refused here, before anything that
/// takes time.
pub fn plans(indexes: &str, sweep: &str, metric: Metric) -> Result<Vec<Plan>, Box<dyn Error>> {
    let mut plans = Vec::new();
    for entry in entries(indexes, metric)? {
        let plan = plan(entry, sweep)?;
        for build in &plan.builds {
            let checked = entry.check(build, &plan.queries);
            checked.map_err(|error| format!("{}: {error}", entry.key))?;
        }
        plans.push(plan);
    }
    Ok(plans)
}

/// The indexes of these names. "all" are those that take the metric.
fn entries(names: &str, metric: Metric) -> Result<Vec<&'static Entry>, String> {
    let taking = REGISTRY.iter().filter(|entry| (entry.takes)(metric));
    if names == "all" {
        return Ok(taking.collect());
    }
    let mut entries = Vec::new();
    for name in names.split(',') {
        let Some(entry) = find(name.trim()) else {
            let known: Vec<&str> = REGISTRY.iter().map(|entry| entry.key).collect();
            let known = known.join(", ");
            return Err(format!(
                "no index {name:?}; expected all, or some of {known}"
            ));
        };
        if !(entry.takes)(metric) {
            let (name, by) = (entry.key, metric.name());
            let others: Vec<&str> = taking.map(|entry| entry.key).collect();
            let others = others.join(", ");
            return Err(format!(
                "{name} does not search by {by}; these do: {others}"
            ));
        }
        entries.push(entry);
    }
    Ok(entries)
}

fn plan(entry: &'static Entry, sweep: &str) -> Result<Plan, String> {
    let mut plan = Plan {
        entry,
        builds: vec![Settings::default()],
        queries: vec![Settings::default()],
    };
    // "query" leaves the one default build.
    if sweep == "default" || sweep == "query" {
        plan.queries = entry.query_sweep();
        if sweep == "default" {
            plan.builds = entry.build_sweep();
        }
        return Ok(plan);
    }
    let (mut names, mut settings) = (Vec::new(), 1usize);
    for part in sweep
        .split(';')
        .map(str::trim)
        .filter(|part| !part.is_empty())
    {
        let (name, values) = parameter_values(part)?;
        // Of two values of one parameter the second would replace the first.
        if names.contains(&name) {
            return Err(format!("{name} stands twice in the sweep"));
        }
        names.push(name);
        settings = settings.saturating_mul(values.len());
        if settings > MOST_SETTINGS {
            return Err(format!(
                "the sweep has {settings} settings or more; expected at most {MOST_SETTINGS}"
            ));
        }
        // A name that is no knob goes to the queries. `Entry::check` refuses it there, with the
        // list of those that there are.
        let side = if entry.build_knobs.iter().any(|knob| knob.name == name) {
            &mut plan.builds
        } else {
            &mut plan.queries
        };
        // Each setting so far is combined with each value of this parameter: after the last part
        // there is one setting for every combination.
        let with_each = |known: &Settings| -> Vec<Settings> {
            values
                .iter()
                .map(|&value| known.clone().with(name, value))
                .collect()
        };
        *side = side.iter().flat_map(with_each).collect();
    }
    Ok(plan)
}

/// A part of a sweep, "search_k=400,1000": the name and the values.
fn parameter_values(part: &str) -> Result<(&str, Vec<f64>), String> {
    let Some((name, values)) = part.split_once('=') else {
        return Err(format!("{part:?} in the sweep; expected name=value,value"));
    };
    let name = name.trim();
    let mut numbers = Vec::new();
    for text in values.split(',') {
        let number = text.trim().parse::<f64>();
        let number = number.map_err(|error| format!("{name}={text:?}: {error}"))?;
        if !number.is_finite() {
            return Err(format!("{name}={text:?}: expected a finite number"));
        }
        numbers.push(number);
    }
    Ok((name, numbers))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_indexes_and_malformed_sweeps_are_refused() {
        assert!(
            entries("brute_force, flat", Metric::Euclidean)
                .unwrap_err()
                .contains("\" flat\"")
        );
        let all = |metric| entries("all", metric).unwrap().len();
        assert_eq!(all(Metric::InnerProduct), REGISTRY.len());
        assert_eq!(all(Metric::Manhattan), 2);
        assert_eq!(
            entries("ball_tree,annoy", Metric::Manhattan).unwrap_err(),
            "annoy does not search by manhattan; these do: brute_force, ball_tree"
        );
        let entry = find("brute_force").unwrap();
        assert!(plan(entry, "search_k").unwrap_err().contains("name=value"));
        assert!(plan(entry, "search_k=many").unwrap_err().contains("many"));
        assert!(plan(entry, "a=1,nan").unwrap_err().contains("finite"));
        assert!(
            plan(entry, "a=1; b=2; a=3")
                .unwrap_err()
                .contains("a stands twice")
        );
        // Ten parameters of ten values: ten thousand million settings.
        let parts: Vec<String> = (0..10)
            .map(|name| format!("{name}=0,1,2,3,4,5,6,7,8,9"))
            .collect();
        assert!(
            plan(entry, &parts.join(";"))
                .unwrap_err()
                .contains("at most 10000")
        );
        let Plan {
            builds, queries, ..
        } = plan(entry, "a=1,2; b=3").unwrap();
        assert_eq!((builds.len(), queries.len()), (1, 2));
        assert_eq!(
            queries[1],
            Settings::default().with("a", 2.0).with("b", 3.0)
        );
    }

    /// `search_k` is a parameter of the first index and not of the second.
    #[test]
    fn a_parameter_that_one_of_the_indexes_lacks_is_refused() {
        let error = plans("annoy,ivf_flat", "search_k=100", Metric::Euclidean)
            .unwrap_err()
            .to_string();
        assert!(
            error.starts_with("ivf_flat: there is no parameter \"search_k\""),
            "{error}"
        );
        assert_eq!(
            plans("annoy", "search_k=100,200; n_trees=3", Metric::Cosine)
                .unwrap()
                .len(),
            1
        );
    }
}
