//! Weights and moments that do not lie in the host's memory.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::Path;
use std::sync::Mutex;

use taper::checkpoint::{CheckpointError, Snapshot, find_latest, open, open_pretrained, save};
use taper::model::ParamLayout;
use taper::ops::backend::{CHUNK, Values, ValuesMut};
use taper::terms::ModelDims;

use super::{FILES, Run, bits, names_in, temp_dir, tiny};

/// What a device shows of its memory: copies of a chunk, until it fails.
struct Elsewhere {
    values: Vec<f32>,
    copies: Mutex<Copies>,
}

#[derive(Default)]
struct Copies {
    calls: usize,
    values: usize,
    /// The call that fails, and how.
    failing: Option<(usize, ErrorKind)>,
}

impl Copies {
    fn count(&mut self, values: usize) -> io::Result<()> {
        assert!((1..=CHUNK).contains(&values), "{values} values at once");
        self.calls += 1;
        self.values += values;
        match self.failing {
            Some((call, kind)) if call == self.calls => Err(io::Error::new(kind, "it is lost")),
            _ => Ok(()),
        }
    }
}

impl Elsewhere {
    fn new(values: Vec<f32>) -> Self {
        Self {
            values,
            copies: Mutex::default(),
        }
    }

    fn empty(len: usize) -> Self {
        Self::new(vec![7.0; len])
    }

    fn failing(mut self, call: usize, kind: ErrorKind) -> Self {
        self.copies.get_mut().unwrap().failing = Some((call, kind));
        self
    }

    fn copied(&self) -> usize {
        self.copies.lock().unwrap().values
    }

    fn calls(&self) -> usize {
        self.copies.lock().unwrap().calls
    }
}

impl Values for Elsewhere {
    fn len(&self) -> usize {
        self.values.len()
    }

    fn read(&self, start: usize, to: &mut [f32]) -> io::Result<()> {
        self.copies.lock().unwrap().count(to.len())?;
        to.copy_from_slice(&self.values[start..][..to.len()]);
        Ok(())
    }
}

impl ValuesMut for Elsewhere {
    fn write(&mut self, start: usize, from: &[f32]) -> io::Result<()> {
        self.copies.get_mut().unwrap().count(from.len())?;
        self.values[start..][..from.len()].copy_from_slice(from);
        Ok(())
    }
}

/// Matrices of more than a chunk, and of a length that is no multiple of one.
fn large(bias: bool) -> ModelDims {
    ModelDims {
        n_embd: 150,
        vocab_size: 901,
        ..tiny(bias)
    }
}

