//! The report for people, in the manner of the block before a run.

use std::fmt::Write;

use super::{Report, Status};

/// Wide enough for the longest subject, "checkpoints".
const LABEL_WIDTH: usize = 13;

pub(super) fn render(report: &Report) -> String {
    let mut text = format!("taper {}\n", report.taper);
    let mut subject = "";
    for finding in &report.findings {
        // Several findings about one thing have its name once.
        let label = if finding.subject == subject {
            ""
        } else {
            finding.subject
        };
        subject = finding.subject;
        let status = match finding.status {
            Status::Ok => "",
            Status::Note => "note: ",
            Status::Problem => "problem: ",
        };
        // Writing to a String cannot fail.
        let _ = writeln!(text, "  {label:LABEL_WIDTH$}{status}{}", finding.text);
        if let Some(suggestion) = &finding.suggestion {
            let indented = format!("\n  {:LABEL_WIDTH$}", "");
            let suggestion = suggestion.replace('\n', &indented);
            let _ = writeln!(text, "  {:LABEL_WIDTH$}hint: {suggestion}", "");
        }
    }
    let _ = writeln!(
        text,
        "{}, {}",
        counted(report.problems, "problem"),
        counted(report.notes, "note")
    );
    text
}

fn counted(n: usize, noun: &str) -> String {
    match n {
        0 => format!("no {noun}s"),
        1 => format!("1 {noun}"),
        _ => format!("{n} {noun}s"),
    }
}
