//! `prepare`'s ids beside tiktoken's.

use std::fs;
use std::path::Path;

use taper::tokenizer::Tokenizer;
use tempfile::tempdir;

use crate::process::taper;
use crate::python::python;

#[test]
#[ignore = "needs Python with tiktoken: TAPER_PYTHON=\"$(scripts/python_peers)\""]
fn five_megabytes_of_every_writing_have_tiktokens_ids() {
    let folder = tempdir().unwrap();
    let path = folder.path();
    Tokenizer::gpt2().unwrap().save(path).unwrap();
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let counts = python(
        path,
        "tokens.py",
        &[
            "tokenizer.json".as_ref(),
            sources.as_os_str(),
            "text.txt".as_ref(),
            "ids".as_ref(),
            "5".as_ref(),
        ],
    );
    assert!(counts["bytes"].as_u64().unwrap() >= 5_000_000);
    taper(path, &["prepare", "text.txt", "--out", "data"]).succeeded();
    for split in ["train", "val"] {
        let read = |name: String| fs::read(path.join(name)).unwrap();
        let (ours, theirs) = (
            read(format!("data/{split}.bin")),
            read(format!("ids.{split}")),
        );
        let ids = |bytes: &[u8]| bytes.as_chunks::<2>().0.to_vec();
        let (ours, theirs) = (ids(&ours), ids(&theirs));
        let first = ours
            .iter()
            .zip(&theirs)
            .position(|(one, other)| one != other);
        assert_eq!(first, None, "{split}");
        assert_eq!(ours.len(), theirs.len(), "{split}");
        assert_eq!(ours.len() as u64, counts[split].as_u64().unwrap());
    }
}
