//! cuRAND's host interface: reproducible numbers of the right distributions, from Philox 4x32-10
//! (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3"). They are not a real library's numbers.

use std::collections::HashMap;
use std::f64::consts::TAU;
use std::ffi::{c_int, c_uint};
use std::sync::{Arc, Mutex};

use crate::driver::context;
use crate::driver::guard;
use crate::driver::operation::Operation;
use crate::driver::state::{cuda, current, lock, new_handle};
use crate::memory::ForOperation;

/// A `curandStatus_t`.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status(pub c_uint);

impl Status {
    pub const SUCCESS: Status = Status(0);
    pub const NOT_INITIALIZED: Status = Status(101);
    pub const ALLOCATION_FAILED: Status = Status(102);
    pub const TYPE_ERROR: Status = Status(103);
    pub const LENGTH_NOT_MULTIPLE: Status = Status(105);
    pub const LAUNCH_FAILURE: Status = Status(201);
    pub const PREEXISTING_FAILURE: Status = Status(202);
    pub const INITIALIZATION_FAILED: Status = Status(203);
}

impl From<Result<(), Status>> for Status {
    fn from(outcome: Result<(), Status>) -> Status {
        outcome.err().unwrap_or(Status::SUCCESS)
    }
}

/// What a generator's handle stands for.
#[derive(Clone, Copy, Default)]
struct Generator {
    stream: usize,
    seed: u64,
    /// How many numbers were drawn since the seed was set.
    offset: u64,
}

static GENERATORS: Mutex<Option<HashMap<usize, Generator>>> = Mutex::new(None);

fn with<T>(handle: usize, work: impl FnOnce(&mut Generator) -> T) -> Result<T, Status> {
    let mut generators = lock(&GENERATORS);
    let generator = generators.as_mut().and_then(|all| all.get_mut(&handle));
    generator.map(work).ok_or(Status::NOT_INITIALIZED)
}

/// 10.3 of CUDA 12 or 10.4 of CUDA 13, as `curandGetVersion` counts: 10.3.0 is 10300.
///
/// # Safety
/// `version` is null or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn curandGetVersion(version: *mut c_int) -> Status {
    let minor = if cuda() < (13, 0) { 3 } else { 4 };
    // SAFETY: as the caller promises.
    let outcome = unsafe { guard::write(version, 10_000 + minor * 100) };
    outcome.map_err(|_| Status::TYPE_ERROR).into()
}

/// # Safety
/// `generator` is null or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn curandCreateGenerator(generator: *mut usize, kind: c_uint) -> Status {
    let Some(driver) = current().filter(|driver| context::check(driver).is_ok()) else {
        return Status::INITIALIZATION_FAILED;
    };
    // Pseudo-random ones: 100 to 199. Quasi-random ones would need their dimensions.
    if !(100..200).contains(&kind) {
        return Status::TYPE_ERROR;
    }
    if generator.is_null() || driver.planned_to_fail("curandCreateGenerator") {
        return Status::INITIALIZATION_FAILED;
    }
    let handle = new_handle();
    lock(&GENERATORS)
        .get_or_insert_default()
        .insert(handle, Generator::default());
    // SAFETY: not null, and as the caller promises.
    unsafe { generator.write(handle) };
    Status::SUCCESS
}

/// # Safety
/// None is needed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn curandDestroyGenerator(generator: usize) -> Status {
    let removed = lock(&GENERATORS)
        .as_mut()
        .and_then(|all| all.remove(&generator));
    removed.map(|_| ()).ok_or(Status::NOT_INITIALIZED).into()
}

/// # Safety
/// None is needed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn curandSetStream(generator: usize, stream: usize) -> Status {
    with(generator, |generator| generator.stream = stream).into()
}

/// # Safety
/// None is needed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn curandSetPseudoRandomGeneratorSeed(generator: usize, seed: u64) -> Status {
    with(generator, |generator| {
        (generator.seed, generator.offset) = (seed, 0)
    })
    .into()
}

/// # Safety
/// None is needed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn curandSetGeneratorOffset(generator: usize, offset: u64) -> Status {
    with(generator, |generator| generator.offset = offset).into()
}

/// # Safety
/// None is needed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn curandGenerate(generator: usize, out: u64, count: usize) -> Status {
    let word = |numbers: [u32; 4]| numbers[0].to_le_bytes();
    draw("curandGenerate", generator, out, count, word)
}

/// In (0, 1].
///
/// # Safety
/// None is needed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn curandGenerateUniform(generator: usize, out: u64, count: usize) -> Status {
    let value = |numbers: [u32; 4]| {
        let bits = (numbers[0] >> 8) + 1;
        (bits as f32 / (1 << 24) as f32).to_le_bytes()
    };
    draw("curandGenerateUniform", generator, out, count, value)
}

