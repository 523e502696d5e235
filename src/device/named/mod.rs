//! Known cards by name, for a card that is not here: figures that vendors publish and drivers report.
//!
//! Conventions, for every card of the table:
//! - **Memory** is the part that programs can take, in GiB to two places, as the CUDA driver reports it on
//!   Linux and as PyTorch prints it in its out-of-memory messages. It is less than the nominal size (and
//!   than `nvidia-smi`'s total): the driver and, on some cards, error correction keep a part. The
//!   figures are from public bug reports and logs; driver versions differ by up to 0.1 GiB. Where
//!   none was found it is the nominal size, 2 to 5 % too much; [`CardMemory`] says which.
//! - **Rates** are dense. bf16 and fp16 are tensor cores accumulating in fp32, as training needs:
//!   GeForce cards run that at half the rate of fp16 accumulation. Both formats run at one rate.
//! - **Sustained rates** are those of large GEMMs one after the other, where a power limit was seen to keep a card far
//!   below its peak. Predictions use them; the utilization (MFU) is of the peak.
//! - **Shared memory** and whether there is bf16 follow from the compute capability.

mod cards;

use super::capability::{has_bf16, has_kernels, shared_memory_per_block_bytes};
use super::{Cuda, DeviceError, DeviceProfile, Hardware};
use cards::{CARDS, SUSTAINED};

/// Public facts of one card.
#[derive(Debug)]
pub struct Card {
    /// The vendor's name for it.
    pub name: &'static str,
    /// Names that may be typed, each in any spelling. Messages list the card by the first.
    pub aliases: &'static [&'static str],
    pub sm_count: u32,
    /// (major, minor)
    pub compute_capability: (u32, u32),
    pub memory: CardMemory,
    pub l2_kib: u64,
    /// GB/s
    pub bandwidth: f64,
    /// TFLOP/s of tensor cores, fp32 accumulation, dense.
    pub fp16: f64,
    /// TFLOP/s of CUDA cores.
    pub fp32: f64,
    /// Source of the figures.
    pub source: &'static str,
}

/// The memory of a card, in hundredths of a GiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CardMemory {
    /// Reported by the CUDA driver.
    Reported(u64),
    /// Size as sold; programs can take a little less.
    Nominal(u64),
}

impl CardMemory {
    pub fn bytes(self) -> u64 {
        let (Self::Reported(hundredths) | Self::Nominal(hundredths)) = self;
        hundredths * (1 << 30) / 100
    }
}

/// Every card, oldest architecture first.
pub fn all() -> &'static [Card] {
    CARDS
}

/// The card of this name, in any case and with or without spaces, hyphens and the vendor's words.
pub(super) fn find(name: &str) -> Option<&'static Card> {
    let name = plain(name);
    let called = |card: &&Card| card.aliases.iter().any(|alias| plain(alias) == name);
    CARDS.iter().find(called)
}

/// The card that is most like one of this compute capability: of the nearest capability, then of the
/// same line of products (GeForce or not), then of the nearest size.
pub(super) fn relative(capability: (u32, u32), geforce: bool, sms: Option<u32>) -> &'static Card {
    let number = |capability: (u32, u32)| capability.0 * 10 + capability.1;
    let distance = |card: &Card| {
        (
            number(card.compute_capability).abs_diff(number(capability)),
            card.is_geforce() != geforce,
            sms.map_or(0, |sms| card.sm_count.abs_diff(sms)),
        )
    };
    let nearer = |a, b| if distance(b) < distance(a) { b } else { a };
    CARDS.iter().fold(&CARDS[0], nearer)
}

/// `NVIDIA GeForce RTX 3060` -> `rtx3060`.
fn plain(name: &str) -> String {
    let letters = name.chars().filter(char::is_ascii_alphanumeric);
    let mut name: String = letters.map(|c| c.to_ascii_lowercase()).collect();
    for word in ["nvidia", "geforce", "tesla"] {
        name = name.replacen(word, "", 1);
    }
    name
}

/// Rate of large fp16 GEMMs in steady state, in operations per second, of a card that its power limit keeps far below
/// its peak; `None` for all others.
pub fn sustained_flops(name: &str) -> Option<f64> {
    let found = SUSTAINED.iter().find(|(card, ..)| *card == name);
    found.map(|(_, tera, _)| tera * 1e12)
}

/// The cards that there are kernels for, by the names that messages use.
fn usable() -> impl Iterator<Item = &'static Card> {
    CARDS
        .iter()
        .filter(|card| has_kernels(card.compute_capability))
}

