//! What an installed binary says of itself: commands to try, completions, manual pages, its keys.

use std::fs;
use std::process::{Command, Stdio};

use clap::{CommandFactory, Parser};
use serde_json::Value;
use taper::cli::Cli;
use taper::commands::welcome::FIRST_COMMANDS;
use tempfile::tempdir;

#[allow(dead_code, reason = "nothing is trained")]
mod process;

use process::taper;

/// Every verb that is not hidden.
fn verbs() -> Vec<String> {
    let cli = Cli::command();
    let verbs = cli.get_subcommands().filter(|verb| !verb.is_hide_set());
    verbs.map(|verb| verb.get_name().to_owned()).collect()
}

#[test]
fn taper_alone_shows_three_commands_and_each_of_them_is_one() {
    let folder = tempdir().unwrap();
    let shown = taper(folder.path(), &[]).succeeded();
    assert_eq!(shown.stderr, "");
    for (command, _) in FIRST_COMMANDS {
        assert!(shown.stdout.contains(command), "{}", shown.stdout);
        let words = command.replace("\"pub fn \"", "pub");
        Cli::try_parse_from(words.split(' ')).unwrap_or_else(|error| panic!("{error}"));
    }
    assert!(shown.stdout.lines().count() < 16, "{}", shown.stdout);
    // The last of them needs no data.
    let plan: Vec<&str> = FIRST_COMMANDS[2].0.split(' ').skip(1).collect();
    taper(folder.path(), &plan).succeeded();
}

#[test]
fn help_lists_every_verb_and_preset() {
    let folder = tempdir().unwrap();
    let help = taper(folder.path(), &["--help"]).succeeded().stdout;
    for verb in verbs() {
        let line = format!("  {verb} ");
        assert!(help.lines().any(|it| it.starts_with(&line)), "{help}");
    }
    for preset in taper::config::PRESETS {
        assert!(help.contains(&format!("  {}.toml", preset.name)), "{help}");
    }
}

#[test]
fn completions_name_every_verb_and_flag_in_every_shell() {
    let folder = tempdir().unwrap();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = taper(folder.path(), &["completions", shell])
            .succeeded()
            .stdout;
        for word in verbs()
            .iter()
            .map(String::as_str)
            .chain(["eval-only", "keys"])
        {
            assert!(script.contains(word), "{word} is not in that of {shell}");
        }
    }
}

#[test]
fn a_shell_that_has_no_completions_is_refused_with_those_that_have() {
    let folder = tempdir().unwrap();
    let outcome = taper(folder.path(), &["completions", "tcsh"]);
    assert_eq!(outcome.code, Some(1));
    assert!(outcome.stderr.contains("bash"), "{}", outcome.stderr);
}

/// Completes a line in bash, if there is one.
fn completed(script: &str, words: &[&str]) -> Option<String> {
    let folder = tempdir().unwrap();
    let path = folder.path().join("taper.bash");
    fs::write(&path, script).unwrap();
    let last = words.len() - 1;
    let program = format!(
        "source {}; COMP_WORDS=({}); COMP_CWORD={last}; _taper taper \"{}\" \"{}\"; echo \"${{COMPREPLY[@]}}\"",
        path.display(),
        words.join(" "),
        words[last],
        words[last - 1],
    );
    let bash = Command::new("bash")
        .args(["--norc", "-c", &program])
        .stdin(Stdio::null())
        .output()
        .ok()?;
    let stderr = String::from_utf8_lossy(&bash.stderr);
    assert!(bash.status.success(), "{stderr}");
    Some(String::from_utf8(bash.stdout).unwrap())
}

#[test]
fn bash_completes_verbs_and_flags() {
    let folder = tempdir().unwrap();
    let script = taper(folder.path(), &["completions", "bash"])
        .succeeded()
        .stdout;
    for (words, expected) in [
        (vec!["taper", "conv"], "convert"),
        (vec!["taper", "config", "ke"], "keys"),
        (vec!["taper", "train", "--eval"], "--eval-only"),
    ] {
        if let Some(reply) = completed(&script, &words) {
            assert_eq!(reply.trim(), expected);
        }
    }
}

#[test]
fn a_manual_page_is_printed_and_one_is_written_for_each_verb() {
    let folder = tempdir().unwrap();
    let page = taper(folder.path(), &["man"]).succeeded().stdout;
    assert!(page.contains(".TH taper 1"), "{page}");
    for verb in verbs() {
        assert!(
            page.contains(&format!("taper\\-{verb}(1)")),
            "{verb}: {page}"
        );
    }
    // Twice: pages of an earlier version are replaced.
    for _ in 0..2 {
        let written = taper(folder.path(), &["man", "--out", "man/man1"]).succeeded();
        assert_eq!(written.stdout, "man/man1\n");
    }
    let pages = folder.path().join("man/man1");
    let names = [
        "taper",
        "taper-train",
        "taper-bench-step",
        "taper-config-keys",
    ];
    let verbs = verbs().into_iter().map(|verb| format!("taper-{verb}"));
    for name in verbs.chain(names.map(String::from)) {
        let page = fs::read_to_string(pages.join(format!("{name}.1"))).unwrap();
        assert!(page.contains(&format!(".TH {name} 1")), "{page}");
        assert!(page.contains(".SH SYNOPSIS"), "{page}");
    }
    let train = fs::read_to_string(pages.join("taper-train.1")).unwrap();
    assert!(
        train.contains("\\-\\-eval\\-only") && !train.contains("inject"),
        "{train}"
    );
}

