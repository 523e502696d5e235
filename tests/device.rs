//! Cards that are not here, by name, and what a mistake in the name is answered with.

use std::process::Command;

use taper::device::{DeviceProfile, Hardware, named};
use taper::error::Error;
use taper::units::parse_bytes;

#[test]
fn every_card_that_is_promised_is_known() {
    for name in [
        "rtx2080ti",
        "rtx3050",
        "rtx3060",
        "rtx3070",
        "rtx3080",
        "rtx3090",
        "rtx4060",
        "rtx4070",
        "rtx4090",
        "rtx5070",
        "rtx5090",
        "t4",
        "v100",
        "a10",
        "a100-40",
        "a100-80",
        "l4",
        "l40s",
        "h100",
        "h200",
        "b200",
        "gb10",
    ] {
        let profile = DeviceProfile::named(name).unwrap();
        assert!(matches!(profile.hardware, Hardware::Cuda(_)), "{name}");
        assert_eq!(profile.available_bytes, profile.total_bytes, "{name}");
    }
    assert!(named::all().len() >= 22);
}

#[test]
fn a_size_on_the_command_line_means_what_the_table_means() {
    let profile = DeviceProfile::named("RTX 3060").unwrap();
    assert_eq!(parse_bytes("11.69GiB").ok(), profile.total_bytes);
}

/// `taper ARGUMENTS` under a limit of the shell's: exit code and stderr.
fn limited(limit: &str, arguments: &str) -> (Option<i32>, String) {
    let folder = tempfile::tempdir().unwrap();
    let script = format!(
        "ulimit {limit} && exec {} {arguments}",
        env!("CARGO_BIN_EXE_taper")
    );
    let cache = concat!(env!("CARGO_TARGET_TMPDIR"), "/cache");
    let output = Command::new("sh")
        .args(["-c", &script])
        .current_dir(&folder)
        .env("XDG_CACHE_HOME", cache)
        .output()
        .unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(said).unwrap())
}

const MODEL: &str = "--config quickstart.toml --set n_layer=4 --set n_embd=384 --set n_head=6 --set block_size=256 \
    --set batch_size=auto --set sequences_per_step=16";

#[test]
fn a_limit_of_address_space_makes_a_launch_smaller_or_is_an_error() {
    let mut fitted = 0;
    for kib in (120_000..=480_000).step_by(40_000) {
        for kind in ["-v", "-d"] {
            let (code, said) = limited(
                &format!("{kind} {kib}"),
                &format!("plan {MODEL} --allocate"),
            );
            assert!(matches!(code, Some(0 | 1)), "{kind} {kib}: {code:?} {said}");
            assert!(!said.contains("memory allocation"), "{kind} {kib}: {said}");
            match code {
                Some(0) => {
                    assert!(said.contains("`ulimit -v` or `-d`, leaves "), "{said}");
                    fitted += 1;
                }
                _ => assert!(said.contains("\nhint: "), "{said}"),
            }
        }
    }
    assert!(fitted > 0, "no limit left room for the model");
}

#[test]
fn a_run_stays_within_a_limit_of_address_space() {
    let run = "train --config quickstart.toml --set n_layer=2 --set n_embd=64 --set n_head=2 --set block_size=32 \
        --set max_iters=2 --set eval_iters=1 --set sequences_per_step=4 --set batch_size=auto";
    for kib in [100_000, 250_000, 300_000, 400_000] {
        let (code, said) = limited(&format!("-v {kib}"), run);
        assert!(matches!(code, Some(0 | 1)), "{kib}: {code:?} {said}");
        assert!(code == Some(0) || kib < 400_000, "{said}");
    }
}

#[test]
fn an_unknown_card_is_the_user_s_to_fix() {
    let error = Error::from(DeviceProfile::named("rtx 4096").unwrap_err());
    assert_eq!(error.to_string(), "no card called `rtx 4096` is known");
    assert_eq!(error.hint().as_deref(), Some("did you mean `rtx4090`?"));
    assert_eq!(error.exit_code(), 1);
}

#[test]
fn a_profile_is_an_object_with_stable_names() {
    let profile = DeviceProfile::named("t4").unwrap();
    let json = serde_json::to_value(profile).unwrap();
    assert_eq!(json["hardware"]["kind"], "cuda");
    assert_eq!(json["hardware"]["sm_count"], 40);
    assert_eq!(json["hardware"]["peak_bf16"], serde_json::Value::Null);
    assert_eq!(json["hardware"]["driver_version"], serde_json::Value::Null);
}

#[cfg(not(feature = "cuda"))]
#[test]
fn a_build_without_cuda_says_how_to_get_one() {
    let error = DeviceProfile::gpu(0).unwrap_err();
    assert_eq!(error.to_string(), "this build of taper has no CUDA");
    assert!(error.hint().contains("--features cuda"));
}
