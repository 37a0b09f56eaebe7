//! Finds or fetches Fashion-MNIST and verifies it: what `make data` runs.

use std::process::ExitCode;

use fashion_knn::fashion;

fn main() -> ExitCode {
    match fashion::fetch().and_then(|folder| fashion::load_from(&folder).map(|data| (folder, data)))
    {
        Ok((folder, data)) => {
            println!(
                "Fashion-MNIST: {} training and {} test images in {}, verified",
                data.train.len(),
                data.test.len(),
                folder.display()
            );
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
