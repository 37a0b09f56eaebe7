//! What only a notebook needs: parameters from the environment.

use std::fmt::Display;
use std::str::FromStr;

use thiserror::Error;

/// A parameter that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("the environment's {name} is {received:?}: {why}")]
pub struct ParameterError {
    /// The variable's name.
    pub name: String,
    /// What it holds.
    pub received: String,
    /// Why that is none of the values it can take.
    pub why: String,
}

/// The value of the environment variable `name`, or `default` if it is not set or empty. With it,
/// `K=7 make report` runs a notebook again with another k.
///
/// # Errors
/// If the variable is set to something that is not a `T`.
///
/// # Examples
/// ```
/// use fashion_knn::report::notebook::parameter;
///
/// let neighbours: usize = parameter("NEIGHBOURS_OF_THIS_EXAMPLE", 5)?;
/// assert_eq!(neighbours, 5);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn parameter<T: FromStr<Err: Display>>(name: &str, default: T) -> Result<T, ParameterError> {
    // A variable that is not Unicode counts as not set.
    parse(name, std::env::var(name).ok().as_deref(), default)
}

fn parse<T: FromStr<Err: Display>>(
    name: &str,
    value: Option<&str>,
    default: T,
) -> Result<T, ParameterError> {
    // Blanks around a value do not count. A variable that is set to nothing means the default, so
    // that `K= make report` runs as if K were not set.
    match value.map(str::trim) {
        None | Some("") => Ok(default),
        Some(text) => text.parse().map_err(|error: T::Err| ParameterError {
            name: name.to_owned(),
            received: text.to_owned(),
            why: error.to_string(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parameter_is_read_or_refused_by_name() {
        assert_eq!(parse("K", None, 5usize), Ok(5));
        assert_eq!(parse("K", Some(""), 5usize), Ok(5));
        assert_eq!(parse("K", Some(" 7 "), 5usize), Ok(7));
        let error = parse("K", Some("seven"), 5usize).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the environment's K is \"seven\": invalid digit found in string"
        );
    }
}
