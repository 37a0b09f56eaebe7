//! On what, when and from which commit something was measured.
//!
//! A figure such as "11,000 queries a second" means little without the machine. Each row of the
//! record therefore carries a [`Machine`]: the processor, the level of SIMD that the crate uses on
//! it, its cores, and how fast one core reads memory, which bounds what any full scan can reach.

use std::hint::black_box;
use std::sync::OnceLock;
use std::time::Instant;
use std::{env, fs, process, thread};

use crate::files::checkout;
use crate::simd;

/// The machine that this program runs on. What the system does not tell is `None`.
#[derive(Debug, Clone, PartialEq)]
pub struct Machine {
    /// The processor's name: "AMD EPYC".
    pub cpu: String,
    /// The processor's family, a number of its maker (x86 on Linux only).
    pub cpu_family: Option<u32>,
    /// The processor's model within the family (x86 on Linux only).
    pub cpu_model: Option<u32>,
    /// The SIMD level that the crate's kernels use: "portable", "avx2", "avx512".
    pub simd: String,
    /// How many threads can run at once.
    pub cores: usize,
    /// How fast one core reads memory, in 10⁹ bytes a second ([`memory_bandwidth`]).
    pub bandwidth_gb_s: f64,
}

impl Machine {
    /// This machine. The memory is measured by the first call (about 0.3 s); later calls are free.
    #[must_use]
    pub fn here() -> &'static Self {
        // Filled once a process: what it says cannot change while the program runs, and the
        // measurement of the memory takes time and empties the caches.
        static HERE: OnceLock<Machine> = OnceLock::new();
        HERE.get_or_init(|| Self {
            cpu: cpu(),
            cpu_family: cpu_number("cpu family"),
            cpu_model: cpu_number("model"),
            simd: simd::level().name().to_owned(),
            cores: thread::available_parallelism().map_or(1, usize::from),
            bandwidth_gb_s: round(memory_bandwidth(), 1),
        })
    }
}

/// Does `work`, and tells the most memory that this process has held meanwhile, in bytes: all that
/// it held before is in it. `None` where the system does not tell (it is Linux that does).
pub fn with_peak<T>(work: impl FnOnce() -> T) -> (T, Option<u64>) {
    // "5" forgets the peak so far. Where that is refused, the peak may be older than the work.
    let forgotten = fs::write("/proc/self/clear_refs", "5").is_ok();
    let result = work();
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = value_in(&status, "VmHWM").filter(|_| forgotten);
    let kilobytes = peak.and_then(|peak| peak.trim_end_matches(" kB").parse::<u64>().ok());
    (result, kilobytes.map(|peak| peak * 1024))
}

/// `value` with so many digits after the point: more would be noise in a table.
#[must_use]
pub fn round(value: f64, digits: i32) -> f64 {
    let scale = 10f64.powi(digits);
    (value * scale).round() / scale
}

/// The day in UTC: "2026-11-25".
#[must_use]
pub fn today() -> String {
    chrono::Utc::now().format("%Y-%m-%d").to_string()
}

/// The commit of the checkout that the program was started in: ten digits, and a "+" if the source
/// was changed since. "unknown" outside a checkout of this project, or without git.
#[must_use]
pub fn commit() -> String {
    // `-C` runs git in the root, so the paths below are the project's, wherever in the checkout the
    // program was started.
    let Some(root) = checkout() else {
        return "unknown".to_owned();
    };
    let git = |arguments: &[&str]| {
        output(
            process::Command::new("git")
                .arg("-C")
                .arg(&root)
                .args(arguments),
        )
    };
    let Some(commit) = git(&["rev-parse", "--short=10", "HEAD"]) else {
        return "unknown".to_owned();
    };
    // Only what is compiled counts: a changed notebook does not change what was measured.
    let source = ["src", "Cargo.toml", "Cargo.lock"];
    let changes = git(&[&["status", "--porcelain", "--"], &source[..]].concat());
    // Each changed or new file is a line of `status --porcelain`. If git cannot tell, the "+" is
    // set: rather that than a commit that may not be what was measured.
    if changes.is_some_and(|changes| changes.is_empty()) {
        commit
    } else {
        commit + "+"
    }
}

/// The processor's name, as the system gives it; the architecture where it gives none.
fn cpu() -> String {
    // Linux first, from a file. macOS has no such file, but a program that prints the name.
    let mac = || {
        output(process::Command::new("sysctl").args(["-n", "machdep.cpu.brand_string"]))
            .filter(|name| !name.is_empty())
    };
    cpu_info("model name")
        .or_else(mac)
        .unwrap_or_else(|| env::consts::ARCH.to_owned())
}

fn cpu_number(name: &str) -> Option<u32> {
    cpu_info(name)?.parse().ok()
}