/// Names that may be meant by `name`: the cards whose names begin with it, else the nearest name, else none.
pub(super) fn likely(name: &str) -> Vec<&'static str> {
    let typed = plain(name);
    let begins = |card: &&Card| {
        card.aliases
            .iter()
            .any(|alias| plain(alias).starts_with(&typed))
    };
    let family: Vec<_> = usable()
        .filter(begins)
        .map(|card| card.aliases[0])
        .collect();
    if typed.is_empty() || family.is_empty() {
        nearest(name).into_iter().collect()
    } else {
        family
    }
}

/// The name that is spelled most like `name`.
fn nearest(name: &str) -> Option<&'static str> {
    let name = plain(name);
    usable()
        .flat_map(|card| card.aliases.iter().map(move |alias| (card, alias)))
        .map(|(card, alias)| (strsim::jaro_winkler(&name, &plain(alias)), card.aliases[0]))
        .filter(|(similarity, _)| *similarity >= 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, name)| name)
}

impl DeviceProfile {
    /// A card that is not here, with all of its memory available.
    ///
    /// # Errors
    /// [`DeviceError::UnknownCard`] when the table does not have it.
    pub fn named(name: &str) -> Result<Self, DeviceError> {
        match find(name) {
            Some(card) => Ok(card.profile()),
            None => Err(DeviceError::UnknownCard { name: name.into() }),
        }
    }
}

impl Card {
    pub fn profile(&self) -> DeviceProfile {
        let bytes = Some(self.memory.bytes());
        DeviceProfile {
            name: self.name.into(),
            total_bytes: bytes,
            available_bytes: bytes,
            hardware: Hardware::Cuda(self.cuda()),
        }
    }

    fn is_geforce(&self) -> bool {
        self.name.contains("GeForce")
    }

