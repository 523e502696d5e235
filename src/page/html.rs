//! Pieces of HTML. Every text from a run goes through [`escaped`].

pub(super) use crate::chart::escaped;

/// A section with its heading.
pub(super) fn section(id: &str, title: &str, body: &str) -> String {
    format!(
        "<section id=\"{id}\" aria-labelledby=\"{id}-title\">\n<h2 id=\"{id}-title\">{}</h2>\n{body}</section>\n",
        escaped(title)
    )
}

/// A cell: its HTML, and whether it is a number.
pub(super) struct Cell {
    html: String,
    class: &'static str,
}

impl Cell {
    pub fn text(text: &str) -> Self {
        Self::html(escaped(text))
    }

    pub fn number(text: &str) -> Self {
        Self {
            html: escaped(text),
            class: "number",
        }
    }

    pub fn html(html: String) -> Self {
        Self { html, class: "" }
    }

    /// A bar for a share from 0 to 1.
    pub fn bar(share: f64) -> Self {
        let percent = 100.0 * share.clamp(0.0, 1.0);
        Self {
            html: format!("<div style=\"width:{percent:.1}%\"></div>"),
            class: "bar",
        }
    }
}

/// A table whose first column heads its rows. On a narrow screen it becomes a list with the columns' names, where
/// `is_stacked`.
pub(super) fn table(columns: &[(&str, bool)], rows: Vec<Vec<Cell>>, is_stacked: bool) -> String {
    let head = columns.iter().map(|(name, is_number)| {
        let class = if *is_number { " class=\"number\"" } else { "" };
        format!("<th scope=\"col\"{class}>{}</th>", escaped(name))
    });
    let head: String = head.collect();
    let mut body = String::new();
    for row in rows {
        body += "<tr>";
        for (index, cell) in row.into_iter().enumerate() {
            let mut attributes = String::new();
            if !cell.class.is_empty() {
                attributes += &format!(" class=\"{}\"", cell.class);
            }
            if index == 0 {
                body += &format!("<th scope=\"row\"{attributes}>{}</th>", cell.html);
                continue;
            }
            if is_stacked {
                let name = columns.get(index).map_or("", |column| column.0);
                attributes += &format!(" data-name=\"{}\"", escaped(name));
            }
            body += &format!("<td{attributes}>{}</td>", cell.html);
        }
        body += "</tr>\n";
    }
    let class = if is_stacked { " class=\"stack\"" } else { "" };
    format!(
        "<div class=\"scroll\" tabindex=\"0\"><table{class}>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}</tbody>\n</table></div>\n"
    )
}

/// Something that is opened on request.
pub(super) fn details(summary: &str, body: &str) -> String {
    format!(
        "<details><summary>{}</summary>\n{body}</details>\n",
        escaped(summary)
    )
}

/// A JSON document inside a `<script>`: `<` cannot end it.
pub(super) fn inside_script(json: &str) -> String {
    json.replace('<', "\\u003c")
        .replace('>', "\\u003e")
        .replace('\u{2028}', "\\u2028")
        .replace('\u{2029}', "\\u2029")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_cannot_end_its_script() {
        let json = inside_script(r#"{"name":"</script><!--"}"#);
        assert_eq!(json, r#"{"name":"\u003c/script\u003e\u003c!--"}"#);
        let value: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(value["name"], "</script><!--");
    }

    #[test]
    fn a_cell_cannot_become_markup() {
        let table = table(&[("<b>", false)], vec![vec![Cell::text("<i>")]], true);
        assert!(table.contains("&lt;b&gt;") && table.contains("&lt;i&gt;"));
        assert!(!table.contains("<b>") && !table.contains("<i>"));
    }
}
