//! What the command line and the record say of parameters, sweeps and shapes.

use fashion_knn::distance::Metric;
use fashion_knn::index::registry::Settings;
use fashion_knn::lab::shapes::Sample;

use plan::plans;
use shape::Wanted;

#[path = "../../src/bin/measure/plan.rs"]
mod plan;
#[path = "../../src/bin/measure/shape.rs"]
mod shape;

/// Values of a sample that are drawn for an input; a larger one is only asked for.
const VALUES: usize = 10_000;

/// Lines: a shape, the names of indexes, and what all lines are as a sweep and as settings.
pub fn syntax(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    for line in text.lines() {
        settings(line);
        wanted(line);
        let (indexes, sweep) = line.split_once('/').unwrap_or(("all", line));
        planned(indexes, sweep);
    }
}

/// What is read as settings is read again after it was printed.
fn settings(text: &str) {
    if let Ok(settings) = text.parse::<Settings>() {
        let printed = settings.to_string();
        assert_eq!(printed.parse(), Ok(settings), "{printed}");
    }
}

/// A shape has the size that was asked for, or is refused.
fn wanted(text: &str) {
    let queries = 3;
    let Ok(wanted) = text.parse::<Wanted>() else {
        return;
    };
    if (wanted.rows + queries).saturating_mul(wanted.dim) > VALUES {
        return;
    }
    let sample = wanted.sample(queries).expect("it is small");
    let Sample {
        base,
        queries: asked,
    } = sample;
    assert_eq!((base.len(), asked.len()), (wanted.rows, queries));
    assert_eq!((base.dim(), asked.dim()), (wanted.dim, wanted.dim));
}

/// A sweep has a setting for each combination of its values.
fn planned(indexes: &str, sweep: &str) {
    let Ok(plans) = plans(indexes, sweep, Metric::Euclidean) else {
        return;
    };
    for plan in plans {
        for settings in plan.builds.iter().chain(&plan.queries) {
            assert_eq!(settings.to_string().parse().as_ref(), Ok(settings));
        }
        if sweep == "default" || sweep == "query" {
            continue;
        }
        let (mut builds, mut queries) = (1, 1);
        for (name, values) in sweep.split(';').filter_map(|part| part.split_once('=')) {
            let is_build = plan
                .entry
                .build_knobs
                .iter()
                .any(|knob| knob.name == name.trim());
            let side = if is_build { &mut builds } else { &mut queries };
            *side *= values.split(',').count();
        }
        assert_eq!(
            (plan.builds.len(), plan.queries.len()),
            (builds, queries),
            "{sweep}"
        );
    }
}
