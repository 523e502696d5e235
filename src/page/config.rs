//! The config of a run: what differs from its preset, and every key.

use serde_json::Value;

use super::html::{Cell, details, escaped, section, table};
use crate::record::{RunRecord, value_text};
use crate::runs::Run;

pub(super) fn differences(run: &Run) -> String {
    let Some(description) = &run.description else {
        return String::new();
    };
    let base = base(description);
    let body = if description.differs.is_empty() {
        format!(
            "<p>Nothing: every key has the value of {}.</p>\n",
            escaped(&base)
        )
    } else {
        let rows = description.differs.iter().map(|(key, difference)| {
            let code =
                |value: &Value| Cell::html(format!("<code>{}</code>", escaped(&value_text(value))));
            vec![
                Cell::html(format!("<code>{}</code>", escaped(key))),
                code(&difference.run),
                code(&difference.preset),
            ]
        });
        let from = match description.preset {
            Some(_) => "Preset",
            None => "Default",
        };
        table(
            &[("Key", false), ("This run", false), (from, false)],
            rows.collect(),
            true,
        )
    };
    let title = match description.preset {
        Some(_) => "Different from the preset",
        None => "Different from the defaults",
    };
    let source = format!(
        "<p class=\"note\">The run was started with <code>--config {}</code>.</p>\n",
        escaped(&description.source)
    );
    section("differences", title, &(source + &body))
}

fn base(description: &RunRecord) -> String {
    match &description.preset {
        Some(preset) => format!("the preset {preset}"),
        None => "the defaults".into(),
    }
}

/// Every key with its value, a table for each section.
pub(super) fn all(run: &Run) -> String {
    let Some(sections) = run.config.as_ref().and_then(Value::as_object) else {
        return String::new();
    };
    let differs = |section: &str, key: &str| {
        let description = run.description.as_ref();
        description.is_some_and(|description| {
            description
                .differs
                .contains_key(&format!("{section}.{key}"))
        })
    };
    let mut tables = String::new();
    for (name, keys) in sections {
        let Some(keys) = keys.as_object().filter(|keys| !keys.is_empty()) else {
            continue;
        };
        tables += &format!(
            "<div><h3>[{}]</h3>\n<table class=\"keys\"><tbody>\n",
            escaped(name)
        );
        for (key, value) in keys {
            let class = if differs(name, key) {
                " class=\"changed\""
            } else {
                ""
            };
            tables += &format!(
                "<tr{class}><th scope=\"row\"><code>{}</code></th><td><code>{}</code></td></tr>\n",
                escaped(key),
                escaped(&value_text(value))
            );
        }
        tables += "</tbody></table></div>\n";
    }
    let body = details(
        "Every key",
        &format!("<div class=\"sections\">\n{tables}</div>\n"),
    );
    section("config", "Config", &body)
}
