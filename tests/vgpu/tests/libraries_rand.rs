//! Random numbers: reproducible, and distributed as asked.

mod on_card;

use on_card::{OnCard, PER_THREAD, on, tiny};
use vgpu::libraries::rand::*;

fn generator(seed: u64) -> usize {
    let mut generator = 0;
    assert_eq!(
        unsafe { curandCreateGenerator(&mut generator, 100) },
        Status::SUCCESS
    );
    assert_eq!(
        unsafe { curandSetStream(generator, PER_THREAD) },
        Status::SUCCESS
    );
    assert_eq!(
        unsafe { curandSetPseudoRandomGeneratorSeed(generator, seed) },
        Status::SUCCESS
    );
    generator
}

const COUNT: usize = 20_000;

fn normal(card: &OnCard, generator: usize) -> Vec<f32> {
    let out = card.alloc(COUNT * 4).unwrap();
    assert_eq!(
        unsafe { curandGenerateNormal(generator, out, COUNT, 2.0, 3.0) },
        Status::SUCCESS
    );
    let bytes = card.get(out, COUNT * 4);
    bytes
        .chunks(4)
        .map(|b| f32::from_le_bytes(b.try_into().unwrap()))
        .collect()
}

fn uniform(card: &OnCard, generator: usize) -> Vec<f64> {
    let out = card.alloc(COUNT * 8).unwrap();
    assert_eq!(
        unsafe { curandGenerateUniformDouble(generator, out, COUNT) },
        Status::SUCCESS
    );
    let bytes = card.get(out, COUNT * 8);
    bytes
        .chunks(8)
        .map(|b| f64::from_le_bytes(b.try_into().unwrap()))
        .collect()
}

fn moments(values: impl Iterator<Item = f64> + Clone) -> (f64, f64) {
    let mean = values.clone().sum::<f64>() / COUNT as f64;
    let variance = values.map(|value| (value - mean).powi(2)).sum::<f64>() / COUNT as f64;
    (mean, variance)
}

#[test]
fn distributions_have_their_moments_and_bounds() {
    let card = tiny();
    let drawn = uniform(&card, generator(1));
    assert!(drawn.iter().all(|value| *value > 0.0 && *value <= 1.0));
    let (mean, variance) = moments(drawn.into_iter());
    assert!(
        (mean - 0.5).abs() < 0.01 && (variance - 1.0 / 12.0).abs() < 0.002,
        "{mean} {variance}"
    );
    let drawn = normal(&card, generator(1));
    let (mean, variance) = moments(drawn.into_iter().map(f64::from));
    assert!(
        (mean - 2.0).abs() < 0.1 && (variance - 9.0).abs() < 0.4,
        "{mean} {variance}"
    );
    let out = card.alloc(COUNT * 4).unwrap();
    assert_eq!(
        unsafe { curandGenerateUniform(generator(1), out, COUNT) },
        Status::SUCCESS
    );
    let bytes = card.get(out, COUNT * 4);
    let mut values = bytes
        .chunks(4)
        .map(|b| f32::from_le_bytes(b.try_into().unwrap()));
    assert!(values.all(|value| value > 0.0 && value <= 1.0));
}

#[test]
fn a_seed_gives_the_same_numbers_again_and_a_generator_never_repeats_itself() {
    let card = tiny();
    let (first, second) = (generator(5), generator(5));
    let drawn = normal(&card, first);
    assert_eq!(drawn, normal(&card, second));
    assert_ne!(drawn, normal(&card, first));
    assert_ne!(drawn, normal(&card, generator(6)));
    assert_eq!(
        unsafe { curandSetGeneratorOffset(first, 0) },
        Status::SUCCESS
    );
    assert_eq!(drawn, normal(&card, first));
}

#[test]
fn what_curand_refuses_is_refused() {
    let card = on(
        "like = \"tiny-64MiB\"\nfail = [\"curandGenerateUniform=2\", \"curandCreateGenerator=2\"]",
    );
    let generator = generator(0);
    let out = card.alloc(16).unwrap();
    // Normal numbers come in pairs.
    let odd = unsafe { curandGenerateNormal(generator, out, 3, 0.0, 1.0) };
    assert_eq!(odd, Status::LENGTH_NOT_MULTIPLE);
    assert_eq!(
        unsafe { curandGenerateUniform(generator, out, 4) },
        Status::SUCCESS
    );
    assert_eq!(
        unsafe { curandGenerateUniform(generator, out, 4) },
        Status::LAUNCH_FAILURE
    );
    let mut second = 0;
    let refused = unsafe { curandCreateGenerator(&mut second, 100) };
    assert_eq!(refused, Status::INITIALIZATION_FAILED);
    assert_eq!(
        unsafe { curandDestroyGenerator(generator) },
        Status::SUCCESS
    );
    assert_eq!(
        unsafe { curandDestroyGenerator(generator) },
        Status::NOT_INITIALIZED
    );
}
