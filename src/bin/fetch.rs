//! Finds or fetches Fashion-MNIST and verifies it: `cargo run --bin fetch`.

use std::error::Error;
use std::process::ExitCode;

use fashion_knn::fashion;

#[path = "shared/say.rs"]
mod say;

fn main() -> ExitCode {
    say::status(run())
}

fn run() -> Result<(), Box<dyn Error>> {
    let folder = fashion::fetch()?;
    // `fetch` may have found files that were there before. Loading them verifies them, whoever put
    // them there.
    let data = fashion::load_from(&folder)?;
    say::line(format_args!(
        "Fashion-MNIST: {} training and {} test images in {}, verified",
        data.train.len(),
        data.test.len(),
        folder.display()
    ));
    Ok(())
}
