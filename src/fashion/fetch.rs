//! Fetching the four files: from the official address, or out of Debian's package.
//!
//! Everything is downloaded into memory (30 MB) and verified first, then written, each file whole.
//! An interrupted or wrong download leaves nothing on the disk. Where some of the four files are
//! there already, only the others are fetched.

use std::fs;
use std::io::{self, Cursor, Read, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use super::{DEBIAN, FILES, FashionError, File, at, fashion_dir, find, read_at_most};
use crate::files::{check_folder, write_atomically};

/// The address that the data set's authors give. Plain HTTP will do: the hashes are verified.
const OFFICIAL: &str = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com";
/// Debian's package of the data set.
const PACKAGE: &str = "dataset-fashion-mnist";
/// How long a server may be silent.
const PATIENCE: Duration = Duration::from_secs(30);

/// The folder that holds the data, after fetching them into the project's own if they are nowhere,
/// or those of them that are missing there.
///
/// `FASHION_MNIST_URL` names another place to fetch from (a mirror). What Debian has installed on
/// this machine does not take its place.
///
/// # Errors
/// If they are nowhere and cannot be fetched, or the folder cannot be written.
pub fn fetch() -> Result<PathBuf, FashionError> {
    let own = fashion_dir();
    let named = std::env::var("FASHION_MNIST_URL").ok();
    match find() {
        Some(folder) if folder == Path::new(DEBIAN) && named.is_some() => (),
        // A fetch that was killed may have stored some of the four.
        Some(folder) if folder != own || missing_in(&own).is_empty() => return Ok(folder),
        _ => (),
    }
    let url = named.as_deref().unwrap_or(OFFICIAL);
    fetch_into(&own, url, PATIENCE, true)
}

/// Those of the four files that are not in the folder.
fn missing_in(folder: &Path) -> Vec<&'static File> {
    let is_missing = |file: &&File| file.path(folder).is_none();
    FILES.into_iter().filter(is_missing).collect()
}

