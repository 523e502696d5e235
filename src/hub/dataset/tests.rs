//! The files of splits, by cards and names as real datasets have them.

use serde_json::json;

use super::*;
use crate::hub::RepositoryKind;

fn listing(files: &[&str], card: Value) -> Listing {
    Listing {
        commit: String::new(),
        files: files.iter().map(|file| (*file).to_owned()).collect(),
        card,
    }
}

fn repository() -> Repository {
    Repository::new(RepositoryKind::Dataset, "o/n").unwrap()
}

fn find(
    listing: &Listing,
    subset: Option<&str>,
    split: &str,
) -> Result<Option<SplitFiles>, String> {
    let found = listing.split_files(&repository(), subset, split);
    found.map_err(|error| format!("{error}\n{}", error.hint().unwrap()))
}

fn paths(listing: &Listing, subset: Option<&str>, split: &str) -> Vec<String> {
    find(listing, subset, split).unwrap().unwrap().paths
}

#[test]
fn a_card_tells_the_files_of_a_subset_as_finewebs_does() {
    let card = json!({"configs": [
        {"config_name": "default", "data_files": [{"split": "train", "path": "data/*/*"}]},
        {"config_name": "sample-10BT", "data_files": [{"split": "train", "path": "sample/10BT/*"}]},
    ]});
    let files = [
        "README.md",
        "data/a/1.parquet",
        "data/b/0.parquet",
        "data/x.parquet",
        "sample/10BT/1.parquet",
        "sample/10BT/0.parquet",
        "sample/100BT/0.parquet",
    ];
    let listing = listing(&files, card);
    assert_eq!(
        paths(&listing, Some("sample-10BT"), "train"),
        ["sample/10BT/0.parquet", "sample/10BT/1.parquet"]
    );
    assert_eq!(
        paths(&listing, None, "train"),
        ["data/a/1.parquet", "data/b/0.parquet"]
    );
    let error = find(&listing, Some("10BT"), "train").unwrap_err();
    assert!(
        error.contains("no subset `10BT`") && error.contains("`default`, `sample-10BT`"),
        "{error}"
    );
    let error = find(&listing, None, "test").unwrap_err();
    assert!(
        error.contains("no split `test`") && error.contains("`train`"),
        "{error}"
    );
}

#[test]
fn a_card_may_name_paths_in_every_form() {
    let files = ["a.jsonl", "b.jsonl", "sub/c.jsonl", "t.jsonl"];
    let of = |data_files: Value| {
        listing(
            &files,
            json!({"configs": [{"config_name": "x", "data_files": data_files}]}),
        )
    };
    assert_eq!(paths(&of(json!("a.jsonl")), None, "train"), ["a.jsonl"]);
    assert_eq!(
        paths(&of(json!(["b.jsonl", "a.jsonl"])), None, "train"),
        ["a.jsonl", "b.jsonl"]
    );
    assert_eq!(paths(&of(json!("**/*.jsonl")), None, "train").len(), 4);
    let splits = of(json!({"train": ["a.jsonl", "sub/*"], "test": "t.jsonl"}));
    let found = find(&splits, None, "train").unwrap().unwrap();
    assert_eq!(found.paths, ["a.jsonl", "sub/c.jsonl"]);
    assert_eq!(found.other_splits, ["test"]);
    let tables = listing(
        &["a.csv"],
        json!({"configs": [{"config_name": "x", "data_files": "*.csv"}]}),
    );
    assert_eq!(find(&tables, None, "train").unwrap(), None);
    let several = listing(
        &files,
        json!({"configs": [
            {"config_name": "x", "data_files": "a.jsonl"}, {"config_name": "y", "data_files": "b.jsonl", "default": true},
        ]}),
    );
    assert_eq!(paths(&several, None, "train"), ["b.jsonl"]);
}

#[test]
fn without_a_card_the_names_tell_and_one_format_is_taken() {
    let tiny = listing(
        &[
            "TinyStories-train.txt",
            "TinyStories-valid.txt",
            "data/train-00000-of-00002.parquet",
            "data/train-00001-of-00002.parquet",
            "data/validation-00000-of-00001.parquet",
        ],
        Value::Null,
    );
    let found = find(&tiny, None, "train").unwrap().unwrap();
    assert_eq!(
        found.paths,
        [
            "data/train-00000-of-00002.parquet",
            "data/train-00001-of-00002.parquet"
        ]
    );
    assert_eq!(found.other_splits, ["validation"]);
    assert_eq!(
        paths(&tiny, None, "validation"),
        ["data/validation-00000-of-00001.parquet"]
    );
    let subsets = listing(
        &["en/train-0.jsonl.zst", "de/train-0.jsonl.zst"],
        Value::Null,
    );
    assert_eq!(
        paths(&subsets, Some("de"), "train"),
        ["de/train-0.jsonl.zst"]
    );
    let plain = listing(
        &["LICENSE.txt", "dataset_infos.json", "stories.jsonl"],
        Value::Null,
    );
    assert_eq!(paths(&plain, None, "train"), ["stories.jsonl"]);
    assert_eq!(
        find(&listing(&["load.py", "x.zip"], Value::Null), None, "train").unwrap(),
        None
    );
}

#[test]
fn the_hubs_own_conversion_is_read_by_its_folders() {
    let files = [
        "default/train/0000.parquet",
        "default/train/0001.parquet",
        "default/test/0000.parquet",
        "big/partial-train/0000.parquet",
    ];
    let listing = listing(&files, Value::Null);
    let of = |subset, split| {
        let found = listing.converted_files(&repository(), subset, split);
        found.map_err(|error| error.to_string())
    };
    let found = of(None, "train").unwrap();
    assert_eq!(
        found.paths,
        ["default/train/0000.parquet", "default/train/0001.parquet"]
    );
    assert_eq!(
        (found.subset.as_deref(), &found.other_splits[..]),
        (Some("default"), &["test".to_owned()][..])
    );
    assert!(
        of(Some("big"), "train")
            .unwrap_err()
            .contains("only the beginning")
    );
    assert!(of(None, "dev").unwrap_err().contains("no split `dev`"));
    assert!(
        of(Some("small"), "train")
            .unwrap_err()
            .contains("no subset `small`")
    );
}
