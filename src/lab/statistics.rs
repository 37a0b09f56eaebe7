//! How much of a difference is chance: the interval around a share, and the test between two
//! classifiers that answered the same images.
//!
//! An accuracy of .93 on 10,000 test images is one draw. On 10,000 others of the same kind it would
//! be a little more or less: [`wilson`] says between which bounds.
//!
//! Two accuracies whose intervals overlap can differ all the same. Both classifiers saw the *same*
//! images, and most of these are right in both or wrong in both: they say nothing about which one
//! is better. [`mcnemar`] looks at the others.
//!
//! ```text
//!                        second right     second wrong
//! first right             both right       only_first
//! first wrong             only_second      both wrong
//! ```
//!
//! If the two are equally good, `only_first` and `only_second` are throws of a fair coin.

/// The quantile of the normal distribution that leaves 2.5 % on either side: an interval of 95 %.
const Z: f64 = 1.959_963_984_540_054;

/// An interval of 95 %: in 95 of 100 experiments it holds the true value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Interval {
    /// The lower bound.
    pub low: f64,
    /// The upper bound.
    pub high: f64,
}

impl Interval {
    /// Half the width: what stands behind "±".
    #[must_use]
    pub fn margin(self) -> f64 {
        (self.high - self.low) / 2.0
    }
}

/// Wilson's interval of 95 % for a share, of which `hits` of `n` were seen.
///
/// It holds the shares p under which `hits` is no surprise: those with
/// |hits/n − p| ≤ 1.96·√(p(1 − p)/n). Unlike the plain share ± 1.96 standard errors, it
/// stays within 0 and 1, and has a width where all or none are hits. Of nothing seen, it is all
/// from 0 to 1. `hits` above `n` count as `n`.
///
/// Source: E. B. Wilson, *Probable inference, the law of succession, and statistical inference*,
/// JASA 22 (1927); recommended by Brown, Cai & DasGupta, *Statistical Science* 16 (2001).
///
/// ```
/// use fashion_knn::lab::statistics::wilson;
///
/// let interval = wilson(9_300, 10_000);
/// assert!((interval.margin() - 0.005).abs() < 1e-4);
/// ```
#[must_use]
pub fn wilson(hits: usize, n: usize) -> Interval {
    if n == 0 {
        return Interval {
            low: 0.0,
            high: 1.0,
        };
    }
    let count = n as f64;
    let share = hits.min(n) as f64 / count;
    // The bounds solve (share − p)² = Z²·p(1 − p)/n, which is quadratic in p.
    let shrink = 1.0 + Z * Z / count;
    let middle = (share + Z * Z / (2.0 * count)) / shrink;
    let variance = share * (1.0 - share) / count + Z * Z / (4.0 * count * count);
    let margin = Z * variance.sqrt() / shrink;
    // Rounding may lead below 0 or above 1 by a last bit.
    Interval {
        low: (middle - margin).max(0.0),
        high: (middle + margin).min(1.0),
    }
}

/// Which predictions are right: one answer an image. An absent prediction is wrong.
///
/// `predicted` are the classes as a net gives them (`u8`), or as a vote does (`Option<u8>`).
///
/// # Panics
/// If there are not as many predictions as labels.
///
/// ```
/// use fashion_knn::lab::statistics::correct;
///
/// assert_eq!(correct(&[Some(9), None, Some(2)], &[9, 9, 4]), [true, false, false]);
/// assert_eq!(correct(&[9, 2], &[9, 4]), [true, false]);
/// ```
#[must_use]
pub fn correct<P: Copy + Into<Option<u8>>>(predicted: &[P], labels: &[u8]) -> Vec<bool> {
    assert_eq!(predicted.len(), labels.len(), "one prediction a label");
    let pairs = predicted.iter().zip(labels);
    pairs
        .map(|(&predicted, &label)| predicted.into() == Some(label))
        .collect()
}