/// Downloads what is missing in `folder` from `url` or, failing that and if asked to, unpacks it
/// out of Debian's package.
fn fetch_into(
    folder: &Path,
    url: &str,
    patience: Duration,
    debian: bool,
) -> Result<PathBuf, FashionError> {
    // The folder first: whoever cannot write to it should learn so before a download of 30 MB.
    check_folder(folder).map_err(at(folder))?;
    let unreachable = |why: String| FashionError::Unreachable {
        folder: folder.to_owned(),
        why,
    };
    let missing = missing_in(folder);
    // The reason is kept for the last error: if Debian's package cannot be had either, the user
    // needs both.
    let over_http = match all(&missing, |file| download(url, file, patience)) {
        Ok(files) => return store(folder, &files),
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
    let files = from_debian(&missing)
        .map_err(|why| unreachable(format!("over HTTP: {over_http}; from Debian: {why}")))?;
    store(folder, &files)
}

/// A file and its bytes, as they came.
type Stored = (&'static File, Vec<u8>);

/// The files as `get` gives them, each verified before the next is asked for; or why not.
fn all(
    wanted: &[&'static File],
    get: impl Fn(&File) -> Result<Vec<u8>, String>,
) -> Result<Vec<Stored>, String> {
    let mut files = Vec::new();
    for &file in wanted {
        let stored = get(file)?;
        // `verify` names this file in its errors. What it unpacks is dropped: the file is stored as
        // it came.
        let name = format!("{}.gz", file.name);
        file.verify(Path::new(&name), &stored)
            .map_err(|error| error.to_string())?;
        files.push((file, stored));
    }
    Ok(files)
}

/// Writes the files into `folder`, which is returned.
fn store(folder: &Path, files: &[Stored]) -> Result<PathBuf, FashionError> {
    // The name says gzip, but a plain file out of Debian's package would be read under it as well,
    // because `unpack` looks at the bytes.
    for (file, bytes) in files {
        let path = folder.join(format!("{}.gz", file.name));
        write_atomically(&path, bytes).map_err(at(&path))?;
    }
    Ok(folder.to_owned())
}

/// One file over HTTP, into memory (26 MB, and no more than twice what it unpacks to), with a
/// progress bar.
fn download(url: &str, file: &File, patience: Duration) -> Result<Vec<u8>, String> {
    let address = format!("{url}/{}.gz", file.name);
    // To connect, to begin to answer, to send the body. A connection of 30 kB a second still gets
    // the 26 MB of the largest file in 900 s. No limit would let a dead server hang the program.
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .timeout_resolve(Some(patience))
        .timeout_connect(Some(Duration::from_secs(10)))
        .timeout_recv_response(Some(patience))
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
    // A server can send without end, or nothing more.
    let body = Patient::new(body.into_reader(), patience);
    let bytes =
        read_at_most(bar.wrap_read(body), limit).map_err(|error| format!("{address}: {error}"))?;
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

/// A reader that gives up when nothing has come for a while. It is read on a thread of its own,
/// which ends with the reader, or when whoever has this one wants no more.
struct Patient {
    parts: Receiver<io::Result<Vec<u8>>>,
    /// What has come and was not yet read.
    part: Cursor<Vec<u8>>,
    patience: Duration,
}

impl Patient {
    fn new(mut reader: impl Read + Send + 'static, patience: Duration) -> Self {
        // Few parts wait in the channel, however fast they come.
        let (sender, parts) = mpsc::sync_channel(4);
        thread::spawn(move || {
            loop {
                let mut part = vec![0; 1 << 16];
                let came = reader.read(&mut part).map(|length| {
                    part.truncate(length);
                    part
                });
                // An empty part is the end.
                let is_last = came.as_ref().map_or(true, Vec::is_empty);
                if sender.send(came).is_err() || is_last {
                    return;
                }
            }
        });
        Self {
            parts,
            part: Cursor::default(),
            patience,
        }
    }
}

impl Read for Patient {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        if self.part.position() == self.part.get_ref().len() as u64 {
            self.part = match self.parts.recv_timeout(self.patience) {
                Ok(part) => Cursor::new(part?),
                Err(RecvTimeoutError::Disconnected) => return Ok(0),
                Err(RecvTimeoutError::Timeout) => {
                    let why = format!("nothing came for {:?}", self.patience);
                    return Err(io::Error::new(io::ErrorKind::TimedOut, why));
                }
            };
        }
        self.part.read(to)
    }
}

/// The files out of Debian's package, downloaded and unpacked with apt's and dpkg's own tools.
///
/// All happens in a temporary folder, package lists included, so that neither root nor an earlier
/// `apt-get update` is needed.
fn from_debian(wanted: &[&'static File]) -> Result<Vec<Stored>, String> {
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
    all(wanted, |file| {
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
#[path = "../../tests/serving/mod.rs"]
mod serving;

#[cfg(test)]
mod tests {
    use super::serving::{OK, send, send_file, server};
    use super::*;
    use crate::fashion::load_from;
    use flate2::{Compression, write::GzEncoder};
    use std::collections::HashMap;
    use std::net::{TcpListener, TcpStream};
    use tempfile::TempDir;

    const EMPTY: &str = "Connection: close\r\nContent-Length: 0\r\n\r\n";

    /// A server with this answer to everything.
    fn saying(answer: impl AsRef<[u8]> + Send + Sync + 'static) -> String {
        server(move |_, stream| send(stream, &answer))
    }

    /// Fetches, waiting a second for a silent server.
    fn fetch_from(url: &str, folder: &TempDir) -> Result<PathBuf, FashionError> {
        fetch_into(folder.path(), url, Duration::from_secs(1), false)
    }

    #[track_caller]
    fn refused(url: &str, expected: &str) {
        let folder = tempfile::tempdir().unwrap();
        let error = fetch_from(url, &folder).unwrap_err().to_string();
        let left = fs::read_dir(folder.path()).unwrap().count();
        assert_eq!(left, 0, "something was left behind");
        // It says what to put where.
        assert!(error.contains("FASHION_MNIST_DIR"), "{error}");
        assert!(error.contains(expected), "{error}");
    }

    #[test]
    fn an_interrupted_download_leaves_nothing_and_says_so() {
        let url = saying(format!("{OK} 1000\r\n\r\nonly this"));
        refused(&url, "train-images-idx3-ubyte.gz");
        refused(&saying("HTTP/1.1 200 OK\r\nConte"), "");
        refused(&saying(""), "");
        // Nobody listens there any more.
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        refused(&format!("http://{address}"), "refused");
    }

    #[test]
    fn a_server_that_says_nothing_more_is_not_waited_for() {
        let stall = || thread::sleep(Duration::from_secs(3_600));
        refused(&server(move |_, _| stall()), "timeout");
        let url = server(move |_, stream| {
            send(stream, format!("{OK} 1000\r\n\r\nonly this"));
            stall();
        });
        refused(&url, "nothing came for 1s");
    }

    #[test]
    fn a_page_that_is_not_the_file_is_refused() {
        refused(&saying(format!("{OK} 5\r\n\r\nhello")), "IDX header");
        refused(&saying(format!("HTTP/1.1 404 Not Found\r\n{EMPTY}")), "404");
        refused(&saying(format!("HTTP/1.1 500 Oh\r\n{EMPTY}")), "500");
        let to_itself = server(|path, stream| {
            send(
                stream,
                format!("HTTP/1.1 302 There\r\nLocation: {path}\r\n{EMPTY}"),
            );
        });
        refused(&to_itself, "redirect");
    }

    /// The right header and length, and other pixels.
    #[test]
    fn another_file_of_the_same_length_is_refused() {
        let mut images = GzEncoder::new(Vec::new(), Compression::fast());
        let mut bytes = FILES[0].header();
        bytes.resize(FILES[0].whole_len(), 0);
        images.write_all(&bytes).unwrap();
        let body = images.finish().unwrap();
        let head = format!("{OK} {}\r\n\r\n", body.len());
        refused(&saying([head.as_bytes(), &body].concat()), "SHA-256");
    }

    /// What is announced is refused unread. What is not announced is read up to a limit.
    #[test]
    fn a_file_without_end_is_refused() {
        let announced = saying(format!("{OK} 1000000000000\r\n\r\n"));
        refused(&announced, "1000000000000 bytes are announced");
        let endless = server(|_, stream| {
            send(stream, "HTTP/1.1 200 OK\r\n\r\n");
            while stream.write_all(&[0; 1 << 16]).is_ok() {}
        });
        refused(&endless, "IDX header");
    }

    #[test]
    fn a_folder_that_cannot_be_written_is_named_before_anything_is_fetched() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "in the way").unwrap();
        let nobody = "http://127.0.0.1:1";
        let error = fetch_into(&file.join("data"), nobody, PATIENCE, false).unwrap_err();
        assert!(matches!(error, FashionError::Io { .. }), "{error}");
        assert!(error.to_string().contains("file/data"), "{error}");
    }

    /// Each fault in each of the four files, then a server without faults.
    #[test]
    #[ignore = "needs Fashion-MNIST"]
    fn after_any_fault_a_good_server_is_all_that_is_needed() {
        let from = find().unwrap();
        let body = |file: &File| fs::read(file.path(&from).unwrap()).unwrap();
        let address = |file: &File| format!("/{}.gz", file.name);
        let bodies: HashMap<_, _> = FILES.map(|file| (address(file), body(file))).into();
        let faults: [fn(&mut TcpStream, &[u8]); 4] = [
            |stream, _| send(stream, format!("HTTP/1.1 404 Not Found\r\n{EMPTY}")),
            |stream, body| {
                send(stream, format!("{OK} {}\r\n\r\n", body.len()));
                send(stream, &body[..body.len() / 2]);
            },
            |stream, body| send_file(stream, &body[..body.len() - 1]),
            |stream, body| {
                let mut body = body.to_vec();
                let middle = body.len() / 2;
                body[middle] ^= 1;
                send_file(stream, &body);
            },
        ];
        let folder = tempfile::tempdir().unwrap();
        for bad in FILES {
            for fault in faults {
                let (bad, bodies) = (address(bad), bodies.clone());
                let url = server(move |path, stream| match &bodies[path] {
                    body if path == bad => fault(stream, body),
                    body => send_file(stream, body),
                });
                fetch_from(&url, &folder).unwrap_err();
                assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
            }
        }
        let good = server(move |path, stream| send_file(stream, &bodies[path]));
        fetch_from(&good, &folder).unwrap();
        load_from(folder.path()).unwrap();
        // Of a folder that has some of the files, those stay and the others are fetched.
        for file in [FILES[0], FILES[3]] {
            fs::remove_file(file.path(folder.path()).unwrap()).unwrap();
        }
        let modified = |file: &File| {
            let path = file.path(folder.path()).unwrap();
            fs::metadata(path).unwrap().modified().unwrap()
        };
        let before = modified(FILES[1]);
        fetch_from(&good, &folder).unwrap();
        load_from(folder.path()).unwrap();
        assert_eq!(modified(FILES[1]), before);
    }
}