fn snapshot<'a>(run: &'a Run, [weights, m, v]: [&'a Elsewhere; 3]) -> Snapshot<'a> {
    Snapshot {
        weights,
        m,
        v,
        ..run.snapshot()
    }
}

fn copies(run: &Run) -> [Elsewhere; 3] {
    [&run.weights, &run.m, &run.v].map(|values| Elsewhere::new(values.clone()))
}

#[test]
fn a_device_writes_the_bytes_that_the_host_writes_and_reads_back_its_bits() {
    for dims in [tiny(true), tiny(false), large(true), large(false)] {
        let (host, device) = (temp_dir(), temp_dir());
        let run = Run::at(dims, 4);
        let expected = run.save(host.path());
        let sources = copies(&run);
        let path = save(device.path(), &snapshot(&run, sources.each_ref())).unwrap();
        for name in FILES {
            let same = fs::read(path.join(name)).unwrap() == fs::read(expected.join(name)).unwrap();
            assert!(same, "{name}");
        }
        let len = run.weights.len();
        assert_eq!(sources.each_ref().map(Elsewhere::copied), [len; 3]);

        let [mut weights, mut m, mut v] = [(); 3].map(|()| Elsewhere::empty(len));
        let checkpoint = open(&path).unwrap().checkpoint;
        checkpoint
            .load_into(&run.dims, &mut weights, &mut m, &mut v)
            .unwrap();
        for (loaded, saved) in [(weights, &run.weights), (m, &run.m), (v, &run.v)] {
            assert_eq!(bits(&loaded.values), bits(saved));
            assert_eq!(loaded.copied(), len);
        }
    }
}

#[test]
fn a_slice_is_as_good_as_a_vector() {
    let out = temp_dir();
    let mut run = Run::at(tiny(true), 4);
    let (weights, m, v) = (&run.weights[..], &run.m[..], &run.v[..]);
    let slices = Snapshot {
        weights: &weights,
        m: &m,
        v: &v,
        ..run.snapshot()
    };
    let path = save(out.path(), &slices).unwrap();
    let checkpoint = open(&path).unwrap().checkpoint;
    run.assert_is(&checkpoint);
    let saved = bits(&run.weights);
    run.weights.fill(7.0);
    let mut weights = &mut run.weights[..];
    checkpoint.load_weights(&run.dims, &mut weights).unwrap();
    assert_eq!(bits(&run.weights), saved);
}

/// The padding of the wide one is more than a chunk.
#[test]
fn a_model_is_cropped_and_padded_on_its_way_to_a_device() {
    let wide = ModelDims {
        n_embd: 2080,
        n_layer: 0,
        vocab_size: 65,
        ..tiny(true)
    };
    for dims in [tiny(true), wide] {
        let out = temp_dir();
        let run = Run::at(dims, 1);
        let pretrained = open_pretrained(&run.save(out.path())).unwrap();
        let target = ModelDims {
            block_size: 4,
            vocab_size: run.dims.vocab_size.next_multiple_of(64),
            ..run.dims.clone()
        };
        let len = ParamLayout::new(&target).len;
        let (mut host, mut device) = (vec![7.0; len], Elsewhere::empty(len));
        pretrained.load_weights(&target, &mut host).unwrap();
        pretrained.load_weights(&target, &mut device).unwrap();
        assert_eq!(bits(&device.values), bits(&host));
        let (stored, padded) = (&run.dims, target.vocab_size);
        let (filled, end) = (stored.vocab_size * stored.n_embd, padded * stored.n_embd);
        assert_eq!(bits(&host[..filled]), bits(&run.weights[..filled]));
        assert!(host[filled..end].iter().all(|x| x.to_bits() == 0));
    }
}

/// Every copy of every buffer fails once, of a new step and of one that is replaced.
#[test]
fn a_device_that_fails_during_a_save_leaves_the_earlier_checkpoints_and_no_rubble() {
    let out = temp_dir();
    let earlier = Run::at(large(true), 1);
    earlier.save(out.path());
    let files = [
        "model.safetensors",
        "optimizer.safetensors",
        "optimizer.safetensors",
    ];
    for step in [1, 2] {
        let run = Run {
            state: super::state(step),
            ..Run::at(large(true), 9)
        };
        for (buffer, file) in files.into_iter().enumerate() {
            let sources = copies(&run);
            save(temp_dir().path(), &snapshot(&run, sources.each_ref())).unwrap();
            let calls = sources[buffer].calls();
            assert!(calls > 20, "{calls} copies");
            for call in [1, 2, calls / 2, calls - 1, calls] {
                let mut sources = copies(&run);
                let kind = ErrorKind::Other;
                sources[buffer] = Elsewhere::new(run.weights.clone()).failing(call, kind);
                let error = save(out.path(), &snapshot(&run, sources.each_ref())).unwrap_err();
                assert_names(&error, step, file);
                assert_eq!(names_in(out.path()), ["ckpt-00000001"]);
            }
        }
        earlier.assert_is(&find_latest(out.path()).unwrap().checkpoint);
    }
}

fn assert_names(error: &CheckpointError, step: u64, file: &str) {
    let CheckpointError::Save {
        checkpoint,
        action,
        path,
        source,
    } = error
    else {
        panic!("expected a failed save, got {error:?}");
    };
    assert!(checkpoint.ends_with(format!("ckpt-{step:08}")), "{error}");
    assert_eq!(path.file_name(), Path::new(file).file_name());
    assert_eq!(*action, "fetch the values of");
    assert_eq!(source.to_string(), "it is lost");
    let hint = error.hint().unwrap();
    assert!(hint.contains("earlier checkpoints are intact") && hint.contains("`taper doctor`"));
}

#[test]
fn a_device_that_fails_while_it_is_filled_is_a_typed_error() {
    let out = temp_dir();
    let run = Run::at(large(true), 1);
    let checkpoint = open(&run.save(out.path())).unwrap().checkpoint;
    let len = run.weights.len();
    let load = |failing: Option<(usize, usize)>| {
        let mut sinks = [(); 3].map(|()| Elsewhere::empty(len));
        if let Some((buffer, call)) = failing {
            sinks[buffer] = Elsewhere::empty(len).failing(call, ErrorKind::Other);
        }
        let [weights, m, v] = &mut sinks;
        let loaded = checkpoint.load_into(&run.dims, weights, m, v);
        (loaded, sinks.map(|sink| sink.calls()))
    };
    let (loaded, calls) = load(None);
    loaded.unwrap();
    for (buffer, calls) in calls.into_iter().enumerate() {
        for call in [1, 2, calls / 2, calls] {
            match load(Some((buffer, call))).0 {
                Err(CheckpointError::Io {
                    action: "load",
                    path,
                    source,
                }) => {
                    let file = ["model", "optimizer"][usize::from(buffer > 0)];
                    assert!(path.ends_with(format!("{file}.safetensors")));
                    assert_eq!(source.to_string(), "it is lost");
                }
                other => panic!("buffer {buffer}, call {call}: {other:?}"),
            }
        }
    }
}

#[test]
fn a_device_that_lacks_memory_is_told_from_one_that_fails() {
    let out = temp_dir();
    let run = Run::at(tiny(true), 1);
    let lacking =
        |values: &[f32]| Elsewhere::new(values.to_vec()).failing(3, ErrorKind::OutOfMemory);
    let [_, m, v] = copies(&run);
    let weights = lacking(&run.weights);
    let error = save(out.path(), &snapshot(&run, [&weights, &m, &v])).unwrap_err();
    assert!(error.into_out_of_memory().is_ok());
    let checkpoint = open(&run.save(out.path())).unwrap().checkpoint;
    let error = checkpoint.load_weights(&run.dims, &mut lacking(&run.weights));
    assert!(error.unwrap_err().into_out_of_memory().is_ok());
}
