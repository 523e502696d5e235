//! Texts that are computed as a batch: each is what it is alone.

use taper::checkpoint::{Pretrained, open_pretrained};
use taper::faults::Faults;
use taper::memory::Memory;
use taper::model::{ParamLayout, gpt2};
use taper::ops::cpu::OnCpu;
use taper::rng::{Seed, Stream};
use taper::sampling::{Generator, Request, SamplingError, SamplingSettings};
use taper::terms::{Engine, Precision, Purpose, Recompute, Rung};

use super::candidates::chosen;
use super::common::gpt::Gpt;
use super::{BLOCK_SIZE, checkpoint, text, trained};

fn model(folder: &std::path::Path) -> Pretrained {
    open_pretrained(&checkpoint(folder, 5)).unwrap()
}

fn generator(
    model: &Pretrained,
    sizes: (usize, usize),
    memory: Memory,
) -> Result<Generator, SamplingError> {
    let backend = Box::new(OnCpu::<f32>::untuned(2));
    Generator::new(model, model.dims.vocab_size, sizes, backend, memory)
}

/// New tokens of every request.
fn tokens_of(
    generator: &mut Generator,
    requests: &[Request],
    settings: &SamplingSettings,
) -> Vec<Vec<u32>> {
    let mut texts = vec![Vec::new(); requests.len()];
    let requests = requests.iter().copied();
    let done: Result<(), SamplingError> =
        generator.generate(requests, settings, |number, token| {
            texts[number].extend(token);
            Ok(true)
        });
    done.unwrap();
    texts
}

/// New tokens of every request, by a generator of `sequences` at a time.
fn generated(
    model: &Pretrained,
    requests: &[Request],
    settings: &SamplingSettings,
    sequences: usize,
) -> Vec<Vec<u32>> {
    let longest = requests
        .iter()
        .map(|request| request.prompt.len())
        .max()
        .unwrap();
    let sizes = (sequences, longest + settings.max_new_tokens);
    let mut generator = generator(model, sizes, Memory::default()).unwrap();
    tokens_of(&mut generator, requests, settings)
}

/// New tokens of a request, by a forward over the whole context for every token, and by the definitions of the filters.
fn expected(model: &Pretrained, request: Request, settings: &SamplingSettings) -> Vec<u32> {
    let dims = &model.dims;
    let mut weights = vec![0.0f32; ParamLayout::new(dims).len];
    model.load_weights(dims, &mut weights).unwrap();
    let rung = Rung {
        micro_batch: 1,
        recompute: Recompute::None,
        logits_rows: 1,
    };
    let backend = Box::new(OnCpu::<f32>::untuned(1));
    let mut gpt = Gpt::of_logits(dims, rung, backend, &weights);
    let mut tokens = request.prompt.to_vec();
    for index in 0..settings.max_new_tokens {
        let start = tokens.len().saturating_sub(dims.block_size);
        let mut context = tokens[start..].to_vec();
        let row = context.len() - 1;
        context.resize(dims.block_size, 0);
        let logits = gpt.logits::<f32>(&context);
        let logits = &logits[row * dims.vocab_size..][..dims.vocab_size];
        let (index, seed) = (index as u32, Seed(settings.seed));
        let draw = seed.uniform(Stream::Sampling, 0, index, request.sample);
        tokens.push(chosen(logits, &tokens, settings, draw));
    }
    tokens.split_off(request.prompt.len())
}

