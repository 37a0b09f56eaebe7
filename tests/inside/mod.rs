//! A program run inside of another: `strace`, `unshare`, `sh`.

use std::process::Command;

/// The same run inside of another program, whose command line ends with what it is to run.
pub fn inside(mut outer: Command, inner: &Command) -> Command {
    outer.arg("env");
    for (name, value) in inner.get_envs() {
        if value.is_none() {
            outer.arg("-u").arg(name);
        }
    }
    for (name, value) in inner.get_envs() {
        if let Some(value) = value {
            let mut pair = name.to_owned();
            pair.push("=");
            pair.push(value);
            outer.arg(pair);
        }
    }
    outer.arg(inner.get_program()).args(inner.get_args());
    if let Some(folder) = inner.get_current_dir() {
        outer.current_dir(folder);
    }
    outer
}
