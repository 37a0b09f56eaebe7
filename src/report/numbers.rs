//! Numbers as a reader sees them, in tables, charts and prose.
//!
//! A decimal comma or point is a matter of language. The choice is made once, in [`REPORT`]: the
//! notebooks are written in Catalan, so it is [`NumberFormat::CATALAN`]. The functions of this
//! module, the tables and the axes of the charts all follow it. A program in another language
//! chooses another [`NumberFormat`] with [`write_as`].
//!
//! ```
//! use fashion_knn::report::numbers::{NumberFormat, decimal, integer, percent};
//!
//! assert_eq!(decimal(0.849_7, 2), "0,85");
//! assert_eq!(integer(60_000), "60.000");
//! assert_eq!(percent(0.854, 1), "85,4\u{a0}%");
//! assert_eq!(NumberFormat::ENGLISH.integer(60_000), "60,000");
//! ```

use std::sync::OnceLock;

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

/// The format of this process, once it was chosen or a number was written.
static CHOSEN: OnceLock<NumberFormat> = OnceLock::new();

/// Writes the numbers of tables, charts and prose in that format from here on. It is for programs
/// in another language than the reports', before they write their first number; after it nothing
/// changes. Returns whether the format is that one now.
///
/// ```
/// use fashion_knn::report::numbers::{NumberFormat, integer, write_as};
///
/// assert!(write_as(NumberFormat::ENGLISH));
/// assert_eq!(integer(60_000), "60,000");
/// assert!(!write_as(NumberFormat::CATALAN));
/// ```
pub fn write_as(format: NumberFormat) -> bool {
    *CHOSEN.get_or_init(|| format) == format
}

/// The format of this process: [`REPORT`], unless [`write_as`] has chosen another.
#[must_use]
pub fn chosen() -> NumberFormat {
    *CHOSEN.get_or_init(|| REPORT)
}

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

    /// `value` with decimals by its size: none from 100 on (and its digits grouped), one from 10
    /// on, three below. Below .001, of which three decimals would show little, as "4,1·10⁻⁵".
    #[must_use]
    pub fn by_size(&self, value: f64) -> String {
        // What rounds to 100 or to 10 counts as such: 99.96 is "100" and not "100,0".
        let size = value.abs();
        if !value.is_finite() {
            value.to_string()
        } else if size >= 99.95 {
            self.integer(value.round() as i64)
        } else if size >= 9.9995 {
            self.decimal(value, 1)
        } else if size >= 1e-3 || size == 0.0 {
            self.decimal(value, 3)
        } else {
            self.scientific(value)
        }
    }

    /// `value`, not 0, as a number from 1 to 10 times a power of ten: "4,1·10⁻⁵".
    fn scientific(&self, value: f64) -> String {
        // Rust writes "4.1e-5", the mantissa rounded and the exponent changed where that rounds up.
        let text = format!("{value:.1e}");
        let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let mark = self.decimal_mark.to_string();
        let mantissa = mantissa.replace('.', &mark).replace('-', "−");
        let raised: String = exponent.chars().map(superscript).collect();
        format!("{mantissa}·10{raised}")
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
    chosen().decimal(value, places)
}

/// `value` with at most `places` decimals, without the zeros at its end: "0,85".
#[must_use]
pub fn short_decimal(value: f64, places: usize) -> String {
    chosen().short_decimal(value, places)
}

/// `value` with decimals by its size: "12.345", "45,6", "0,849".
#[must_use]
pub fn by_size(value: f64) -> String {
    chosen().by_size(value)
}

/// A character of an exponent, raised.
fn superscript(character: char) -> char {
    match character {
        '-' => '⁻',
        '1' => '¹',
        '2' => '²',
        '3' => '³',
        // The others follow one another from ⁰ on, but for these three.
        digit => {
            let raised = u32::from('⁰') + digit.to_digit(10).unwrap_or_default();
            char::from_u32(raised).unwrap_or(digit)
        }
    }
}

/// A whole number, its digits in groups of three: "60.000". Four digits stay together: "1000".
#[must_use]
pub fn integer(value: impl Into<i128>) -> String {
    chosen().integer(value)
}

/// A share (0 to 1) as a percentage with `places` decimals: "85,4 %".
#[must_use]
pub fn percent(share: f64, places: usize) -> String {
    chosen().percent(share, places)
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
    fn decimals_go_by_size() {
        let sizes = [0.0, 1.0, 0.849_7, 9.999_9, 45.64, 99.96, 12_345.6, -0.5];
        let written = [
            "0,000", "1,000", "0,850", "10,0", "45,6", "100", "12.346", "−0,500",
        ];
        assert_eq!(sizes.map(by_size), written);
        let small = [1e-3, 4.14e-5, -2e-12, 9.96e-10];
        assert_eq!(
            small.map(by_size),
            ["0,001", "4,1·10⁻⁵", "−2,0·10⁻¹²", "1,0·10⁻⁹"]
        );
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
