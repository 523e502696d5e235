//! Cards that are not here, by name, and what a mistake in the name is answered with.

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
