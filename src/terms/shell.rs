//! Words of a shell command.

use std::path::Path;

/// `path` as one word of a shell command: in quotes where a shell would read it otherwise.
pub fn shell_word(path: &Path) -> String {
    let path = path.display().to_string();
    let plain = |c: char| c.is_alphanumeric() || "/._-+=:,@%".contains(c);
    if !path.is_empty() && path.chars().all(plain) {
        path
    } else {
        format!("'{}'", path.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_can_be_pasted_whatever_it_is_called() {
        let cases = [
            ("out/step-250", "out/step-250"),
            ("out/my run", "'out/my run'"),
            ("it's", r"'it'\''s'"),
            ("~/a", "'~/a'"),
            ("", "''"),
        ];
        for (path, word) in cases {
            assert_eq!(shell_word(Path::new(path)), word);
        }
    }
}
