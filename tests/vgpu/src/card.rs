//! What the card is: a built-in one, or a TOML file that may start from a built-in one and change it.
//!
//! `VGPU_CARD` holds a name or a path. `VGPU_FAIL` adds to the failures that the file plans, `VGPU_DRIVER`,
//! `VGPU_ORDER` and `VGPU_LAZY_MIB` replace what it says of these.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::{env, fs, io};

use serde::{Deserialize, Deserializer};
use toml::{Table, Value};

use crate::driver::age::oldest_driver;
use crate::libraries;
use crate::order::{ORDER_VARIABLE, Order};

/// The environment variable that says which card this is.
pub const CARD_VARIABLE: &str = "VGPU_CARD";
/// The environment variable that plans failures.
pub const FAIL_VARIABLE: &str = "VGPU_FAIL";
/// The environment variable that says which CUDA the driver is for: `12.1`.
pub const DRIVER_VARIABLE: &str = "VGPU_DRIVER";
/// The environment variable that says what is taken lazily, in MiB.
pub const LAZY_VARIABLE: &str = "VGPU_LAZY_MIB";

const BUILT_IN: [(&str, &str); 8] = [
    ("t4", include_str!("../cards/t4.toml")),
    ("a100", include_str!("../cards/a100.toml")),
    ("rtx3060", include_str!("../cards/rtx3060.toml")),
    ("rtx4090", include_str!("../cards/rtx4090.toml")),
    ("h100", include_str!("../cards/h100.toml")),
    ("b200", include_str!("../cards/b200.toml")),
    ("rtx5090", include_str!("../cards/rtx5090.toml")),
    ("tiny-64MiB", include_str!("../cards/tiny-64MiB.toml")),
];

/// Everything about the card that a program can ask, and what is to go wrong on it.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Card {
    pub name: String,
    /// Major, minor.
    pub compute_capability: (u32, u32),
    pub sm_count: u32,
    pub cores_per_sm: u32,
    #[serde(deserialize_with = "bytes")]
    pub total_bytes: u64,
    /// What other processes hold when the program starts.
    #[serde(default, deserialize_with = "bytes")]
    pub used_bytes: u64,
    /// What other processes take while the program runs.
    #[serde(default)]
    pub growth: Vec<Growth>,
    /// What the context takes when it is created.
    #[serde(default, deserialize_with = "bytes")]
    pub context_bytes: u64,
    /// What all code takes at once, beside the context, when it is loaded eagerly.
    #[serde(default, deserialize_with = "bytes")]
    pub eager_bytes: u64,
    /// What a module takes at its first launch, and an entry point of a library at its first call.
    #[serde(default, deserialize_with = "bytes")]
    pub lazy_bytes: u64,
    /// Shared memory of a block that did not ask for more.
    #[serde(deserialize_with = "bytes")]
    pub shared_per_block: u64,
    /// Shared memory of a block whose function was given more.
    #[serde(deserialize_with = "bytes")]
    pub shared_per_block_optin: u64,
    #[serde(deserialize_with = "bytes")]
    pub shared_per_sm: u64,
    pub threads_per_sm: u32,
    pub blocks_per_sm: u32,
    #[serde(deserialize_with = "bytes")]
    pub l2_bytes: u64,
    pub memory_bus_bits: u32,
    pub memory_mhz: u32,
    pub clock_mhz: u32,
    /// The CUDA version of the driver, and of the libraries beside it.
    pub driver: (u32, u32),
    /// When what was given to the card is done.
    #[serde(default, deserialize_with = "order")]
    pub order: Order,
    /// What fails, and when.
    #[serde(default, deserialize_with = "failures")]
    pub fail: Vec<Failure>,
}

/// Other processes take `bytes` more once `after_allocations` allocations were asked for.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Growth {
    pub after_allocations: u64,
    #[serde(deserialize_with = "bytes")]
    pub bytes: u64,
}

/// A planned failure: `alloc`, `copy`, `launch`, `module`, or an entry point of a library (`cublasLtMatmul`).
#[derive(Clone, Debug, PartialEq)]
pub struct Failure {
    pub what: String,
    pub when: When,
}

/// Which calls fail, counted from one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum When {
    /// `alloc`
    Always,
    /// `alloc=5`
    Only(u64),
    /// `alloc=5+`
    From(u64),
}

#[derive(Debug, thiserror::Error)]
pub enum CardError {
    #[error(
        "`{CARD_VARIABLE}` is not set: it must hold a card ({}) or the path of a TOML file",
        names()
    )]
    NotSet,
    #[error("`{name}` is neither a card ({}) nor a file", names())]
    Unknown { name: String },
    #[error("cannot read the card `{}`: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("the card `{name}` is wrong: {reason}")]
    Wrong { name: String, reason: String },
    #[error("`{FAIL_VARIABLE}` is wrong: {0}")]
    Fail(String),
    #[error("`{ORDER_VARIABLE}` is wrong: {0}")]
    Order(String),
    #[error("`{DRIVER_VARIABLE}` is wrong: {0}")]
    Driver(String),
    #[error("`{LAZY_VARIABLE}` is wrong: expected a number of MiB, found `{0}`")]
    Lazy(String),
}

