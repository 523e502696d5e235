//! Runs the real binary with the served hub.

use std::fs;
use std::path::Path;
use std::process::{Child, Command};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::process::{self, Outcome};
use crate::server::Server;

/// `taper` with the served hub and a cache in the folder.
pub fn command(folder: &Path, server: &Server, arguments: &[&str]) -> Command {
    let mut command = process::command(folder, arguments);
    for proxy in ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"] {
        command.env_remove(proxy);
    }
    command
        .env("HF_ENDPOINT", &server.endpoint)
        .env("HF_HUB_CACHE", folder.join("cache"))
        .env("HF_HUB_OFFLINE", "0")
        .env("HF_TOKEN", "hf_secret");
    command
}

pub fn outcome(child: Child) -> Outcome {
    let output = child.wait_with_output().unwrap();
    Outcome {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

pub fn taper(folder: &Path, server: &Server, arguments: &[&str]) -> Outcome {
    outcome(command(folder, server, arguments).spawn().unwrap())
}

/// Waits until a file has so many bytes.
pub fn wait_for(path: &Path, bytes: u64) {
    let until = Instant::now() + Duration::from_secs(60);
    while fs::metadata(path).map_or(0, |metadata| metadata.len()) < bytes {
        assert!(Instant::now() < until, "{} does not grow", path.display());
        sleep(Duration::from_millis(10));
    }
}
