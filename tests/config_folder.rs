//! `--config` in a folder of the user's. Alone in its process, because it changes the current folder.

use taper::config::Config;

fn layers(source: &str) -> usize {
    Config::load(source, &[]).unwrap().model.n_layer
}

#[test]
fn presets_are_found_from_any_folder_and_a_file_of_that_name_wins() {
    let folder = tempfile::tempdir().unwrap();
    std::env::set_current_dir(folder.path()).unwrap();
    assert_eq!(layers("quickstart"), 4);
    assert_eq!(layers("quickstart.toml"), 4);
    std::fs::write("gpt2-xl.toml", "[model]\nn_layer = 3").unwrap();
    assert_eq!(layers("gpt2-xl.toml"), 3);
    assert_eq!(layers("./gpt2-xl.toml"), 3);
    assert_eq!(layers("gpt2-xl"), 48, "only the name as typed");
    std::fs::create_dir("openwebtext").unwrap();
    assert_eq!(layers("openwebtext"), 12, "a folder does not hide a preset");
}