fn names() -> String {
    BUILT_IN.map(|(name, _)| name).join(", ")
}

impl Card {
    /// The card that the environment asks for.
    pub fn from_environment() -> Result<Card, CardError> {
        let name = env::var(CARD_VARIABLE).map_err(|_| CardError::NotSet)?;
        let mut card = Card::open(&name)?;
        if let Ok(plan) = env::var(FAIL_VARIABLE) {
            let planned = Failure::parse_all(&plan).map_err(CardError::Fail)?;
            card.fail.extend(planned);
        }
        if let Ok(mib) = env::var(LAZY_VARIABLE) {
            let parsed: Option<u64> = mib.parse().ok();
            let bytes = parsed.and_then(|mib| mib.checked_mul(1 << 20));
            card.lazy_bytes = bytes.ok_or(CardError::Lazy(mib))?;
        }
        if let Ok(version) = env::var(DRIVER_VARIABLE) {
            card.driver = parse_version(&version).ok_or_else(|| {
                CardError::Driver(format!(
                    "expected a version such as 12.1, found `{version}`"
                ))
            })?;
            card.check().map_err(CardError::Driver)?;
        }
        if let Ok(order) = env::var(ORDER_VARIABLE) {
            card.order = order.parse().map_err(CardError::Order)?;
        }
        Ok(card)
    }

    /// A built-in card by its name, or one from a TOML file.
    pub fn open(name: &str) -> Result<Card, CardError> {
        let text = match built_in(name) {
            Some(text) => text.to_owned(),
            None if Path::new(name).exists() => {
                fs::read_to_string(name).map_err(|source| CardError::Read {
                    path: name.into(),
                    source,
                })?
            }
            None => return Err(CardError::Unknown { name: name.into() }),
        };
        Card::parse(&text).map_err(|reason| CardError::Wrong {
            name: name.into(),
            reason,
        })
    }

    /// A card from the text of a file. `like = "t4"` starts from a built-in card.
    pub fn parse(text: &str) -> Result<Card, String> {
        let table = resolve(text)?;
        let card: Card = Value::Table(table).try_into().map_err(one_line)?;
        card.check()?;
        Ok(card)
    }

    fn check(&self) -> Result<(), String> {
        if self.used_bytes > self.total_bytes {
            return Err("`used_bytes` is more than `total_bytes`".into());
        }
        let ((major, minor), oldest) = (self.driver, oldest_driver(self.compute_capability));
        if self.driver < oldest {
            let (card, card_minor) = self.compute_capability;
            return Err(format!(
                "a driver for CUDA {major}.{minor} does not know compute capability {card}.{card_minor}, \
                 which came with {}.{}",
                oldest.0, oldest.1
            ));
        }
        Ok(())
    }
}

fn built_in(name: &str) -> Option<&'static str> {
    let found = BUILT_IN.iter().find(|(known, _)| *known == name);
    found.map(|(_, text)| *text)
}

/// The keys of a file over those of the card that it is like.
fn resolve(text: &str) -> Result<Table, String> {
    let mut table: Table = text.parse().map_err(one_line)?;
    let Some(like) = table.remove("like") else {
        return Ok(table);
    };
    let base = like.as_str().and_then(built_in);
    let base = base.ok_or_else(|| format!("`like` must be one of {}, not {like}", names()))?;
    let mut merged = resolve(base)?;
    merged.extend(table);
    Ok(merged)
}

/// `12.1` -> (12, 1)
fn parse_version(text: &str) -> Option<(u32, u32)> {
    let (major, minor) = text.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

fn one_line(error: toml::de::Error) -> String {
    error.to_string().trim_end().replace('\n', " ")
}

fn order<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Order, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse().map_err(serde::de::Error::custom)
}

/// A number of bytes, or a text such as `"64MiB"`.
fn bytes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Size {
        Bytes(u64),
        Text(String),
    }
    match Size::deserialize(deserializer)? {
        Size::Bytes(bytes) => Ok(bytes),
        Size::Text(text) => parse_bytes(&text).ok_or_else(|| {
            let expected = "expected a size such as 64MiB";
            serde::de::Error::custom(format!("{expected}, found `{text}`"))
        }),
    }
}

fn parse_bytes(text: &str) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    let (number, unit) = text.split_at(digits);
    let shift = match unit.trim() {
        "B" => 0,
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        _ => return None,
    };
    if number.contains('.') {
        Some((number.parse::<f64>().ok()? * (1u64 << shift) as f64) as u64)
    } else {
        number.parse::<u64>().ok()?.checked_mul(1 << shift)
    }
}

fn failures<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Failure>, D::Error> {
    let planned = Vec::<String>::deserialize(deserializer)?;
    let planned = planned.iter().map(|text| Failure::parse(text));
    planned
        .collect::<Result<_, _>>()
        .map_err(serde::de::Error::custom)
}

