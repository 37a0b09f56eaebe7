//! The axes of the line charts: linear, logarithmic, or made for recall.

use std::ops::Range;

use plotters::coord::ranged1d::{DefaultFormatting, KeyPointHint, Ranged};
use plotters::coord::types::RangedCoordf64;

use super::extent;
use crate::report::numbers::{integer, short_decimal};

/// How an axis spaces its values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scale {
    /// Equal differences are equally far.
    Linear,
    /// Equal ratios are equally far.
    Log,
    /// Equal ratios of 1 − value are equally far: .9, .99, .999 stand evenly. The value 1 stands
    /// at the end, behind a gap.
    Recall,
}

/// From this recall on a value counts as exact. 10,000 queries of 10 neighbours can tell one miss
/// in 100,000 from none, and this is half of one.
pub(super) const EXACT: f64 = 1.0 - 5e-6;

/// How far behind the greatest inexact value the exact ones stand, in powers of ten.
pub(super) const GAP: f64 = 0.6;

/// An axis over some values.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Axis {
    scale: Scale,
    /// The values at both ends.
    range: Range<f64>,
    /// The places of both ends, in the unit of [`place`].
    ends: Range<f64>,
    /// The place of exact values, if there are any on an axis of recall.
    exact: Option<f64>,
}

/// Where a value lies on a scale, before it is fitted to an axis: the value itself, its decimal
/// logarithm, or −log₁₀(1 − value).
fn place(scale: Scale, value: f64) -> f64 {
    match scale {
        Scale::Linear => value,
        Scale::Log => value.log10(),
        Scale::Recall => nines(value),
    }
}

/// How many nines a recall has: 1 of .9, 2 of .99, 1.3 of .95.
pub(super) fn nines(recall: f64) -> f64 {
    -(1.0 - recall).log10()
}

/// The value at a place.
fn value_at(scale: Scale, place: f64) -> f64 {
    match scale {
        Scale::Linear => place,
        Scale::Log => 10f64.powf(place),
        Scale::Recall => 1.0 - 10f64.powf(-place),
    }
}

/// Whether a scale has a place for a value.
pub(super) fn can_hold(scale: Scale, value: f64) -> bool {
    match scale {
        Scale::Linear => value.is_finite(),
        Scale::Log => value.is_finite() && value > 0.0,
        Scale::Recall => (0.0..=1.0).contains(&value),
    }
}

impl Axis {
    /// An axis over these values, of which there is at least one and which the scale can hold, and
    /// 5 % more at each end, so that no marker lies on the frame.
    pub(super) fn over(scale: Scale, values: impl Iterator<Item = f64> + Clone) -> Self {
        let is_exact = |value: f64| scale == Scale::Recall && value >= EXACT;
        let inexact = values.clone().filter(|&value| !is_exact(value));
        let (mut low, mut high) = extent(inexact.map(|value| place(scale, value)));
        if low > high {
            // All values are exact: the axis shows the last power of ten before them.
            (low, high) = (3.0, 4.0);
        }
        let exact = values.clone().any(is_exact).then_some(high + GAP);
        let last = exact.unwrap_or(high);
        let margin = if last > low {
            0.05 * (last - low)
        } else if scale == Scale::Linear {
            // A single value has no range: without a margin of its own the mapping would divide
            // by 0.
            0.5 * low.abs().max(1.0)
        } else {
            0.06
        };
        // No recall is below 0, whose place is 0.
        let first = low - margin;
        let first = if scale == Scale::Recall {
            first.max(0.0)
        } else {
            first
        };
        let ends = first..last + margin;
        Self {
            scale,
            range: value_at(scale, ends.start)..value_at(scale, ends.end),
            ends,
            exact,
        }
    }

    /// An axis from 0 to 1, and 3 % more at each end.
    pub(super) fn of_shares() -> Self {
        Self {
            scale: Scale::Linear,
            range: -0.03..1.03,
            ends: -0.03..1.03,
            exact: None,
        }
    }

    /// How far along the axis a value lies: 0 at its beginning, 1 at its end.
    pub(super) fn share(&self, value: f64) -> f64 {
        let place = match self.exact {
            Some(exact) if value >= EXACT => exact,
            _ => place(self.scale, value),
        };
        (place - self.ends.start) / (self.ends.end - self.ends.start)
    }

    /// How far along the axis the gap before the exact values is, if it has one.
    pub(super) fn gap(&self) -> Option<f64> {
        let middle = self.exact? - GAP / 2.0;
        Some((middle - self.ends.start) / (self.ends.end - self.ends.start))
    }

    /// A tick's label, as short as it can be.
    pub(super) fn label(&self, value: f64) -> String {
        if self.scale == Scale::Recall {
            short_decimal(value, 6)
        } else if value.abs() >= 1_000.0 {
            integer(value.round() as i64)
        } else {
            short_decimal(value, 4)
        }
    }

    /// The ticks of a logarithmic axis: 1, 2 and 5 of each decade, or the decades alone where there
    /// are more than 4, or the labels would overlap.
    fn log_ticks(&self) -> Vec<f64> {
        let (low, high) = (self.ends.start.floor() as i32, self.ends.end.ceil() as i32);
        let steps: &[f64] = if high - low > 4 {
            &[1.0]
        } else {
            &[1.0, 2.0, 5.0]
        };
        let mut ticks = Vec::new();
        for decade in low..=high {
            for step in steps {
                ticks.push(step * 10f64.powi(decade));
            }
        }
        // The first and the last decade reach beyond the range.
        ticks.retain(|tick| self.range.contains(tick));
        ticks
    }

