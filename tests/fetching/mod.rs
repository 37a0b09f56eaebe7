//! The program `fetch`, and the files that it fetches.

use std::collections::HashMap;
use std::fs;
use std::process::Command;

use fashion_knn::fashion;

use crate::room::Room;

/// The four files, where they are on this machine, under the paths by which a server gives them.
pub fn fashion_mnist() -> HashMap<String, Vec<u8>> {
    let folder = fashion::find().expect("Fashion-MNIST is here");
    let files = fs::read_dir(folder).unwrap().map(|file| {
        let path = file.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        let name = name.trim_end_matches(".gz").to_owned();
        (format!("/{name}.gz"), fs::read(path).unwrap())
    });
    files.filter(|(name, _)| name.contains("-ubyte")).collect()
}

/// `fetch` from this address alone: it finds no apt-get to ask Debian.
pub fn fetch(room: &Room, url: &str) -> Command {
    let mut command = room.command(env!("CARGO_BIN_EXE_fetch"));
    command.env("FASHION_MNIST_URL", url).env("PATH", "");
    command
}