/// Two classifiers on the same images: who was right where the other was wrong.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct McNemar {
    /// How many images both saw.
    pub n: usize,
    /// Images that only the first classifies rightly.
    pub only_first: usize,
    /// Images that only the second classifies rightly.
    pub only_second: usize,
    /// How much more accurate the second is, as a share of all images: (`only_second` −
    /// `only_first`) / n.
    pub difference: f64,
    /// The probability that two equally good classifiers differ by as much as this or more. Small:
    /// the difference is not chance.
    pub p: f64,
}

/// McNemar's test of two classifiers that saw the same images, by the mid-p value: are they equally
/// good?
///
/// Under "equally good", `only_second` is binomial: one fair coin for each image on which exactly
/// one of the two is right. The p value is the probability of a result at least as far from half,
/// where the result itself counts half. That *mid-p* is what Fagerland, Lydersen & Laake recommend
/// for any number of images (*BMC Medical Research Methodology* 13:91, 2013). The exact test
/// without the half, and the χ² test with continuity correction which imitates it, find too few
/// differences; plain χ² errs where few images differ.
///
/// A difference that was searched for among many (the best of 20 values of k) is likely to have a
/// small p by chance: with m comparisons, ask for p below .05 / m (Bonferroni).
///
/// # Panics
/// If the two did not see as many images.
///
/// ```
/// use fashion_knn::lab::statistics::mcnemar;
///
/// // Of ten images, eight are right in both; each is right alone on one.
/// let mut first = [true; 10];
/// let mut second = [true; 10];
/// (first[0], second[1]) = (false, false);
/// let test = mcnemar(&first, &second);
/// assert_eq!((test.only_first, test.only_second, test.difference), (1, 1, 0.0));
/// assert!(test.p > 0.5);
/// ```
#[must_use]
pub fn mcnemar(first: &[bool], second: &[bool]) -> McNemar {
    assert_eq!(first.len(), second.len(), "the same images");
    let (mut only_first, mut only_second) = (0, 0);
    for pair in first.iter().zip(second) {
        match pair {
            (true, false) => only_first += 1,
            (false, true) => only_second += 1,
            _ => {}
        }
    }
    McNemar {
        n: first.len(),
        only_first,
        only_second,
        // Of no images the difference is 0, not NaN.
        difference: (only_second as f64 - only_first as f64) / first.len().max(1) as f64,
        p: mid_p(only_first, only_second),
    }
}

/// The two-sided mid-p value of `heads` and `tails` of a fair coin.
fn mid_p(heads: usize, tails: usize) -> f64 {
    let throws = heads + tails;
    let fewer = heads.min(tails);
    let observed = fair_coin(throws, fewer);
    // Nothing is nearer to half than what was seen, and what was seen counts half. Two that never
    // differ are equal, whatever counts half.
    if heads == tails {
        return if throws == 0 {
            1.0
        } else {
            1.0 - observed / 2.0
        };
    }
    // P(0) + … + P(fewer), from the largest term down: P(i − 1) = P(i)·i / (throws − i + 1).
    // Below half of the throws the terms fall at least geometrically near the end, so that the loop
    // can stop where they no longer change the sum.
    let (mut tail, mut term) = (observed, observed);
    for at in (1..=fewer).rev() {
        term *= at as f64 / (throws - at + 1) as f64;
        if tail + term == tail {
            break;
        }
        tail += term;
    }
    2.0 * tail - observed
}

