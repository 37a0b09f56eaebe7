//! Parameters of an index: typed structs for Rust, named numbers for the command line, the tuner
//! and the record.
//!
//! Each index declares its parameters once, with [`parameters!`], in two structs: what costs a new
//! build, and what a search reads. From that one declaration come the struct, its `Default`, and
//! the list of [`Knob`]s that `measure`, the tuner and the notebooks sweep. So there is one default
//! for each parameter.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use crate::error::BuildError;

/// A parameter of an index, as the command line and the sweeps see it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Knob {
    /// Its name in the original library.
    pub name: &'static str,
    /// Its value where none is asked for.
    pub default: f64,
    /// The values that the default sweep tries.
    pub sweep: &'static [f64],
    /// What it does, in a line.
    pub help: &'static str,
}

/// A struct of parameters that can be read from [`Settings`].
pub trait Parameters: Default + Clone {
    /// The parameters that have a number, in the order of the struct.
    const KNOBS: &'static [Knob];

    /// The parameters with the values that are set; the others keep their defaults.
    ///
    /// # Errors
    /// If a value is not of its parameter's type.
    fn from_settings(settings: &Settings) -> Result<Self, BuildError>;

    /// The names and values of the parameters: chart labels and columns of the record.
    fn values(&self) -> Vec<(&'static str, f64)>;
}

/// The parameters of an index that has none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct NoParameters;

impl Parameters for NoParameters {
    const KNOBS: &'static [Knob] = &[];

    fn from_settings(_: &Settings) -> Result<Self, BuildError> {
        Ok(Self)
    }

    fn values(&self) -> Vec<(&'static str, f64)> {
        Vec::new()
    }
}

/// Values for some of an index's knobs. The others keep their defaults or, in a search of an index
/// that is built, the values of that index.
///
/// It is what the command line, the tuner and the record know of parameters: names and numbers. A
/// Rust program that knows the index uses its typed structs.
///
/// ```
/// use fashion_knn::prelude::*;
///
/// let settings: Settings = "nprobe=4".parse()?;
/// let search = IvfFlatSearch::from_settings(&settings)?;
/// assert_eq!(search, IvfFlatSearch { nprobe: 4 });
/// assert_eq!(Settings::default().with("nprobe", 4.0), settings);
///
/// // What is not set keeps its default; what is not of the parameter's type is refused.
/// assert_eq!(IvfFlatSearch::from_settings(&Settings::default())?, IvfFlatSearch::default());
/// assert!(IvfFlatSearch::from_settings(&"nprobe=1.5".parse()?).is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Settings(Vec<(String, f64)>);

impl Settings {
    /// Sets `name`, replacing an earlier value.
    #[must_use]
    pub fn with(mut self, name: &str, value: f64) -> Self {
        // An earlier value of that name goes, so that a name is there once.
        self.0.retain(|(known, _)| known != name);
        self.0.push((name.to_owned(), value));
        self
    }

    /// The value of `knob`: what was set, or its default.
    #[must_use]
    pub fn get(&self, knob: &Knob) -> f64 {
        let set = self.0.iter().find(|(name, _)| name == knob.name);
        set.map_or(knob.default, |&(_, value)| value)
    }

    /// The names that are set, with their values.
    pub fn values(&self) -> impl Iterator<Item = (&str, f64)> {
        self.0.iter().map(|(name, value)| (name.as_str(), *value))
    }

    /// The names that are set.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.values().map(|(name, _)| name)
    }
}

impl fmt::Display for Settings {
    /// "nprobe=8 refine=100", as [`Settings::from_str`] reads it.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pair = |(name, value): &(String, f64)| format!("{name}={value}");
        let pairs: Vec<_> = self.0.iter().map(pair).collect();
        formatter.write_str(&pairs.join(" "))
    }
}

/// Text that is no list of settings.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{received:?} is no setting; expected name=number, with blanks or commas between several")]
pub struct SettingsError {
    /// The part that was not understood.
    pub received: String,
}

impl FromStr for Settings {
    type Err = SettingsError;

