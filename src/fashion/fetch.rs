//! Fetching the four files: from the official address, or out of Debian's package.
//!
//! Everything is downloaded into memory (30 MB) and verified first, then written: an interrupted or
//! wrong download leaves nothing on the disk.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use super::{FILES, FashionError, File, at, fashion_dir, find, read_at_most};
use crate::files::{check_folder, write_atomically};

/// The address that the data set's authors give. Plain HTTP will do: the hashes are verified.
const OFFICIAL: &str = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com";
/// Debian's package of the data set.
const PACKAGE: &str = "dataset-fashion-mnist";

/// The folder that holds the data, after fetching them into the project's own if they are nowhere.
///
/// `FASHION_MNIST_URL` names another place to fetch from (a mirror).
///
/// # Errors
/// If they are nowhere and cannot be fetched, or the folder cannot be written.
pub fn fetch() -> Result<PathBuf, FashionError> {
    if let Some(folder) = find() {
        return Ok(folder);
    }
    let url = std::env::var("FASHION_MNIST_URL").unwrap_or_else(|_| OFFICIAL.to_owned());
    fetch_into(&fashion_dir(), &url, true)
}

/// Downloads from `url` or, failing that and if asked to, unpacks Debian's package, into `folder`.
fn fetch_into(folder: &Path, url: &str, debian: bool) -> Result<PathBuf, FashionError> {
    // The folder first: whoever cannot write to it should learn so before a download of 30 MB.
    check_folder(folder).map_err(at(folder))?;
    let unreachable = |why: String| FashionError::Unreachable {
        folder: folder.to_owned(),
        why,
    };
    // The reason is kept for the last error: if Debian's package cannot be had either, the user
    // needs both.
    let over_http = match all(|file| download(url, file)) {
        Ok(files) => return store(folder, files),
        Err(why) => why,
    };
    if !debian {
        return Err(unreachable(over_http));
    }
    // Nobody may read it: then it is not told.
    let _ = writeln!(
        io::stderr(),
        "{url} cannot be used ({over_http}); trying Debian's package {PACKAGE}"
    );
    let files = from_debian()
        .map_err(|why| unreachable(format!("over HTTP: {over_http}; from Debian: {why}")))?;
    store(folder, files)
}

/// The four files as `get` gives them, each verified before the next is asked for; or why not.
fn all(get: impl Fn(&File) -> Result<Vec<u8>, String>) -> Result<Vec<Vec<u8>>, String> {
    let mut files = Vec::new();
    for file in FILES {
        let stored = get(file)?;
        // `verify` names this file in its errors. What it unpacks is dropped: the file is stored as
        // it came.
        let name = format!("{}.gz", file.name);
        file.verify(Path::new(&name), &stored)
            .map_err(|error| error.to_string())?;
        files.push(stored);
    }
    Ok(files)
}

/// Writes the four files into `folder`, which is returned.
fn store(folder: &Path, files: Vec<Vec<u8>>) -> Result<PathBuf, FashionError> {
    // `all` has gone through `FILES` in the same order. The name says gzip, but a plain file out of
    // Debian's package would be read under it as well, because `unpack` looks at the bytes.
    for (file, bytes) in FILES.into_iter().zip(files) {
        let path = folder.join(format!("{}.gz", file.name));
        write_atomically(&path, &bytes).map_err(at(&path))?;
    }
    Ok(folder.to_owned())
}

/// One file over HTTP, into memory (26 MB, and no more than twice what it unpacks to), with a
/// progress bar.
fn download(url: &str, file: &File) -> Result<Vec<u8>, String> {
    let address = format!("{url}/{}.gz", file.name);
    // To connect, to begin to answer, to send the body. A connection of 30 kB a second still gets
    // the 26 MB of the largest file in 900 s. No limit would let a dead server hang the program.
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .timeout_connect(Some(Duration::from_secs(10)))
        .timeout_recv_response(Some(Duration::from_secs(30)))
        .timeout_recv_body(Some(Duration::from_secs(900)))
        .build()
        .into();
    let response = agent
        .get(&address)
        .call()
        .map_err(|error| error.to_string())?;
    let body = response.into_body();
    let (length, limit) = (body.content_length(), file.stored_limit());
    if let Some(length) = length
        && length > limit as u64
    {
        return Err(format!(
            "{address}: {length} bytes are announced; expected at most {limit}"
        ));
    }
    let style = ProgressStyle::with_template("{msg} {bar:30} {bytes}/{total_bytes} {eta}")
        .expect("the template is a constant, and every download uses it");
    // A server need not say how long the file is. The bar is then without an end, and the hash
    // alone tells whether all has come.
    let bar = ProgressBar::new(length.unwrap_or(0)).with_style(style);
    bar.set_message(file.name);
    // A server can send without end.
    let bytes = read_at_most(bar.wrap_read(body.into_reader()), limit)
        .map_err(|error| format!("{address}: {error}"))?;
    bar.finish();
    match length {
        // If the server hung up early, this says so in plain words; the hash would only say that
        // the file is another one.
        Some(length) if length != bytes.len() as u64 => {
            Err(format!("{address}: {} bytes of {length} came", bytes.len()))
        }
        _ => Ok(bytes),
    }
}