    /// The ticks of an axis of recall: .5, .9, .99 … as far as the inexact values reach, and 1.
    fn recall_ticks(&self) -> Vec<f64> {
        let last = self.exact.map_or(self.ends.end, |exact| exact - GAP);
        let mut ticks = vec![0.0, 0.5];
        // Where few powers of ten are shown, .8, .95, .98, .995 … stand between them.
        let between: &[f64] = if self.ends.end - self.ends.start > 2.5 {
            &[]
        } else {
            &[5.0, 2.0]
        };
        for decade in 1..=6 {
            let missed = 10f64.powi(-decade);
            ticks.extend(between.iter().map(|step| 1.0 - step * missed));
            ticks.push(1.0 - missed);
        }
        ticks.sort_by(f64::total_cmp);
        ticks.dedup();
        // A hair more, for a tick that is the greatest of the values.
        let shown = self.ends.start..last + 1e-9;
        ticks.retain(|&tick| shown.contains(&place(self.scale, tick)));
        if self.exact.is_some() {
            ticks.push(1.0);
        }
        ticks
    }
}

impl Ranged for Axis {
    type FormatOption = DefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, limit: (i32, i32)) -> i32 {
        // `limit` holds the pixels of the two ends. Pixels count downwards, so on the y axis the
        // first of them is the greater one, and the same formula turns the axis round.
        limit.0 + (self.share(*value) * f64::from(limit.1 - limit.0)).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, hint: Hint) -> Vec<f64> {
        match self.scale {
            Scale::Linear => RangedCoordf64::from(self.range.clone()).key_points(hint),
            Scale::Log => self.log_ticks(),
            Scale::Recall => self.recall_ticks(),
        }
    }

    fn range(&self) -> Range<f64> {
        self.range.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use plotters::coord::ranged1d::BoldPoints;

    fn axis(scale: Scale, values: &[f64]) -> Axis {
        Axis::over(scale, values.iter().copied())
    }

    #[test]
    fn logarithmic_ticks_are_round_and_inside() {
        let short = axis(Scale::Log, &[9.0, 110.0]);
        assert_eq!(short.key_points(BoldPoints(9)), [10.0, 20.0, 50.0, 100.0]);
        let long = axis(Scale::Log, &[2.0, 200_000.0]);
        assert_eq!(long.key_points(BoldPoints(9)), [10.0, 100.0, 1e3, 1e4, 1e5]);
        // 10 is half way from 1 to 100.
        let ends = axis(Scale::Log, &[1.0, 100.0]);
        assert!((ends.share(10.0) - 0.5).abs() < 1e-12);
    }

    /// The place of a recall is −log₁₀(1 − recall): .9 is at 1, .99 at 2, .999 at 3.
    #[test]
    fn nines_stand_evenly_and_exact_ones_at_the_end() {
        let values = [0.8, 0.9, 0.99, 0.999, 0.9999, 1.0];
        let axis = axis(Scale::Recall, &values);
        let shares = values.map(|value| axis.share(value));
        let step = shares[2] - shares[1];
        assert!(step > 0.0);
        for pair in shares[1..5].windows(2) {
            assert!((pair[1] - pair[0] - step).abs() < 1e-9, "{shares:?}");
        }
        // −log₁₀(.2) is .69897: so much of a step before .9.
        assert!((shares[1] - shares[0] - (1.0 - 0.698_970_004) * step).abs() < 1e-9);
        assert!((shares[5] - shares[4] - GAP * step).abs() < 1e-9);
        assert!(shares[0] > 0.0 && shares[5] < 1.0);
        let gap = axis.gap().unwrap();
        assert!(gap > shares[4] && gap < shares[5]);
        assert_eq!(
            axis.key_points(BoldPoints(9)),
            [0.9, 0.99, 0.999, 0.9999, 1.0]
        );
        let labels = [0.9, 0.99, 0.999, 0.9999, 0.99999, 1.0].map(|value| axis.label(value));
        assert_eq!(labels, ["0,9", "0,99", "0,999", "0,9999", "0,99999", "1"]);
    }

    #[test]
    fn a_short_axis_of_recall_has_ticks_between_the_nines() {
        let axis = axis(Scale::Recall, &[0.88, 0.993]);
        let ticks = axis.key_points(BoldPoints(9));
        let labels: Vec<String> = ticks.iter().map(|&tick| axis.label(tick)).collect();
        assert_eq!(labels, ["0,9", "0,95", "0,98", "0,99"]);
        assert_eq!(axis.gap(), None);
    }

    #[test]
    fn one_value_has_an_axis_on_every_scale() {
        for scale in [Scale::Linear, Scale::Log, Scale::Recall] {
            let axis = axis(scale, &[1.0]);
            let share = axis.share(1.0);
            assert!(share > 0.0 && share < 1.0, "{scale:?} {share}");
        }
        assert!(can_hold(Scale::Recall, 0.0) && !can_hold(Scale::Recall, 1.5));
        assert!(!can_hold(Scale::Log, 0.0) && !can_hold(Scale::Linear, f64::NAN));
    }
}
