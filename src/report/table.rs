//! Tables of text: every column as wide as its widest cell.

/// The side of a column that its cells stand at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Align {
    Left,
    /// For numbers.
    Right,
}

/// Space between two columns.
const GAP: &str = "  ";

/// A line of headings and one for each row, without a newline at the end. Widths are counted in characters. A row that is
/// shorter than the headings ends in empty cells; no line ends in spaces.
pub fn aligned(headings: &[(&str, Align)], rows: &[Vec<String>]) -> String {
    let names: Vec<String> = headings.iter().map(|(name, _)| (*name).into()).collect();
    let lines: Vec<&[String]> = [names.as_slice()]
        .into_iter()
        .chain(rows.iter().map(Vec::as_slice))
        .collect();
    let cell = |line: &[String], at: usize| line.get(at).cloned().unwrap_or_default();
    let widths: Vec<usize> = (0..headings.len())
        .map(|at| {
            let lengths = lines.iter().map(|line| cell(line, at).chars().count());
            lengths.max().unwrap_or(0)
        })
        .collect();
    let line_text = |line: &&[String]| {
        let cells = headings.iter().zip(&widths).enumerate();
        let cells = cells.map(|(at, ((_, align), width))| match align {
            Align::Left => format!("{:<width$}", cell(line, at)),
            Align::Right => format!("{:>width$}", cell(line, at)),
        });
        let text = cells.collect::<Vec<_>>().join(GAP);
        text.trim_end().to_owned()
    };
    lines.iter().map(line_text).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell_and_lines_end_without_spaces() {
        let rows = [
            vec!["a".into(), "1.5".into(), "x".into()],
            vec!["größer".into(), "12.25".into()],
        ];
        let headings = [
            ("name", Align::Left),
            ("loss", Align::Right),
            ("", Align::Left),
        ];
        assert_eq!(
            aligned(&headings, &rows),
            "name     loss\na         1.5  x\ngrößer  12.25"
        );
    }

    #[test]
    fn a_table_without_rows_is_its_headings() {
        assert_eq!(aligned(&[("a", Align::Right)], &[]), "a");
        assert_eq!(aligned(&[], &[]), "");
    }
}