/// What Linux tells of the first processor under `name`.
fn cpu_info(name: &str) -> Option<String> {
    value_in(&fs::read_to_string("/proc/cpuinfo").ok()?, name)
}

/// The value of the first line "name : value". The whole name counts: "model" is not "model name".
fn value_in(info: &str, name: &str) -> Option<String> {
    for line in info.lines() {
        // The names stand before tabs and a colon. The list repeats itself for each processor; they
        // are alike, and the first is taken.
        if let Some((known, value)) = line.split_once(':')
            && known.trim() == name
        {
            return Some(value.trim().to_owned());
        }
    }
    None
}

/// What a program prints, without the blanks around it, if it succeeds.
fn output(command: &mut process::Command) -> Option<String> {
    let output = command.output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    output.status.success().then_some(text)
}

/// How fast one core reads more memory than its caches hold, in 10⁹ bytes a second: the best of
/// four passes over 256 MiB.
///
/// An exact scan of a base larger than the caches cannot be faster than this divided by the bytes
/// that it reads of each row.
#[must_use]
pub fn memory_bandwidth() -> f64 {
    // 256 MiB of words: more than the last cache of a core holds on any common processor.
    const WORDS: usize = 1 << 25;
    const PASSES: usize = 4;
    // Ones rather than zeros: zeroed memory comes from the system without being written, and pages
    // that were never written may all be read from one page, which stays in the cache.
    let words = vec![1u64; WORDS];
    // The bases of the indexes lie in huge pages too. In small ones, part of the time would go into
    // address translation, and the bound would not be theirs.
    simd::in_huge_pages(&words);
    let mut best = 0.0f64;
    for _ in 0..PASSES {
        // `black_box` twice: the compiler must not compute the sum beforehand, nor leave it out
        // because nothing uses it. The best pass counts, since whatever disturbs one makes it
        // slower.
        let start = Instant::now();
        black_box(sum_in_four_streams(black_box(&words)));
        let bytes = size_of_val(&words[..]) as f64;
        best = best.max(bytes / start.elapsed().as_secs_f64() / 1e9);
    }
    best
}

/// The sum of all words (their number a multiple of 32), read at four places in turns: several
/// streams keep more requests to the memory on their way than one does.
fn sum_in_four_streams(words: &[u64]) -> u64 {
    // The words of a cache line.
    const LINE: usize = 8;
    // The four streams are the quarters of the memory, read side by side, a cache line of each at a
    // time. A quarter is whole lines because the number of words is a multiple of 4 · 8 = 32;
    // otherwise the slice below would reach beyond its end.
    let quarter = words.len() / 4;
    let (first, second) = words.split_at(2 * quarter);
    let streams = [
        &first[..quarter],
        &first[quarter..],
        &second[..quarter],
        &second[quarter..],
    ];
    let mut sum = 0u64;
    for at in (0..quarter).step_by(LINE) {
        for stream in streams {
            for &word in &stream[at..at + LINE] {
                // Wrapping: the sum may be anything, but debug builds must not panic on it.
                sum = sum.wrapping_add(word);
            }
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_the_systems_list_are_whole() {
        let info = "processor\t: 0\ncpu family\t: 25\nmodel\t\t: 17\nmodel name\t: AMD EPYC\n";
        assert_eq!(value_in(info, "model").as_deref(), Some("17"));
        assert_eq!(value_in(info, "model name").as_deref(), Some("AMD EPYC"));
        assert_eq!(value_in(info, "family"), None);
    }

    #[test]
    fn every_word_is_read_once() {
        let words: Vec<u64> = (0..1 << 10).collect();
        assert_eq!(sum_in_four_streams(&words), words.iter().sum::<u64>());
    }

    #[test]
    fn the_machine_is_told_once() {
        let machine = Machine::here();
        assert!(machine.bandwidth_gb_s > 0.0 && machine.cores > 0);
        assert!(!machine.cpu.is_empty() && !machine.simd.is_empty());
        assert!(std::ptr::eq(machine, Machine::here()));
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn the_peak_is_that_of_the_work() {
        const BYTES: usize = 1 << 30;
        let (len, large) = with_peak(|| black_box(vec![1u8; BYTES]).len());
        let (_, small) = with_peak(|| black_box(1));
        assert_eq!(len, BYTES);
        // Where the system forgets no peak, none is told.
        let Some((large, small)) = large.zip(small) else {
            assert!(fs::write("/proc/self/clear_refs", "5").is_err());
            return;
        };
        assert!(large >= BYTES as u64, "{large}");
        assert!(small < large - BYTES as u64 / 2, "{small} of {large}");
    }

    #[test]
    fn a_day_is_ten_characters() {
        let day = today();
        assert_eq!(day.len(), 10);
        assert!(day.as_str() > "2026-01-01", "{day}");
    }
}
