//! The candidates for a token, against the definitions of the filters.

use taper::rng::{Seed, Stream};
use taper::sampling::{Candidates, SamplingSettings};

/// The candidates from the likeliest on, with their probabilities: every filter as transformers defines it, one after
/// the other over the whole vocabulary.
fn expected(logits: &[f32], context: &[u32], settings: &SamplingSettings) -> Vec<(u32, f64)> {
    let mut scores: Vec<f64> = logits.iter().map(|&logit| f64::from(logit)).collect();
    for (id, score) in scores.iter_mut().enumerate() {
        if context.contains(&(id as u32)) {
            let penalty = settings.repetition_penalty;
            *score = if *score < 0.0 {
                *score * penalty
            } else {
                *score / penalty
            };
        }
    }
    let mut ids: Vec<usize> = (0..scores.len()).collect();
    ids.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]).then(a.cmp(&b)));
    if settings.temperature == 0.0 {
        return vec![(ids[0] as u32, 1.0)];
    }
    let probabilities = |ids: &[usize]| -> Vec<f64> {
        let weights = ids
            .iter()
            .map(|&id| ((scores[id] - scores[ids[0]]) / settings.temperature).exp());
        let weights: Vec<f64> = weights.collect();
        let total: f64 = weights.iter().sum();
        weights.iter().map(|weight| weight / total).collect()
    };
    let last = scores[ids[settings.top_k.min(ids.len()) - 1]];
    ids.retain(|&id| scores[id] >= last);
    let all = probabilities(&ids);
    if settings.top_p < 1.0 {
        let before = |at: usize| all[..at].iter().sum::<f64>();
        let kept = (0..ids.len()).take_while(|&at| at == 0 || before(at) < settings.top_p);
        ids.truncate(kept.count());
    }
    let all = probabilities(&ids);
    let kept = all
        .iter()
        .take_while(|&&p| p >= settings.min_p * all[0])
        .count();
    ids.truncate(kept);
    let all = probabilities(&ids);
    ids.iter().map(|&id| id as u32).zip(all).collect()
}

/// The token that `draw` selects.
pub fn chosen(logits: &[f32], context: &[u32], settings: &SamplingSettings, draw: f64) -> u32 {
    let candidates = expected(logits, context, settings);
    let mut left = draw;
    for &(id, probability) in &candidates {
        left -= probability;
        if left < 0.0 {
            return id;
        }
    }
    candidates[candidates.len() - 1].0
}

fn logits(len: usize, seed: u64) -> Vec<f32> {
    let normal = |pair| {
        let [a, _] = Seed(seed).normal_pair(Stream::Sampling, 0, pair);
        3.0 * a as f32
    };
    (0..len as u64).map(normal).collect()
}

/// Settings of every filter alone, of all together, and of none.
fn settings() -> Vec<SamplingSettings> {
    let none = SamplingSettings {
        temperature: 1.0,
        top_k: usize::MAX,
        ..SamplingSettings::default()
    };
    let with = |change: fn(&mut SamplingSettings)| {
        let mut settings = none;
        change(&mut settings);
        settings
    };
    vec![
        none,
        with(|settings| settings.temperature = 0.0),
        with(|settings| settings.temperature = 0.3),
        with(|settings| settings.temperature = 1.7),
        with(|settings| settings.top_k = 1),
        with(|settings| settings.top_k = 7),
        with(|settings| settings.top_k = 200),
        with(|settings| settings.top_p = 0.5),
        with(|settings| settings.top_p = 0.97),
        with(|settings| settings.top_p = 1e-9),
        with(|settings| settings.min_p = 0.05),
        with(|settings| settings.min_p = 1.0),
        with(|settings| settings.repetition_penalty = 1.5),
        with(|settings| settings.repetition_penalty = 0.5),
        SamplingSettings {
            temperature: 0.9,
            top_k: 40,
            top_p: 0.9,
            min_p: 0.02,
            repetition_penalty: 1.2,
            ..none
        },
    ]
}

#[test]
fn every_filter_leaves_what_its_definition_leaves() {
    // Fewer and more tokens than are sorted or looked at in blocks.
    for len in [1, 2, 63, 500, 5000] {
        for seed in 0..3 {
            let logits = logits(len, seed);
            let context = [0, 3, 3, 40, len as u32 - 1];
            for settings in settings() {
                let what = format!("{len} tokens, seed {seed}, {settings:?}");
                let got = Candidates::new(&logits, &context, &settings).probabilities();
                let want = expected(&logits, &context, &settings);
                let ids = |all: &[(u32, f64)]| all.iter().map(|(id, _)| *id).collect::<Vec<_>>();
                assert_eq!(ids(&got), ids(&want), "{what}");
                for ((_, got), (_, want)) in got.iter().zip(&want) {
                    // A penalised logit is rounded to f32.
                    assert!((got - want).abs() < 1e-6, "{what}: {got}, {want}");
                }
            }
        }
    }
}

#[test]
fn draws_take_every_token_as_often_as_its_probability_says() {
    const DRAWS: usize = 4000;
    let logits = logits(300, 9);
    let context = [1, 2, 299];
    for settings in settings() {
        let mut counts = vec![0.0; logits.len()];
        for draw in 0..DRAWS {
            let draw = draw as f64 / DRAWS as f64;
            let candidates = Candidates::new(&logits, &context, &settings);
            counts[candidates.choose(draw) as usize] += 1.0;
        }
        for (id, probability) in expected(&logits, &context, &settings) {
            let want = probability * DRAWS as f64;
            let got: f64 = std::mem::take(&mut counts[id as usize]);
            assert!(
                (got - want).abs() <= 1.01,
                "{id}: {got}, {want}, {settings:?}"
            );
        }
        assert!(counts.iter().all(|&count| count == 0.0), "{settings:?}");
    }
}

#[test]
fn equal_logits_stay_together_in_the_order_of_their_ids() {
    let mut logits = vec![0.0f32; 2000];
    for id in [3, 700, 1500] {
        logits[id] = 1.0;
    }
    let of = |top_k, top_p| {
        let settings = SamplingSettings {
            top_k,
            top_p,
            ..SamplingSettings::default()
        };
        let candidates = Candidates::new(&logits, &[], &settings).probabilities();
        candidates.iter().map(|(id, _)| *id).collect::<Vec<_>>()
    };
    assert_eq!(of(2, 1.0), [3, 700, 1500]);
    assert_eq!(of(4, 1.0).len(), 2000);
    // Of tokens that are equally likely, top-p takes the first.
    assert_eq!(of(3, 0.5), [3, 700]);
}

#[test]
fn logits_that_are_no_numbers_choose_some_token() {
    for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        for settings in settings() {
            let mut logits = logits(100, 1);
            logits[17] = value;
            assert!(Candidates::new(&logits, &[17], &settings).choose(0.5) < 100);
            let all = vec![value; 100];
            assert!(Candidates::new(&all, &[17], &settings).choose(0.5) < 100);
        }
    }
}