#[test]
fn a_file_that_is_no_page_of_taper_s_stays_and_no_page_is_written() {
    let folder = tempdir().unwrap();
    let mine = folder.path().join("taper-train.1");
    fs::write(&mine, "mine\n").unwrap();
    taper(folder.path(), &["man", "--out", "."])
        .refused(&["`./taper-train.1` is there and is no manual page of taper's"]);
    assert_eq!(fs::read_to_string(&mine).unwrap(), "mine\n");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn a_config_that_is_shown_trains_the_same() {
    let folder = tempdir().unwrap();
    let path = folder.path();
    let sets = ["--set", "train.max_iters=7"];
    let show = [&["config", "show", "quickstart.toml"][..], &sets].concat();
    let shown = taper(path, &show).succeeded();
    assert_eq!(shown.stderr, "");
    assert!(
        shown
            .stdout
            .starts_with("# `quickstart.toml --set train.max_iters=7` as taper ")
    );
    fs::write(path.join("mine.toml"), &shown.stdout).unwrap();
    let again = taper(path, &["config", "show", "mine.toml"]).succeeded();
    let below = |text: &str| text.split_once("\n#\n").unwrap().1.to_owned();
    assert_eq!(below(&again.stdout), below(&shown.stdout));
    taper(path, &["config", "show", "mine.tml"]).refused(&["no file and no preset", "mine.tml"]);
}

#[test]
fn a_heading_takes_no_line_feed_of_a_name() {
    let folder = tempdir().unwrap();
    let name = "a\nseed = 5 \u{7}.toml";
    fs::write(folder.path().join(name), "[train]\nseed = 3\n").unwrap();
    let shown = taper(folder.path(), &["config", "show", name])
        .succeeded()
        .stdout;
    fs::write(folder.path().join("b.toml"), shown).unwrap();
    let again = taper(folder.path(), &["config", "show", "b.toml"]).succeeded();
    assert!(
        again.stdout.contains("\nseed = 3 # * default: 1337\n"),
        "{}",
        again.stdout
    );
}

#[test]
fn keys_are_listed_for_people_and_for_programs() {
    let folder = tempdir().unwrap();
    let keys = |arguments: &[&str]| {
        let arguments = [&["config", "keys"], arguments].concat();
        taper(folder.path(), &arguments)
    };
    let text = keys(&["learning_rate"]).succeeded().stdout;
    assert_eq!(
        text,
        "[optimizer]  AdamW and its learning rate.\n\n  learning_rate = 6e-4\n      \
         The largest learning rate, reached when the warm-up ends.\n      a number above 0\n      \
         nanoGPT's `learning_rate`\n"
    );
    let all = keys(&[]).succeeded().stdout;
    let objects: Value = serde_json::from_str(&keys(&["--json"]).succeeded().stdout).unwrap();
    for key in objects.as_array().unwrap() {
        let name = key["name"].as_str().unwrap();
        let starts = |line: &str| {
            let rest = line
                .strip_prefix("  ")
                .and_then(|line| line.strip_prefix(name));
            rest.is_some_and(|rest| rest.starts_with(" = ") || rest.starts_with(", absent"))
        };
        assert!(all.lines().any(starts), "{name}");
        assert!(key["meaning"].as_str().unwrap().ends_with('.'), "{key}");
        assert!(!key["valid"].as_str().unwrap().is_empty(), "{key}");
    }
    let rate = &objects
        .as_array()
        .unwrap()
        .iter()
        .find(|key| key["name"] == "learning_rate");
    let rate = rate.unwrap();
    assert_eq!(
        (&rate["default"], &rate["nanogpt"]),
        (&6e-4.into(), &"learning_rate".into())
    );
    keys(&["lerning_rate"]).refused(&["did you mean `optimizer.learning_rate`?"]);
}

#[test]
fn an_import_is_printed_or_written_once_and_notes_go_to_stderr() {
    let folder = tempdir().unwrap();
    let path = folder.path();
    fs::write(path.join("my.py"), "n_layer = 2\ncompile = True\n").unwrap();
    let printed = taper(path, &["config", "import", "my.py"]).succeeded();
    assert!(
        printed
            .stdout
            .starts_with("# From my.py, a config of nanoGPT.\n")
    );
    assert!(
        printed.stderr.contains("left out: `compile`"),
        "{}",
        printed.stderr
    );
    assert_eq!(fs::read_dir(path).unwrap().count(), 1);
    let import = ["config", "import", "my.py", "--out", "mine.toml"];
    let written = taper(path, &import).succeeded();
    assert_eq!(written.stdout, "mine.toml\n");
    assert_eq!(
        fs::read_to_string(path.join("mine.toml")).unwrap(),
        printed.stdout
    );
    taper(path, &import).refused(&["`mine.toml` exists, and nothing is overwritten"]);
    assert_eq!(fs::read_dir(path).unwrap().count(), 2);
    let nowhere = taper(
        path,
        &["config", "import", "my.py", "--out", "none/mine.toml"],
    );
    assert_eq!(nowhere.code, Some(1), "{}", nowhere.stderr);
    assert_eq!(fs::read_dir(path).unwrap().count(), 2);
}
