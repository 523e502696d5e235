//! A preparation that is killed before any of its changes to the file system, and goes on.

use std::fs;
use std::slice::from_ref;

use tempfile::TempDir;

use super::staging::tests::kill_after;
use super::*;

/// Records after every block of a few bytes.
const SMALL_STEPS: Pace = Pace {
    block_bytes: 150,
    record_every: Duration::ZERO,
};

fn request(files: &[PathBuf], tokenizer: TokenizerKind, out: &Path) -> PrepareRequest {
    PrepareRequest {
        files: files.iter().cloned().map(RequestedFile::from).collect(),
        field: "text".into(),
        tokenizer,
        out: out.to_owned(),
        val_fraction: 0.3,
        expected: None,
        origin: None,
    }
}

fn make(request: &PrepareRequest) -> Result<Prepared, PrepareError> {
    let interrupted = AtomicBool::new(false);
    prepare_at(SMALL_STEPS, request, &ProgressBar::hidden(), &interrupted)
}

fn files_of(out: &Path) -> Vec<(String, Vec<u8>)> {
    let entries = fs::read_dir(out).unwrap().map(Result::unwrap);
    let mut files: Vec<_> = entries
        .map(|entry| {
            let name = entry.file_name().into_string().unwrap();
            (name, fs::read(entry.path()).unwrap())
        })
        .collect();
    files.sort();
    files
}

/// Inputs of each kind, some documents each.
fn inputs(folder: &Path) -> Vec<PathBuf> {
    let lines: String = (0..9)
        .map(|n| format!("{{\"text\": \"line {n} of\\nsome\"}}\r\n{{\"text\": null}}\n"))
        .collect();
    let text = "a text\r\nwith ends\rof all kinds\n".repeat(4);
    let packed = {
        use std::io::Write;
        let level = flate2::Compression::default();
        let mut writer = flate2::write::GzEncoder::new(Vec::new(), level);
        writer.write_all(text.as_bytes()).unwrap();
        writer.finish().unwrap()
    };
    let rows: Vec<Option<String>> = (0..12)
        .map(|n| (n % 5 != 3).then(|| format!("row {n} with some words")))
        .collect();
    let files = [
        ("a.jsonl", lines.into_bytes()),
        ("b.txt", text.into_bytes()),
        ("c.txt.gz", packed),
        ("d.parquet", table::tests::table(&rows, 4)),
    ];
    let write = |(name, bytes): (&str, Vec<u8>)| {
        let path = folder.join(name);
        fs::write(&path, bytes).unwrap();
        path
    };
    files.into_iter().map(write).collect()
}

/// Kills a preparation before each of its changes in turn, and runs it again; all results are as of an undisturbed run. Returns the kills after which work was not done again.
fn kill_everywhere(files: &[PathBuf], tokenizer: TokenizerKind, replaces: bool) -> u64 {
    let place = TempDir::new().unwrap();
    let undisturbed = place.path().join("undisturbed");
    make(&request(files, tokenizer, &undisturbed)).unwrap();
    let expected = files_of(&undisturbed);
    let mut resumed = 0;
    for kills in 0.. {
        let place = TempDir::new().unwrap();
        let out = place.path().join("out");
        if replaces {
            fs::create_dir(&out).unwrap();
            let old = place.path().join("old.txt");
            fs::write(&old, "the dataset of yesterday").unwrap();
            make(&request(from_ref(&old), TokenizerKind::Char, &out)).unwrap();
            fs::remove_file(old).unwrap();
        }
        let request = request(files, tokenizer, &out);
        kill_after(kills);
        let killed = make(&request).is_err();
        // A second kill, soon after the first.
        kill_after(7);
        let _ = killed.then(|| make(&request));
        kill_after(u64::MAX);
        let made = make(&request).unwrap();
        let is_resumed = made
            .notes
            .iter()
            .any(|note| matches!(note, Note::Resumed { .. }));
        resumed += u64::from(is_resumed);
        assert_eq!(files_of(&out), expected, "killed before change {kills}");
        let beside: Vec<_> = fs::read_dir(place.path()).unwrap().collect();
        assert_eq!(beside.len(), 1, "{beside:?}");
        if !killed {
            return resumed;
        }
    }
    unreachable!("a preparation makes finitely many changes")
}