/// In (0, 1].
///
/// # Safety
/// None is needed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn curandGenerateUniformDouble(
    generator: usize,
    out: u64,
    count: usize,
) -> Status {
    let value = |numbers: [u32; 4]| uniform(numbers[0], numbers[1]).to_le_bytes();
    draw("curandGenerateUniformDouble", generator, out, count, value)
}

/// As many numbers as pairs hold.
///
/// # Safety
/// None is needed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn curandGenerateNormal(
    generator: usize,
    out: u64,
    count: usize,
    mean: f32,
    deviation: f32,
) -> Status {
    if !count.is_multiple_of(2) {
        return Status::LENGTH_NOT_MULTIPLE;
    }
    let value = move |numbers| {
        let value = f64::from(mean) + f64::from(deviation) * normal(numbers);
        (value as f32).to_le_bytes()
    };
    draw("curandGenerateNormal", generator, out, count, value)
}

/// As many numbers as pairs hold.
///
/// # Safety
/// None is needed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn curandGenerateNormalDouble(
    generator: usize,
    out: u64,
    count: usize,
    mean: f64,
    deviation: f64,
) -> Status {
    if !count.is_multiple_of(2) {
        return Status::LENGTH_NOT_MULTIPLE;
    }
    let value = move |numbers| (mean + deviation * normal(numbers)).to_le_bytes();
    draw("curandGenerateNormalDouble", generator, out, count, value)
}

/// In (0, 1], with 53 bits.
fn uniform(high: u32, low: u32) -> f64 {
    let bits = (u64::from(high) << 32 | u64::from(low)) >> 11;
    (bits + 1) as f64 / (1u64 << 53) as f64
}

/// Box and Muller, "A note on the generation of random normal deviates".
fn normal(numbers: [u32; 4]) -> f64 {
    let radius = (-2.0 * uniform(numbers[0], numbers[1]).ln()).sqrt();
    radius * (TAU * uniform(numbers[2], numbers[3])).cos()
}

/// Fills memory with values, each from four random words of its own.
fn draw<const N: usize>(
    name: &'static str,
    generator: usize,
    out: u64,
    count: usize,
    value: impl Fn([u32; 4]) -> [u8; N] + Send + Sync + 'static,
) -> Status {
    let Some(driver) = current() else {
        return Status::NOT_INITIALIZED;
    };
    if context::check(&driver).is_err() {
        return Status::PREEXISTING_FAILURE;
    }
    let drawn = with(generator, |generator| {
        let before = *generator;
        generator.offset += count as u64;
        before
    });
    let Generator {
        stream,
        seed,
        offset,
    } = match drawn {
        Ok(generator) => generator,
        Err(status) => return status,
    };
    if driver.planned_to_fail(name) || !out.is_multiple_of(N as u64) {
        return Status::LAUNCH_FAILURE;
    }
    if driver.load_lazily(name).is_err() {
        return Status::ALLOCATION_FAILED;
    }
    let fill = move |memory: &ForOperation| {
        let numbers = (0..count as u64).flat_map(|index| value(philox(seed, offset + index)));
        memory.copy_in(out, &numbers.collect::<Vec<u8>>())
    };
    if count == 0 {
        return Status::SUCCESS;
    }
    let operation = Operation::Library {
        name,
        work: Arc::new(fill),
    };
    match driver.submit(stream, operation) {
        Ok(()) => Status::SUCCESS,
        Err(_) => Status::LAUNCH_FAILURE,
    }
}

/// Four random words for a seed and a counter.
fn philox(seed: u64, counter: u64) -> [u32; 4] {
    let mut words = [counter as u32, (counter >> 32) as u32, 0, 0];
    let mut key = [seed as u32, (seed >> 32) as u32];
    for _ in 0..10 {
        let [first, second] = [(0xD251_1F53, words[0]), (0xCD9E_8D57, words[2])]
            .map(|(multiplier, word)| u64::from(word) * multiplier);
        words = [
            (second >> 32) as u32 ^ words[1] ^ key[0],
            second as u32,
            (first >> 32) as u32 ^ words[3] ^ key[1],
            first as u32,
        ];
        key = [
            key[0].wrapping_add(0x9E37_79B9),
            key[1].wrapping_add(0xBB67_AE85),
        ];
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Known answers of the reference implementation (Random123, `kat_vectors`).
    #[test]
    fn philox_gives_the_published_numbers() {
        let zeros = [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8];
        assert_eq!(philox(0, 0), zeros);
    }
}