#[test]
fn tokens_of_a_batch_are_those_of_a_forward_over_the_whole_context_for_every_token() {
    let folder = trained();
    let model = model(folder.path());
    // One token, one that another prompt begins with, and one that is longer than the block.
    let long: Vec<u32> = (0..BLOCK_SIZE as u32 + 3).map(|id| id * 7 % 90).collect();
    let prompts = [&long[..1], &long[..5], &[8, 9][..], &long[..]];
    let requests: Vec<Request> = (0..3)
        .flat_map(|sample| prompts.map(|prompt| Request { prompt, sample }))
        .collect();
    let plain = SamplingSettings {
        // The window moves beyond the block.
        max_new_tokens: 2 * BLOCK_SIZE,
        ..SamplingSettings::default()
    };
    let filtered = SamplingSettings {
        top_k: 50,
        top_p: 0.9,
        min_p: 0.2,
        repetition_penalty: 1.3,
        seed: 5,
        ..plain
    };
    for settings in [plain, filtered] {
        let want: Vec<Vec<u32>> = (requests.iter())
            .map(|&request| expected(&model, request, &settings))
            .collect();
        for sequences in [1, 3, 16] {
            let got = generated(&model, &requests, &settings, sequences);
            assert_eq!(got, want, "{sequences} at a time");
        }
    }
}

#[test]
fn a_generator_has_room_for_its_longest_sequence_alone() {
    let folder = trained();
    let model = model(folder.path());
    let prompt = [5, 6, 7];
    let request = Request {
        prompt: &prompt,
        sample: 2,
    };
    let settings = SamplingSettings {
        max_new_tokens: BLOCK_SIZE - 3,
        ..SamplingSettings::default()
    };
    let short = SamplingSettings {
        max_new_tokens: 4,
        ..settings
    };
    let whole = generated(&model, &[request], &settings, 1);
    let beginning = generated(&model, &[request], &short, 1);
    assert_eq!(whole[0][..4], beginning[0]);
    let nothing = SamplingSettings {
        max_new_tokens: 0,
        ..settings
    };
    let empty = generated(&model, &[request, request], &nothing, 2);
    assert_eq!(empty, vec![Vec::<u32>::new(); 2]);
}

#[test]
fn the_batch_changes_no_text() {
    let folder = trained();
    let of = |flags: &[&str]| {
        let sixteen = ["--num-samples", "16", "--prompt", "fn ", "--seed", "4"];
        text(folder.path(), &[&sixteen[..], flags].concat())
    };
    let whole = of(&[]);
    assert_eq!(whole.matches("\n---------------\n").count(), 15);
    for size in ["1", "3", "16", "100"] {
        assert_eq!(of(&["--batch-size", size]), whole, "{size} at a time");
    }
    assert_eq!(of(&["--memory-limit", "1GiB"]), whole);
}

/// The limit is halfway between the memory of five sequences at a time and that of the smaller batches.
#[test]
fn less_memory_than_a_batch_takes_makes_it_smaller_and_changes_no_token() {
    let folder = trained();
    let model = model(folder.path());
    let requests: Vec<Request> = (0..5)
        .map(|sample| Request {
            prompt: &[5, 6],
            sample,
        })
        .collect();
    let settings = SamplingSettings {
        max_new_tokens: 10,
        ..SamplingSettings::default()
    };
    let whole = generated(&model, &requests, &settings, 5);
    let purpose = Purpose::Generation { positions: 12 };
    let bytes = |rung| {
        let (engine, precision) = (Engine::Cpu { threads: 2 }, Precision::Float32);
        gpt2(&model.dims, rung, purpose, engine, precision).bytes(precision)
    };
    let ladder = Generator::ladder(5);
    assert_eq!(
        ladder
            .iter()
            .map(|rung| rung.micro_batch)
            .collect::<Vec<_>>(),
        [5, 2, 1, 1]
    );
    for pair in ladder.windows(2) {
        let limit = bytes(pair[1]).midpoint(bytes(pair[0]));
        let memory = Memory::limited(Some(limit), 0, Faults::default());
        let mut generator = generator(&model, (5, 12), memory).unwrap();
        let texts = tokens_of(&mut generator, &requests, &settings);
        assert_eq!(texts, whole);
        let recoveries = generator.take_recoveries();
        assert_eq!(recoveries.last().map(|recovery| recovery.to), Some(pair[1]));
    }
    let memory = Memory::limited(Some(bytes(ladder[3]) - 1), 0, Faults::default());
    assert!(matches!(
        generator(&model, (5, 12), memory),
        Err(SamplingError::Allocation(_))
    ));
}