/// The probability of `heads` heads in so many throws of a fair coin: C(throws, heads) / 2^throws.
fn fair_coin(throws: usize, heads: usize) -> f64 {
    // By logarithms, since both the binomial coefficient and the power overflow.
    let mut logarithm = -(throws as f64) * std::f64::consts::LN_2;
    for at in 0..heads {
        logarithm += ((throws - at) as f64 / (at + 1) as f64).ln();
    }
    logarithm.exp()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Newcombe, *Two-sided confidence intervals for the single proportion*, Statistics in Medicine
    /// 17 (1998), table I, method 3.
    #[test]
    fn wilson_as_newcombe_prints_it() {
        let printed = [
            (81, 263, 0.2553, 0.3662),
            (15, 148, 0.0624, 0.1605),
            (0, 20, 0.0, 0.1611),
            (1, 29, 0.0061, 0.1718),
        ];
        for (hits, n, low, high) in printed {
            let interval = wilson(hits, n);
            assert!(
                (interval.low - low).abs() < 5e-5,
                "{hits}/{n}: {interval:?}"
            );
            assert!(
                (interval.high - high).abs() < 5e-5,
                "{hits}/{n}: {interval:?}"
            );
        }
    }

    #[test]
    fn wilson_stays_within_zero_and_one() {
        for n in 0..50 {
            for hits in 0..=n {
                let Interval { low, high } = wilson(hits, n);
                let share = hits as f64 / n.max(1) as f64;
                assert!(
                    0.0 <= low && low <= share + 1e-12 && share <= high + 1e-12,
                    "{hits}/{n}"
                );
                assert!(high <= 1.0 && low < high, "{hits}/{n}");
                // As many misses as hits before: the mirrored interval.
                let mirrored = wilson(n - hits, n);
                assert!((1.0 - mirrored.low - high).abs() < 1e-12, "{hits}/{n}");
            }
        }
        assert_eq!(wilson(7, 5), wilson(5, 5));
    }

    /// The three examples of Fagerland, Lydersen & Laake (2013), table 6: Bentur et al. 2009, Cavo
    /// et al. 2012 and Ezra et al. 2010.
    #[test]
    fn mid_p_as_fagerland_prints_it() {
        for (only_first, only_second, printed) in [(1, 7, 0.039), (6, 16, 0.035)] {
            let p = mid_p(only_first, only_second);
            assert!(
                (p - printed).abs() < 5e-4,
                "{only_first}, {only_second}: {p}"
            );
            assert_eq!(p, mid_p(only_second, only_first));
        }
        assert!(mid_p(25, 2) < 0.001);
    }

    /// By the definition, with whole numbers: of all 2ⁿ series of throws, those that are farther
    /// from half than what was seen count once, those as far as it half.
    #[test]
    fn mid_p_is_the_share_of_the_more_extreme() {
        for throws in 1u32..=16 {
            for heads in 0..=throws {
                let off = |series: u32| (2 * series.count_ones() as i32 - throws as i32).abs();
                let seen = (2 * heads as i32 - throws as i32).abs();
                let mut weight = 0.0;
                for series in 0..1u32 << throws {
                    weight += match off(series).cmp(&seen) {
                        std::cmp::Ordering::Greater => 1.0,
                        std::cmp::Ordering::Equal => 0.5,
                        std::cmp::Ordering::Less => 0.0,
                    };
                }
                let p = mid_p(heads as usize, (throws - heads) as usize);
                let share = weight / f64::from(1u32 << throws);
                assert!(
                    (p - share).abs() < 1e-12,
                    "{heads} of {throws}: {p}, {share}"
                );
            }
        }
    }

    /// With many throws the binomial is nearly normal. The mid-p value corrects for the steps, so
    /// that it is close to 2·Φ(−z), z = |b − c| / √(b + c): .0454 for z = 2 and .3173 for z
    /// = 1.
    #[test]
    fn mid_p_of_many_throws_is_that_of_the_normal_distribution() {
        assert!((mid_p(4_900, 5_100) - 0.0455).abs() < 2e-4);
        assert!((mid_p(4_950, 5_050) - 0.3173).abs() < 2e-4);
        assert!(mid_p(100_000, 200_000) < 1e-100);
    }

    #[test]
    fn only_images_on_which_they_differ_count() {
        let first = [true, true, true, false, false, true];
        let second = [true, false, false, true, false, true];
        let test = mcnemar(&first, &second);
        assert_eq!((test.n, test.only_first, test.only_second), (6, 2, 1));
        assert!((test.difference + 1.0 / 6.0).abs() < 1e-15);
        // 2·(P(0) + P(1)) − P(1) of three throws: 2·4/8 − 3/8.
        assert!((test.p - 0.625).abs() < 1e-12, "{}", test.p);
        let none = mcnemar(&[], &[]);
        assert_eq!((none.difference, none.p), (0.0, 1.0));
    }
}