/// The files out of Debian's package, downloaded and unpacked with apt's and dpkg's own tools.
///
/// All happens in a temporary folder, package lists included, so that neither root nor an earlier
/// `apt-get update` is needed.
fn from_debian() -> Result<Vec<Vec<u8>>, String> {
    let scratch = tempfile::tempdir().map_err(|error| error.to_string())?;
    let (state, cache) = (scratch.path().join("state"), scratch.path().join("cache"));
    // apt keeps unfinished downloads in these folders. They are made here, so that nothing depends
    // on whether apt makes them.
    for folder in [state.join("lists/partial"), cache.join("archives/partial")] {
        fs::create_dir_all(&folder).map_err(|error| error.to_string())?;
    }
    let apt = |arguments: &[&str]| {
        run(Command::new("apt-get")
            .current_dir(scratch.path())
            // Quiet: only errors. The two folders replace /var/lib/apt and /var/cache/apt, which
            // only root may write to. Where packages come from is still read from /etc/apt.
            .arg("-qq")
            .args(["-o", &format!("Dir::State={}", state.display())])
            .args(["-o", &format!("Dir::Cache={}", cache.display())])
            // As root, apt would change to a user who cannot write to this folder.
            .args(["-o", "APT::Sandbox::User="])
            .args(arguments))
    };
    apt(&["update"])?;
    apt(&["download", PACKAGE])?;
    // `apt-get download` puts the package into the current folder, under a name with its version.
    let package = fs::read_dir(scratch.path())
        .map_err(|error| error.to_string())?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
        .ok_or("apt-get download left no package")?;
    let unpacked = scratch.path().join("unpacked");
    run(Command::new("dpkg-deb")
        .arg("-x")
        .arg(&package)
        .arg(&unpacked))?;
    // Without the leading slash: `join` with an absolute path would give that path, outside of the
    // folder that was unpacked.
    let folder = unpacked.join(super::DEBIAN.trim_start_matches('/'));
    all(|file| {
        let path = file
            .path(&folder)
            .ok_or_else(|| format!("{PACKAGE} has no {}", file.name))?;
        fs::read(&path).map_err(|error| error.to_string())
    })
}

/// Runs a program; the last line of its complaint is the error.
fn run(command: &mut Command) -> Result<(), String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.output().map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => format!("no {program} on this machine"),
        _ => format!("{program}: {error}"),
    })?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!(
        "{program}: {}",
        said.lines().last().unwrap_or("failed without a word")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader};
    use std::net::TcpListener;

    /// A server on this machine that answers every request with `answer`, byte for byte, and hangs
    /// up.
    fn server(answer: &'static [u8]) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let request = BufReader::new(stream.try_clone().unwrap());
                request
                    .lines()
                    .map_while(Result::ok)
                    .take_while(|line| !line.is_empty())
                    .for_each(drop);
                // Whoever has read enough hangs up.
                let _ = stream.write_all(answer);
            }
        });
        format!("http://{address}")
    }

    fn refused(answer: &'static [u8]) -> String {
        let folder = tempfile::tempdir().unwrap();
        let error = fetch_into(folder.path(), &server(answer), false).unwrap_err();
        assert_eq!(
            fs::read_dir(folder.path()).unwrap().count(),
            0,
            "something was left behind"
        );
        error.to_string()
    }

    #[test]
    fn an_interrupted_download_leaves_nothing_and_says_so() {
        let error = refused(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nonly this");
        assert!(error.contains("train-images-idx3-ubyte.gz"), "{error}");
        assert!(
            error.contains("FASHION_MNIST_DIR"),
            "it says what to put where: {error}"
        );
    }

    #[test]
    fn a_page_that_is_not_the_file_is_refused() {
        let error =
            refused(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello");
        assert!(error.contains("IDX header"), "{error}");
        let error =
            refused(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        assert!(error.contains("404"), "{error}");
    }

    /// What is announced is refused unread. What is not announced is read up to a limit.
    #[test]
    fn a_file_without_end_is_refused() {
        let error = refused(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000000\r\n\r\n");
        assert!(
            error.contains("1000000000000 bytes are announced"),
            "{error}"
        );
        let zeros = vec![0; 2 * FILES[0].stored_limit()];
        let answer = [b"HTTP/1.1 200 OK\r\n\r\n", &zeros[..]].concat();
        let error = refused(answer.leak());
        assert!(error.contains("IDX header"), "{error}");
    }

    #[test]
    fn a_folder_that_cannot_be_written_is_named_before_anything_is_fetched() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "in the way").unwrap();
        let error = fetch_into(&file.join("data"), "http://127.0.0.1:1", false).unwrap_err();
        assert!(matches!(error, FashionError::Io { .. }), "{error}");
        assert!(error.to_string().contains("file/data"), "{error}");
    }
}
