//! Numbers as a reader sees them, in tables, charts and prose.
//!
//! A decimal comma or point is a matter of language. The choice is made once, in [`REPORT`]: the
//! notebooks are written in Catalan, so it is [`NumberFormat::CATALAN`]. The functions of this
//! module, the tables and the axes of the charts all follow it. Another language is another
//! [`NumberFormat`].
//!
//! ```
//! use fashion_knn::report::numbers::{NumberFormat, decimal, integer, percent};
//!
//! assert_eq!(decimal(0.849_7, 2), "0,85");
//! assert_eq!(integer(60_000), "60.000");
//! assert_eq!(percent(0.854, 1), "85,4\u{a0}%");
//! assert_eq!(NumberFormat::ENGLISH.integer(60_000), "60,000");
//! ```

/// How a language writes numbers. All of them have the minus sign "−" (U+2212).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NumberFormat {
    /// What stands between the whole part and the decimals.
    pub decimal_mark: char,
    /// What stands between groups of three digits.
    pub thousands_mark: char,
    /// Whole numbers of fewer digits are not grouped.
    pub least_grouped_digits: usize,
}

/// The format that the reports use.
pub const REPORT: NumberFormat = NumberFormat::CATALAN;

impl NumberFormat {
    /// "60.000,5". Four digits stay together: "1000".
    pub const CATALAN: Self = Self {
        decimal_mark: ',',
        thousands_mark: '.',
        least_grouped_digits: 5,
    };

    /// "60,000.5".
    pub const ENGLISH: Self = Self {
        decimal_mark: '.',
        thousands_mark: ',',
        least_grouped_digits: 4,
    };

    /// `value` with `places` decimals. Its thousands are not grouped.
    #[must_use]
    pub fn decimal(&self, value: f64, places: usize) -> String {
        // Rust writes a point and a hyphen. The text has one of each at most, so nothing else is
        // touched.
        let mark = self.decimal_mark.to_string();
        format!("{value:.places$}")
            .replace('.', &mark)
            .replace('-', "−")
    }

    /// `value` with at most `places` decimals, without the zeros at its end.
    #[must_use]
    pub fn short_decimal(&self, value: f64, places: usize) -> String {
        let text = self.decimal(value, places);
        // Without decimals, the zeros at the end are part of the number.
        if !text.contains(self.decimal_mark) {
            return text;
        }
        // Zeros first, then the mark if all decimals were zeros: "7,0" becomes "7".
        text.trim_end_matches('0')
            .trim_end_matches(self.decimal_mark)
            .to_owned()
    }

    /// A whole number, its digits in groups of three.
    #[must_use]
    pub fn integer(&self, value: impl Into<i128>) -> String {
        let value: i128 = value.into();
        // `unsigned_abs`, since the least `i128` has no positive counterpart. Digits are counted
        // without the sign, which takes part in no group.
        let digits = value.unsigned_abs().to_string();
        let grouped = digits.len() >= self.least_grouped_digits;
        let mut text = String::from(if value < 0 { "−" } else { "" });
        for (place, digit) in digits.chars().enumerate() {
            // A mark stands before each digit that begins a group of three, counted from the right.
            let digits_left = digits.len() - place;
            if grouped && place > 0 && digits_left.is_multiple_of(3) {
                text.push(self.thousands_mark);
            }
            text.push(digit);
        }
        text
    }

    /// A share (0 to 1) as a percentage with `places` decimals.
    #[must_use]
    pub fn percent(&self, share: f64, places: usize) -> String {
        // A space that does not break keeps the sign on the number's line.
        format!("{}\u{a0}%", self.decimal(share * 100.0, places))
    }
}

/// `value` with `places` decimals: "0,8497".
#[must_use]
pub fn decimal(value: f64, places: usize) -> String {
    REPORT.decimal(value, places)
}

/// `value` with at most `places` decimals, without the zeros at its end: "0,85".
#[must_use]
pub fn short_decimal(value: f64, places: usize) -> String {
    REPORT.short_decimal(value, places)
}

/// A whole number, its digits in groups of three: "60.000". Four digits stay together: "1000".
#[must_use]
pub fn integer(value: impl Into<i128>) -> String {
    REPORT.integer(value)
}

/// A share (0 to 1) as a percentage with `places` decimals: "85,4 %".
#[must_use]
pub fn percent(share: f64, places: usize) -> String {
    REPORT.percent(share, places)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_in_catalan() {
        assert_eq!(decimal(0.849_7, 4), "0,8497");
        assert_eq!(decimal(-1.5, 1), "−1,5");
        assert_eq!(integer(60_000), "60.000");
        assert_eq!(integer(1_000), "1000");
        assert_eq!(integer(1_234_567), "1.234.567");
        assert_eq!(integer(-12_345), "−12.345");
        assert_eq!(percent(0.8554, 1), "85,5\u{a0}%");
    }

    #[test]
    fn another_language_is_another_format() {
        let english = NumberFormat::ENGLISH;
        assert_eq!(english.decimal(-1.5, 1), "−1.5");
        assert_eq!(english.integer(999), "999");
        assert_eq!(english.integer(1_000), "1,000");
        assert_eq!(english.percent(0.8554, 1), "85.5\u{a0}%");
    }

    #[test]
    fn short_decimals_lose_only_zeros_after_the_mark() {
        assert_eq!(short_decimal(0.85, 4), "0,85");
        assert_eq!(short_decimal(7.0, 4), "7");
        assert_eq!(short_decimal(100.0, 3), "100");
        assert_eq!(short_decimal(100.0, 0), "100");
        assert_eq!(short_decimal(-0.5, 4), "−0,5");
    }
}