    /// "nprobe=8 refine=100", with blanks or commas between; none of them in an empty text.
    fn from_str(text: &str) -> Result<Self, SettingsError> {
        let mut settings = Self::default();
        // Two separators in a row have an empty part between them, which is left out.
        for part in text.split([' ', ',']).filter(|part| !part.is_empty()) {
            let malformed = || SettingsError {
                received: part.to_owned(),
            };
            let (name, value) = part.split_once('=').ok_or_else(malformed)?;
            let value: f64 = value.parse().map_err(|_| malformed())?;
            // "nan" and "inf" are numbers to `parse`. No parameter can be either.
            if !value.is_finite() {
                return Err(malformed());
            }
            settings = settings.with(name, value);
        }
        Ok(settings)
    }
}

/// A type that a parameter can have: it is read from a number and written as one.
pub(crate) trait Value: Copy {
    fn from_number(name: &'static str, number: f64) -> Result<Self, BuildError>;
    fn number(self) -> f64;
}

/// Numbers up to here are whole without a doubt: an f64 holds every integer below 2^53.
pub(crate) const LARGEST_WHOLE: f64 = (1u64 << 53) as f64;

/// Refuses what is negative or not a whole number.
fn whole(name: &'static str, number: f64) -> Result<u64, BuildError> {
    // NaN fails the first test and infinity the last.
    if number >= 0.0 && number.fract() == 0.0 && number <= LARGEST_WHOLE {
        return Ok(number as u64);
    }
    Err(BuildError::InvalidParameter {
        name,
        received: number,
        expected: "a whole number",
    })
}

impl Value for usize {
    fn from_number(name: &'static str, number: f64) -> Result<Self, BuildError> {
        Ok(whole(name, number)? as usize)
    }

    fn number(self) -> f64 {
        self as f64
    }
}

impl Value for u64 {
    fn from_number(name: &'static str, number: f64) -> Result<Self, BuildError> {
        whole(name, number)
    }

    fn number(self) -> f64 {
        self as f64
    }
}

impl Value for f64 {
    fn from_number(_: &'static str, number: f64) -> Result<Self, BuildError> {
        Ok(number)
    }

    fn number(self) -> f64 {
        self
    }
}

/// 0 is no, 1 is yes.
impl Value for bool {
    fn from_number(name: &'static str, number: f64) -> Result<Self, BuildError> {
        match number {
            0.0 => Ok(false),
            1.0 => Ok(true),
            received => Err(BuildError::InvalidParameter {
                name,
                received,
                expected: "0 or 1",
            }),
        }
    }