    pub(super) fn cuda(&self) -> Cuda {
        Cuda {
            holders: Vec::new(),
            sm_count: self.sm_count,
            compute_capability: self.compute_capability,
            shared_memory_per_block_bytes: shared_memory_per_block_bytes(self.compute_capability),
            l2_bytes: self.l2_kib * 1024,
            memory_bytes_per_second: self.bandwidth * 1e9,
            peak_bf16: has_bf16(self.compute_capability).then_some(self.fp16 * 1e12),
            peak_fp16: self.fp16 * 1e12,
            peak_fp32: self.fp32 * 1e12,
            driver_version: None,
            cuda_version: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::capability::cores_per_sm;
    use super::*;

    fn cuda(name: &str) -> Cuda {
        match DeviceProfile::named(name).unwrap().hardware {
            Hardware::Cuda(cuda) => cuda,
            Hardware::Cpu(_) => panic!("{name} is no CPU"),
        }
    }

    #[test]
    fn a_name_may_be_written_in_many_ways() {
        for typed in [
            "rtx3060",
            "RTX 3060",
            "rtx-3060",
            "GeForce RTX 3060",
            "NVIDIA GeForce RTX 3060",
            "3060",
        ] {
            let profile = DeviceProfile::named(typed).unwrap();
            assert_eq!(profile.name, "NVIDIA GeForce RTX 3060", "{typed}");
        }
        for typed in ["A100-40", "a100_40gb", "NVIDIA A100-SXM4-40GB"] {
            let profile = DeviceProfile::named(typed).unwrap();
            assert_eq!(profile.name, "NVIDIA A100-SXM4-40GB", "{typed}");
        }
        assert_eq!(DeviceProfile::named("Tesla T4").unwrap().name, "Tesla T4");
    }

    #[test]
    fn every_card_is_found_by_its_own_name_and_no_two_share_one() {
        let mut seen = BTreeSet::new();
        for card in all() {
            assert!(find(card.name).is_some_and(|found| std::ptr::eq(found, card)));
            for alias in card.aliases {
                assert!(seen.insert(plain(alias)), "{alias} twice");
            }
        }
    }

    #[test]
    fn every_figure_has_a_source() {
        for card in all() {
            assert!(card.source.contains("https://"), "{}", card.name);
        }
        for (name, tera, source) in SUSTAINED {
            assert!(source.contains("https://"), "{name}");
            let card = find(name).unwrap_or_else(|| panic!("{name} is in no other table"));
            assert!(*tera < card.fp16, "{name}");
        }
    }

    /// Rate = SMs x operations per SM and clock x clock, so both rates imply a clock.
    #[test]
    fn peaks_and_sm_counts_agree_with_each_other() {
        for card in all() {
            let tensor = match card.compute_capability {
                (7, _) | (8, 6) | (8, 9) | (12, _) => 1024.0,
                (8, 0) => 2048.0,
                (9, 0) => 4096.0,
                (10, 0) => 8192.0,
                other => panic!("{}: {other:?}", card.name),
            };
            let tensor = if card.is_geforce() {
                tensor / 2.0
            } else {
                tensor
            };
            let cores = f64::from(cores_per_sm(card.compute_capability));
            let sms = f64::from(card.sm_count);
            let tensor_ghz = card.fp16 * 1e3 / (sms * tensor);
            let core_ghz = card.fp32 * 1e3 / (sms * cores * 2.0);
            let name = card.name;
            assert!((1.3..2.65).contains(&tensor_ghz), "{name}: {tensor_ghz}");
            let ratio = tensor_ghz / core_ghz;
            assert!((0.9..1.1).contains(&ratio), "{name}: {ratio}");
        }
    }

    #[test]
    fn every_card_is_plausible() {
        for card in all() {
            let (name, cuda) = (card.name, cuda(card.name));
            assert!((16..=256).contains(&cuda.sm_count), "{name}");
            assert!((200e9..1e13).contains(&cuda.memory_bytes_per_second));
            assert!(((2 << 20)..(256 << 20)).contains(&cuda.l2_bytes), "{name}");
            let gib = card.memory.bytes() as f64 / (1u64 << 30) as f64;
            assert!((6.0..200.0).contains(&gib), "{name}: {gib}");
            let (major, _) = cuda.compute_capability;
            assert_eq!(cuda.peak_bf16.is_none(), major < 8, "{name}");
            assert!(cuda.peak_bf16.is_none_or(|peak| peak == cuda.peak_fp16));
            assert!(cuda.peak_fp16 > cuda.peak_fp32, "{name}");
            assert!(cuda.shared_memory_per_block_bytes > 48 << 10, "{name}");
            assert_eq!((cuda.driver_version, cuda.cuda_version), (None, None));
        }
    }

    #[test]
    fn the_founding_card_has_11_69_gib() {
        let profile = DeviceProfile::named("rtx3060").unwrap();
        let expected = (11.69 * f64::from(1 << 30)) as u64;
        assert_eq!(profile.total_bytes, Some(expected));
        assert_eq!(profile.available_bytes, Some(expected));
        let cuda = cuda("rtx3060");
        assert_eq!((cuda.sm_count, cuda.compute_capability), (28, (8, 6)));
        assert_eq!(cuda.memory_bytes_per_second, 360e9);
        assert_eq!(cuda.peak_bf16, Some(25.5e12));
        assert_eq!(cuda.shared_memory_per_block_bytes, 99 * 1024);
    }

    #[test]
    fn a_few_cards_have_the_figures_of_their_data_sheets() {
        let cases = [
            ("t4", 40, None, 64),
            ("v100", 80, None, 96),
            ("a100-80", 108, Some(312e12), 163),
            ("rtx4090", 128, Some(165.2e12), 99),
            ("h100", 132, Some(989.4e12), 227),
            ("b200", 148, Some(2250e12), 227),
        ];
        for (name, sms, bf16, shared_kib) in cases {
            let cuda = cuda(name);
            assert_eq!((cuda.sm_count, cuda.peak_bf16), (sms, bf16), "{name}");
            assert_eq!(cuda.shared_memory_per_block_bytes, shared_kib * 1024);
        }
    }

    #[test]
    fn an_unknown_name_is_answered_with_the_nearest_one_or_all() {
        let error = DeviceProfile::named("rtx3061").unwrap_err();
        assert!(error.to_string().contains("`rtx3061`"), "{error}");
        assert_eq!(error.hint(), "did you mean `rtx3060`?");
        assert_eq!(nearest("H-1000"), Some("h100"));
        let error = DeviceProfile::named("a100").unwrap_err();
        assert_eq!(error.hint(), "there are `a100-40`, `a100-80`");
        let error = DeviceProfile::named("RTX 40").unwrap_err();
        let expected = "there are `rtx4060`, `rtx4070`, `rtx4090`";
        assert_eq!(error.hint(), expected);
        let error = DeviceProfile::named("abacus").unwrap_err();
        let hint = error.hint();
        for card in all()
            .iter()
            .filter(|card| has_kernels(card.compute_capability))
        {
            assert!(hint.contains(card.aliases[0]), "{hint}");
        }
        assert!(DeviceProfile::named("").is_err());
    }
}
