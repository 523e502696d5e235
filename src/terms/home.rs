//! The home folder in paths that no shell has seen: those of a config, a `--set` or `--flag=~/x`.

use std::env;
use std::path::{Path, PathBuf};

/// `path` with `~` at its start as the home folder. Any other path is as it was, `~user/x` too.
pub fn expand_home(path: impl AsRef<Path>) -> PathBuf {
    let path = path.as_ref();
    match (path.strip_prefix("~"), env::home_dir()) {
        (Ok(rest), Some(home)) if rest == Path::new("") => home,
        (Ok(rest), Some(home)) => home.join(rest),
        _ => path.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_tilde_of_its_own_at_the_start_is_the_home_folder() {
        let home = env::home_dir().unwrap();
        assert_eq!(expand_home("~"), home);
        assert_eq!(expand_home("~/a/b"), home.join("a/b"));
        for other in ["a/~", "./~/a", "~user/a", "", "/~"] {
            assert_eq!(expand_home(other), Path::new(other));
        }
    }
}
