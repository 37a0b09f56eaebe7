//! Coordinates of a vector as integers, with an account of what that loses.

/// Codes the coordinates of a vector one by one.
///
/// A vector v of known length is given coordinate by coordinate. After each of them,
/// [`Coder::rest`] codes the norm of what the coordinates so far leave out, √(‖v‖² −
/// Σvᵢ²), and tells how far all codes together are from what they stand for.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Coder {
    /// ‖v‖².
    squared_length: f64,
    /// What the coordinates as they come can be off by, together: a distance.
    arithmetic: f64,
    /// What the square of the norm of the rest, a difference, can be off by.
    slack: f64,
    /// Σvᵢ² of the coordinates so far.
    squares: f64,
    /// Squared distance of their codes from them.
    lost: f64,
}

impl Coder {
    /// `epsilon` is how far the rotation is from orthonormal, `arithmetic` the distance by which
    /// its product can be off.
    pub(super) fn new(squared_length: f64, epsilon: f64, arithmetic: f64) -> Self {
        // The rest is the root of a difference, ‖v‖² − Σvᵢ². The slack is what that
        // difference can be off by. It has three parts:
        // - The rotation: its share ε of ‖v‖² at most, here taken twice.
        // - The f64 sums of squares: by much less than the share 10⁻¹².
        // - The coordinates: off by a distance e, they change Σvᵢ² by 2·‖v‖·e + e² at
        //   most. The 2 is rounded up to cover the rounding of this line.
        let slack = (2.0 * epsilon + 1e-12) * squared_length
            + 2.01 * arithmetic * squared_length.sqrt()
            + arithmetic * arithmetic;
        Self {
            squared_length,
            arithmetic,
            slack,
            squares: 0.0,
            lost: 0.0,
        }
    }

    /// The code of the next coordinate, in steps.
    #[inline(always)]
    pub(super) fn component(&mut self, value: f64, step: f64) -> i16 {
        // The cast in `nearest` saturates. A value beyond 16 bits then counts as a large loss, and
        // the bound still holds.
        let code = nearest(value / step);
        let lost = value - f64::from(code) * step;
        self.squares += value * value;
        self.lost += lost * lost;
        code
    }

    /// The code of the norm of what the coordinates so far leave out, and the distance of all codes
    /// so far from what they stand for.
    pub(super) fn rest(&self) -> (i16, f64) {
        // Rounding can make the difference negative where the coordinates leave nothing out.
        let rest = (self.squared_length - self.squares).max(0.0).sqrt();
        // How far the root can be off, if its argument a is within the slack of the true b: |√a
        // − √b| is at most √|a − b|, and at most |a − b| / √a. The first is the smaller
        // one near zero, the second farther out.
        let unknown = if rest > 0.0 {
            self.slack.sqrt().min(self.slack / rest)
        } else {
            self.slack.sqrt()
        };
        let code = nearest(rest);
        // The rest loses by its rounding to an integer, and by what is unknown of it.
        let lost = (rest - f64::from(code)).abs() + unknown;
        // The codes are compared with the computed coordinates. What these are off by comes on top,
        // by the triangle inequality.
        (code, (self.lost + lost * lost).sqrt() + self.arithmetic)
    }
}

/// The nearest integer: half a unit away from zero, then truncated. `f64::round` would be a call.
fn nearest(value: f64) -> i16 {
    (value + 0.5f64.copysign(value)) as i16
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]

        #[test]
        fn codes_are_as_near_as_they_say(
            values in prop::collection::vec(-3e3f64..3e3, 1..60),
            step in 1i16..40,
        ) {
            let step = f64::from(step);
            let length: f64 = values.iter().map(|value| value * value).sum();
            let mut coder = Coder::new(length, 1e-12, 1e-6);
            let mut squares = 0.0;
            for (known, &value) in (1..).zip(&values) {
                squares += (f64::from(coder.component(value, step)) * step - value).powi(2);
                let (rest, error) = coder.rest();
                let left_out: f64 = values[known..].iter().map(|value| value * value).sum();
                let lost_of_rest = f64::from(rest) - left_out.sqrt();
                prop_assert!((squares + lost_of_rest.powi(2)).sqrt() <= error);
                let farthest = 1.0 + step * (known as f64).sqrt();
                prop_assert!(error < farthest, "and not much farther: {}", error);
            }
        }
    }
}
