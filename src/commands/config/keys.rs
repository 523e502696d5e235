//! `taper config keys`: every key with its meaning, its default and its valid values.

use std::fmt::Write as _;

use serde_json::json;

use crate::commands::{print_now, until_reader_leaves};
use crate::config::{KeyExplanation, explain_keys, sections};
use crate::error::{Error, Result};

/// List the keys: meaning, default, valid values, nanoGPT's name
#[derive(Clone, Debug, clap::Args)]
pub struct KeysArgs {
    /// A section or a key, such as `optimizer` or `learning_rate` [default: every key]
    #[arg(value_name = "SECTION|KEY")]
    pub name: Option<String>,
    /// Print a JSON array with one object for each key
    #[arg(long)]
    pub json: bool,
}

pub(super) fn run(args: &KeysArgs) -> Result<()> {
    let keys = explain_keys(args.name.as_deref()).map_err(|unknown| Error::Usage {
        what: unknown.what,
        hint: unknown.hint,
    })?;
    let text = if args.json {
        format!("{:#}\n", json!(keys))
    } else {
        text(&keys)
    };
    until_reader_leaves(print_now(&text))
}

/// The keys below the headings of their sections.
fn text(keys: &[KeyExplanation]) -> String {
    let mut text = String::new();
    for (section, meaning) in sections() {
        let mut keys = keys.iter().filter(|key| key.section == section).peekable();
        if keys.peek().is_none() {
            continue;
        }
        let gap = if text.is_empty() { "" } else { "\n" };
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{gap}[{section}]  {meaning}");
        for key in keys {
            add(&mut text, key);
        }
    }
    text
}

fn add(text: &mut String, key: &KeyExplanation) {
    let default = match (&key.default_toml, key.absent) {
        (Some(default), _) => format!(" = {default}"),
        (None, Some(absent)) => format!(", absent by default: {absent}"),
        (None, None) => String::new(),
    };
    let origin = match (key.nanogpt, key.nanogpt_instead) {
        (Some(name), _) => format!("nanoGPT's `{name}`"),
        (None, Some(instead)) => format!("taper's own key: {instead}"),
        (None, None) => "taper's own key".into(),
    };
    // Writing to a String cannot fail.
    let _ = write!(
        text,
        "\n  {}{default}\n      {}\n      {}\n      {origin}\n",
        key.name, key.meaning, key.valid
    );
}
