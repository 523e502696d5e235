//! Evaluations beyond the loss of a dataset: benchmarks, and the perplexity of any file.
//!
//! | task | protocol | metrics |
//! |---|---|---|
//! | `hellaswag` | llm.c's `dev/data/hellaswag.py` | acc: the ending with the smallest sum of losses is right; acc_norm: with the smallest mean |
//! | `lambada` | lm-evaluation-harness' `lambada_openai` | acc: every token of the last word is the likeliest; perplexity: exp of the mean loss of a last word |
//! | a file | windows of block_size tokens without overlap | loss: mean over all tokens of the file but the first; its perplexity; of text, bits per byte |
//!
//! A [`TaskRequest`] is what was asked for, [`find()`] finds its file or downloads it, [`Loader`] makes a [`Task`] of it,
//! and [`Task::score`] has its tokens scored by a model and sums up.

mod download;
mod error;
mod find;
mod hellaswag;
mod jsonl;
mod lambada;
mod loader;
mod perplexity;
mod request;
mod score;
mod sequences;
mod task;

pub use download::{PublicFile, fetch};
pub use error::EvalsError;
pub use find::find;
pub use loader::Loader;
pub use request::{Benchmark, TaskRequest};
pub use score::{Metrics, Score};
pub use task::Task;