#[test]
fn a_kill_before_any_change_ends_in_the_files_of_an_undisturbed_run() {
    let folder = TempDir::new().unwrap();
    let files = inputs(folder.path());
    for replaces in [false, true] {
        let resumed = kill_everywhere(&files, TokenizerKind::Char, replaces);
        assert!(resumed > 20, "{resumed}");
    }
}

#[test]
fn a_kill_in_a_single_text_keeps_its_division() {
    let folder = TempDir::new().unwrap();
    let files = inputs(folder.path());
    for single in [1, 2] {
        let resumed = kill_everywhere(&files[single..=single], TokenizerKind::Char, false);
        assert!(resumed > 5, "{resumed}");
    }
}

#[test]
fn the_journal_never_goes_back() {
    let folder = TempDir::new().unwrap();
    let lines: String = (0..99)
        .map(|n| format!("{{\"text\": \"line {n}\"}}\n"))
        .collect();
    let path = folder.path().join("a.jsonl");
    fs::write(&path, lines).unwrap();
    let out = folder.path().join("out");
    let request = request(&[path], TokenizerKind::Char, &out);
    let mut documents = 0;
    for kills in (10..).step_by(10) {
        kill_after(kills);
        let made = make(&request);
        kill_after(u64::MAX);
        let Err(_) = made else {
            assert!(documents > 20, "{documents}");
            return;
        };
        let sources = input::open(&request.files, "text").unwrap();
        let identity = Identity::of(&request, &sources).unwrap();
        if let Found::Same(done) = journal::read(&out.join(".prepare"), &identity).unwrap() {
            let found = done.progress.position.documents;
            assert!(found >= documents, "{found} after {documents}");
            documents = found;
        }
    }
}

#[test]
fn another_request_starts_over_and_says_why() {
    let folder = TempDir::new().unwrap();
    let files = inputs(folder.path());
    let out = folder.path().join("out");
    let first = request(&files, TokenizerKind::Char, &out);
    let why = |second: &PrepareRequest| {
        kill_after(60);
        make(&first).unwrap_err();
        kill_after(u64::MAX);
        let made = make(second).unwrap();
        fs::remove_dir_all(&out).unwrap();
        let why = made.notes.into_iter().find_map(|note| match note {
            Note::StartedOver { why } => Some(why),
            _ => None,
        });
        why.unwrap_or_default()
    };
    assert_eq!(why(&first), "");
    let with_fraction = PrepareRequest {
        val_fraction: 0.4,
        ..first.clone()
    };
    assert_eq!(why(&with_fraction), "`--val-fraction` was 0.3");
    let with_words = request(&files, TokenizerKind::Gpt2, &out);
    assert_eq!(why(&with_words), "the tokenizer was another");
    let with_fewer = request(&files[..3], TokenizerKind::Char, &out);
    assert_eq!(why(&with_fewer), "there were 4 input files, now 3");
    kill_after(60);
    make(&first).unwrap_err();
    kill_after(u64::MAX);
    fs::write(&files[1], "another text").unwrap();
    let made = make(&first).unwrap();
    let is_changed = |note: &Note| matches!(note, Note::StartedOver { why } if why.ends_with("b.txt` has changed since"));
    assert!(made.notes.iter().any(is_changed), "{:?}", made.notes);
}

/// A journal of any damaged bytes is no reason to fail, or to make other files.
#[test]
fn a_damaged_journal_is_thrown_away() {
    let folder = TempDir::new().unwrap();
    let files = inputs(folder.path());
    let undisturbed = folder.path().join("undisturbed");
    make(&request(&files, TokenizerKind::Gpt2, &undisturbed)).unwrap();
    for quarters in 0..4 {
        let out = folder.path().join("out");
        let request = request(&files, TokenizerKind::Gpt2, &out);
        kill_after(60);
        make(&request).unwrap_err();
        kill_after(u64::MAX);
        let journal = out.join(".prepare").join(staging::JOURNAL_FILE);
        let mut bytes = fs::read(&journal).unwrap();
        bytes.truncate(bytes.len() * quarters / 4);
        fs::write(&journal, bytes).unwrap();
        make(&request).unwrap();
        assert_eq!(files_of(&out), files_of(&undisturbed));
        fs::remove_dir_all(&out).unwrap();
    }
}
