//! Tasks as they are asked for: `hellaswag,lambada:my.jsonl,val.bin`.

use std::path::{Path, PathBuf};

use super::EvalsError;
use crate::terms::expand_home;

/// Least Jaro-Winkler similarity of a name to one that was probably meant.
const SIMILAR: f64 = 0.8;

/// A benchmark with examples of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Benchmark {
    HellaSwag,
    Lambada,
}

impl Benchmark {
    pub const ALL: [Benchmark; 2] = [Benchmark::HellaSwag, Benchmark::Lambada];

    pub fn name(self) -> &'static str {
        match self {
            Self::HellaSwag => "hellaswag",
            Self::Lambada => "lambada",
        }
    }

    fn named(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|benchmark| benchmark.name() == name)
    }
}

/// One task of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskRequest {
    /// The name in results: that of the benchmark, or the path as it was typed.
    pub name: String,
    /// `None` for the perplexity of a file.
    pub benchmark: Option<Benchmark>,
    /// `None` for the file that the benchmark is published with.
    pub path: Option<PathBuf>,
}

impl TaskRequest {
    /// Reads a list with commas between its tasks: `hellaswag` and `lambada`, each with `:PATH` for a file of its
    /// examples, and paths of files whose perplexity is asked for. JSON lines whose name begins with that of a
    /// benchmark are taken for it.
    ///
    /// # Errors
    /// `NoTask`, `UnknownTask` and `WhichTask`.
    pub fn list(text: &str) -> Result<Vec<Self>, EvalsError> {
        let words = text.split(',').map(str::trim);
        words.map(Self::parse).collect()
    }

    fn parse(word: &str) -> Result<Self, EvalsError> {
        if word.is_empty() {
            return Err(EvalsError::NoTask);
        }
        let benchmark = |benchmark: Benchmark, path: Option<PathBuf>| Self {
            name: benchmark.name().into(),
            benchmark: Some(benchmark),
            path,
        };
        if let Some(named) = Benchmark::named(word) {
            return Ok(benchmark(named, None));
        }
        if let Some((name, path)) = word.split_once(':')
            && !path.is_empty()
            && !Path::new(word).exists()
        {
            let named = Benchmark::named(name).ok_or_else(|| EvalsError::unknown(word, name))?;
            return Ok(benchmark(named, Some(expand_home(path))));
        }
        let path = expand_home(word);
        if is_json_lines(&path) {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let mut all = Benchmark::ALL.into_iter();
            let of = all.find(|benchmark| name.to_lowercase().starts_with(benchmark.name()));
            return match of {
                Some(of) => Ok(benchmark(of, Some(path))),
                None => Err(EvalsError::WhichTask { path }),
            };
        }
        let looks_like_a_path = word.contains(['/', '.']);
        if !looks_like_a_path && !path.exists() {
            return Err(EvalsError::unknown(word, word));
        }
        Ok(Self {
            name: word.into(),
            benchmark: None,
            path: Some(path),
        })
    }
}

impl EvalsError {
    /// No task is called `name`, in the word `typed`.
    fn unknown(typed: &str, name: &str) -> Self {
        let names = Benchmark::ALL.map(Benchmark::name).into_iter();
        let similar = names.map(|known| (strsim::jaro_winkler(&name.to_lowercase(), known), known));
        let nearest = similar
            .filter(|(similarity, _)| *similarity >= SIMILAR)
            .max_by(|a, b| a.0.total_cmp(&b.0));
        Self::UnknownTask {
            name: typed.into(),
            nearest: nearest.map(|(_, known)| known),
        }
    }
}

fn is_json_lines(path: &Path) -> bool {
    let extension = path.extension().unwrap_or_default();
    ["jsonl", "ndjson", "json"]
        .iter()
        .any(|known| extension.eq_ignore_ascii_case(known))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_names_benchmarks_their_files_and_files() {
        let tasks = TaskRequest::list("hellaswag, lambada:a/b.jsonl,val.bin,x/Lambada_de.jsonl");
        let task = |name: &str, benchmark, path: Option<&str>| TaskRequest {
            name: name.into(),
            benchmark,
            path: path.map(PathBuf::from),
        };
        let (hellaswag, lambada) = (Some(Benchmark::HellaSwag), Some(Benchmark::Lambada));
        assert_eq!(
            tasks.unwrap(),
            [
                task("hellaswag", hellaswag, None),
                task("lambada", lambada, Some("a/b.jsonl")),
                task("val.bin", None, Some("val.bin")),
                task("lambada", lambada, Some("x/Lambada_de.jsonl")),
            ]
        );
    }

    #[test]
    fn a_name_that_is_no_task_is_answered_with_the_nearest() {
        for (typed, expected) in [
            ("helaswag", Some("hellaswag")),
            ("HellaSwag", Some("hellaswag")),
            ("lambada_openai", Some("lambada")),
            ("lambda:x.jsonl", Some("lambada")),
            ("piqa", None),
        ] {
            match TaskRequest::list(typed).unwrap_err() {
                EvalsError::UnknownTask { name, nearest } => {
                    assert_eq!((name.as_str(), nearest), (typed, expected));
                }
                other => panic!("{typed}: {other}"),
            }
        }
        let other = TaskRequest::list("piqa.jsonl").unwrap_err();
        assert!(matches!(other, EvalsError::WhichTask { .. }), "{other}");
        let none = TaskRequest::list("hellaswag,").unwrap_err();
        assert!(matches!(none, EvalsError::NoTask), "{none}");
    }
}