impl Failure {
    /// `alloc=5,cublasLtMatmul,launch=3+`.
    pub fn parse_all(text: &str) -> Result<Vec<Failure>, String> {
        let parts = text.split(',').map(str::trim);
        parts
            .filter(|part| !part.is_empty())
            .map(Failure::parse)
            .collect()
    }

    fn parse(text: &str) -> Result<Failure, String> {
        let (what, when) = text.split_once('=').unwrap_or((text, ""));
        let (what, when) = (what.trim(), when.trim());
        let known = ["alloc", "copy", "launch", "module"].contains(&what);
        if !known && !libraries::REFUSABLE.contains(&what) {
            return Err(format!(
                "`{what}` cannot be made to fail: name `alloc`, `copy`, `launch`, `module` or one of {}",
                libraries::REFUSABLE.join(", ")
            ));
        }
        let count = |text: &str| {
            let count = text.parse::<u64>().ok().filter(|&count| count > 0);
            count.ok_or_else(|| format!("expected `{what}=5` or `{what}=5+`, found `{text}`"))
        };
        let when = match when.strip_suffix('+') {
            Some(from) => When::From(count(from)?),
            None if when.is_empty() => When::Always,
            None => When::Only(count(when)?),
        };
        Ok(Failure {
            what: what.into(),
            when,
        })
    }
}

/// Counts what may fail, and says when it has to.
#[derive(Debug, Default)]
pub struct Failures {
    planned: Vec<Failure>,
    counts: Mutex<HashMap<String, u64>>,
}

impl Failures {
    pub fn new(planned: Vec<Failure>) -> Failures {
        Failures {
            planned,
            counts: Mutex::default(),
        }
    }

    /// Counts one more `what`; the number of this one if it was planned to fail.
    pub fn strikes(&self, what: &str) -> Option<u64> {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(what.to_owned()).or_default();
        *count += 1;
        let planned = self.planned.iter().filter(|failure| failure.what == what);
        let now = |failure: &Failure| match failure.when {
            When::Always => true,
            When::Only(only) => *count == only,
            When::From(from) => *count >= from,
        };
        planned.into_iter().any(now).then_some(*count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_built_in_card_is_complete() {
        for (name, _) in BUILT_IN {
            let card = Card::open(name).unwrap_or_else(|error| panic!("{error}"));
            assert!(
                card.shared_per_block <= card.shared_per_block_optin,
                "{name}"
            );
            assert!(card.shared_per_block_optin <= card.shared_per_sm, "{name}");
        }
        assert_eq!(
            Card::open("tiny-64MiB").map(|card| card.total_bytes).ok(),
            Some(64 << 20)
        );
    }

    #[test]
    fn a_file_starts_from_a_card_and_changes_it() {
        let text = "like = \"t4\"\nused_bytes = \"1.0GiB\"\nfail = [\"alloc=2\"]\n\
                    growth = [{ after_allocations = 3, bytes = 512 }]";
        let card = Card::parse(text).unwrap();
        assert_eq!(card.sm_count, 40);
        assert_eq!(card.used_bytes, 1 << 30);
        assert_eq!(
            card.growth,
            [Growth {
                after_allocations: 3,
                bytes: 512
            }]
        );
        assert_eq!(
            card.fail,
            [Failure {
                what: "alloc".into(),
                when: When::Only(2)
            }]
        );
    }

    #[test]
    fn what_is_wrong_with_a_card_is_said() {
        let cases = [
            ("like = \"gtx\"", "`like` must be one of t4"),
            ("like = \"t4\"\nsms = 3", "unknown field `sms`"),
            (
                "like = \"t4\"\ntotal_bytes = \"3.5 MB\"",
                "expected a size such as 64MiB",
            ),
            (
                "like = \"t4\"\nused_bytes = \"99GiB\"",
                "more than `total_bytes`",
            ),
            (
                "like = \"t4\"\nfail = [\"malloc\"]",
                "`malloc` cannot be made to fail",
            ),
            ("like = \"t4\"\nfail = [\"alloc=0\"]", "expected `alloc=5`"),
            ("name = \"x\"", "missing field"),
            (
                "like = \"rtx5090\"\ndriver = [12, 1]",
                "does not know compute capability 12.0, which came with 12.8",
            ),
        ];
        for (text, expected) in cases {
            let error = Card::parse(text).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
        let error = Card::open("rtx9090").unwrap_err().to_string();
        assert!(
            error.contains("`rtx9090` is neither a card (t4, a100"),
            "{error}"
        );
    }

    #[test]
    fn failures_strike_when_planned() {
        let planned = Failure::parse_all("alloc=2, launch=3+,cublasLtMatmul").unwrap();
        let failures = Failures::new(planned);
        let strikes = |what: &str| [0; 4].map(|_| failures.strikes(what).is_some());
        assert_eq!(strikes("alloc"), [false, true, false, false]);
        assert_eq!(strikes("launch"), [false, false, true, true]);
        assert_eq!(strikes("cublasLtMatmul"), [true; 4]);
        assert_eq!(strikes("module"), [false; 4]);
    }
}