    fn number(self) -> f64 {
        f64::from(self)
    }
}

/// Refuses zero.
pub(crate) fn positive(name: &'static str, value: usize) -> Result<usize, BuildError> {
    if value > 0 {
        return Ok(value);
    }
    Err(BuildError::InvalidParameter {
        name,
        received: 0.0,
        expected: "at least 1",
    })
}

/// Declares a struct of parameters, each with its default and the values that a sweep tries:
///
/// ```ignore
/// parameters! {
///     /// How an `Annoy` is built.
///     pub struct AnnoyParams {
///         /// Trees of the forest.
///         n_trees: usize = 50, sweep [10, 50, 100];
///         /// Seed of the random splits.
///         seed: u64 = 0;
///     }
/// }
/// ```
///
/// The first line of a parameter's documentation is what the command line prints as its help. What
/// follows after an empty line (`///`) is documentation only.
///
/// A parameter that is not a number, and so no knob, stands in a second pair of braces:
/// `and { metric: Metric = Metric::Euclidean; }`.
macro_rules! parameters {
    (
        $(#[$meta:meta])*
        pub struct $name:ident {
            $(
                #[doc = $help:literal]
                $(#[doc = $more:literal])*
                $field:ident: $type:ident = $default:expr $(, sweep [$($swept:expr),* $(,)?])?;
            )*
        }
        $(and {
            $(
                $(#[doc = $other_doc:literal])*
                $other:ident: $other_type:ty = $other_default:expr;
            )*
        })?
    ) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq)]
        pub struct $name {
            $(
                #[doc = $help]
                $(#[doc = $more])*
                pub $field: $type,
            )*
            $($(
                $(#[doc = $other_doc])*
                pub $other: $other_type,
            )*)?
        }

        impl Default for $name {
            fn default() -> Self {
                Self {
                    $($field: $default,)*
                    $($($other: $other_default,)*)?
                }
            }
        }

        impl $crate::index::Parameters for $name {
            // A constant cannot call the trait `Value`, so numbers are made by a macro here.
            const KNOBS: &'static [$crate::index::Knob] = &[
                $($crate::index::Knob {
                    name: stringify!($field),
                    default: $crate::index::parameters::as_number!($type, $default),
                    sweep: $crate::index::parameters::sweep!(
                        $type, $default $(, [$($swept),*])?
                    ),
                    help: $help.trim_ascii(),
                },)*
            ];

            fn from_settings(
                settings: &$crate::index::Settings,
            ) -> Result<Self, $crate::error::BuildError> {
                #[allow(unused_mut)]
                let mut knobs = Self::KNOBS.iter();
                $(
                    // `KNOBS` is made from the same list, so the knobs come in the order of the
                    // fields.
                    let knob = knobs.next().expect("a knob for each parameter");
                    let $field = $crate::index::parameters::Value::from_number(
                        knob.name,
                        settings.get(knob),
                    )?;
                )*
                // Where a struct has no knob at all, neither is used.
                let _ = (&mut knobs, settings);
                Ok(Self { $($field,)* $($($other: $other_default,)*)? })
            }

            fn values(&self) -> Vec<(&'static str, f64)> {
                vec![$((
                    stringify!($field),
                    $crate::index::parameters::Value::number(self.$field),
                ),)*]
            }
        }
    };
}

/// A default as a number, in a constant.
macro_rules! as_number {
    (bool, $value:expr) => {
        if $value { 1.0 } else { 0.0 }
    };
    ($type:ident, $value:expr) => {
        $value as f64
    };
}

/// The values that a sweep tries: those given, or the default alone.
macro_rules! sweep {
    ($type:ident, $default:expr) => {
        &[$crate::index::parameters::as_number!($type, $default)]
    };
    ($type:ident, $default:expr, [$($swept:expr),*]) => {
        &[$($crate::index::parameters::as_number!($type, $swept)),*]
    };
}

pub(crate) use {as_number, parameters, sweep};

#[cfg(test)]
mod tests {
    use super::*;

    parameters! {
        /// Parameters of every type.
        pub struct Toy {
            /// How many.
            ///
            /// A second line is not help.
            count: usize = 3, sweep [1, 3];
            /// How far.
            reach: f64 = 0.5, sweep [-0.5, 0.5];
            /// Whether.
            whether: bool = true;
        } and {
            /// No number.
            word: &'static str = "word";
        }
    }

    #[test]
    fn settings_are_read_as_they_are_written() {
        let settings = Settings::default()
            .with("nprobe", 8.0)
            .with("epsilon", 0.05);
        assert_eq!(settings.to_string(), "nprobe=8 epsilon=0.05");
        assert_eq!(settings.to_string().parse(), Ok(settings.clone()));
        assert_eq!("nprobe=8,  epsilon=0.05".parse(), Ok(settings));
        assert_eq!("".parse(), Ok(Settings::default()));
        let error = |text: &str| text.parse::<Settings>().unwrap_err().received;
        assert_eq!(["nprobe", "a=1 b=two"].map(error), ["nprobe", "b=two"]);
    }

    #[test]
    fn a_declaration_gives_defaults_and_knobs() {
        let [count, reach, whether] = Toy::KNOBS else {
            panic!("{:?}", Toy::KNOBS)
        };
        assert_eq!(
            (count.name, count.default, count.help),
            ("count", 3.0, "How many.")
        );
        assert_eq!(
            (count.sweep, reach.sweep),
            ([1.0, 3.0].as_slice(), [-0.5, 0.5].as_slice())
        );
        assert_eq!((whether.default, whether.sweep), (1.0, [1.0].as_slice()));
        assert_eq!(Toy::from_settings(&Settings::default()), Ok(Toy::default()));
    }

    #[test]
    fn values_of_another_type_are_refused() {
        let set = |name, value| Toy::from_settings(&Settings::default().with(name, value));
        assert_eq!(set("count", 7.0).unwrap().count, 7);
        assert!(!set("whether", 0.0).unwrap().whether);
        for (name, value) in [
            ("count", 1.5),
            ("count", -1.0),
            ("whether", 2.0),
            ("count", f64::NAN),
        ] {
            let Err(BuildError::InvalidParameter { name: refused, .. }) = set(name, value) else {
                panic!("{name} = {value}")
            };
            assert_eq!(refused, name);
        }
    }
}
