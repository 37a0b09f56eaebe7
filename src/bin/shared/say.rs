//! What the programs say, to whoever still reads it.
//!
//! `println!` panics where nobody reads any more, as behind `measure | head -1`. The programs go on
//! in silence: what they measure still goes to its file.

use std::error::Error;
use std::fmt::Display;
use std::io::{self, ErrorKind, Write};
use std::process::ExitCode;

/// A line of the program's results.
pub fn line(text: impl Display) {
    if let Err(error) = writeln!(io::stdout(), "{text}")
        && error.kind() != ErrorKind::BrokenPipe
    {
        // A full disk, for instance: whoever reads the results should know that there are more.
        aside(format_args!(
            "warning: a line could not be written: {error}"
        ));
    }
}

/// A warning or an error, beside the results.
pub fn aside(text: impl Display) {
    // If nobody reads this either, there is nobody left to tell.
    let _ = writeln!(io::stderr(), "{text}");
}

/// What a program ends with; an error is told.
pub fn status(result: Result<(), Box<dyn Error>>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            aside(format_args!("error: {error}"));
            ExitCode::FAILURE
        }
    }
}
