//! Finds or fetches Fashion-MNIST and verifies it: `cargo run --bin fetch`.

use std::path::PathBuf;
use std::process::ExitCode;

use fashion_knn::fashion::{self, Fashion, FashionError};

#[path = "shared/say.rs"]
mod say;

fn main() -> ExitCode {
    match run() {
        Ok((folder, data)) => {
            say::line(format_args!(
                "Fashion-MNIST: {} training and {} test images in {}, verified",
                data.train.len(),
                data.test.len(),
                folder.display()
            ));
            ExitCode::SUCCESS
        }
        Err(error) => {
            say::aside(format_args!("error: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(PathBuf, Fashion), FashionError> {
    let folder = fashion::fetch()?;
    // `fetch` may have found files that were there before. Loading them verifies them, whoever put
    // them there.
    let data = fashion::load_from(&folder)?;
    Ok((folder, data))
}
