//! Measurements of a run: losses, rates and the time left.
//!
//! Nothing here reads a clock. The loop passes durations in, so every printed figure can be tested.

use std::collections::VecDeque;
use std::time::Duration;

use crate::model::ParamLayout;
use crate::terms::ModelDims;

/// One optimizer step, as the loop saw it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct StepReport {
    /// Optimizer steps done since the very start of the run, this one included.
    pub step: u64,
    /// Mean over all tokens of the step, in nats.
    pub loss: f64,
    pub learning_rate: f64,
    /// Global L2 norm of the gradient before clipping.
    pub grad_norm: f64,
    /// Tokens in this step.
    pub tokens: u64,
    /// Tokens trained on since the very start of the run, this step's included.
    pub tokens_seen: u64,
    /// Wall-clock time of this step.
    pub duration: Duration,
    /// Parts of `duration`.
    pub phases: StepPhases,
    /// Memory held on the GPU; `None` on the CPU.
    pub device_bytes: Option<u64>,
}

/// Wall-clock time of the parts of a step, as the host spends it.
///
/// A GPU works behind the host, which waits for it once, in the update. So on a GPU `micro_steps` is the time that
/// launching takes, and `update` that of waiting.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct StepPhases {
    /// Reading samples.
    pub data: Duration,
    /// Forward and backward of every micro-step, without `data`.
    pub micro_steps: Duration,
    /// Clipping and the optimizer's update.
    pub update: Duration,
}

/// One evaluation: the mean loss over the same batches of each split every time, in nats.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EvalReport {
    /// Optimizer steps done before this evaluation.
    pub step: u64,
    pub train_loss: f64,
    pub val_loss: f64,
    /// Wall-clock time of both splits.
    pub duration: Duration,
}

impl EvalReport {
    pub fn train_perplexity(&self) -> f64 {
        perplexity(self.train_loss)
    }

    pub fn val_perplexity(&self) -> f64 {
        perplexity(self.val_loss)
    }
}

/// exp(loss), for a loss in nats per token.
pub fn perplexity(loss: f64) -> f64 {
    loss.exp()
}

/// Floating-point operations of training on one token, forward and backward, by nanoGPT's formula
/// (`GPT.estimate_mfu` in its model.py, after appendix B of PaLM, <https://arxiv.org/abs/2204.02311>):
///
/// 6 N + 12 L H Q T
///
/// N = parameters without the position embedding, L = layers, H = heads, Q = head size,
/// T = block size. GPT-2 124M: 0.85 GFLOP. Causal attention counts as if it were full.
///
/// Basis of the utilization (MFU), which is comparable only by the same formula. What operations really do is counted
/// by [`Op::work`](crate::ops::backend::Op::work).
pub fn flops_per_token(dims: &ModelDims) -> f64 {
    let parameters = ParamLayout::new(dims).len - dims.block_size * dims.n_embd;
    let channels = dims.n_embd as f64; // H Q
    6.0 * parameters as f64 + 12.0 * dims.n_layer as f64 * channels * dims.block_size as f64
}

/// Steps whose times make up the present rate.
const WINDOW: usize = 32;
/// Weight of the past in the running loss, per step.
const LOSS_DECAY: f64 = 0.98;

/// Turns the durations of steps and evaluations into rates and the time left.
#[derive(Clone, Debug)]
pub struct Meter {
    max_iters: u64,
    eval_interval: u64,
    step: u64,
    last_eval_step: u64,
    last_eval: Duration,
    recent: VecDeque<StepTime>,
    steps: u64,
    tokens: u64,
    training_time: Duration,
    loss_sum: f64,
    loss_weight: f64,
}

#[derive(Clone, Copy, Debug)]
struct StepTime {
    tokens: u64,
    seconds: f64,
}

impl Meter {
    /// A meter of a run that goes from `start_step` (0, or where a resumed run continues) to `max_iters`
    /// and evaluates at every multiple of `eval_interval` (0: never).
    pub fn new(start_step: u64, max_iters: u64, eval_interval: u64) -> Self {
        Self {
            max_iters,
            eval_interval,
            step: start_step,
            last_eval_step: start_step,
            last_eval: Duration::ZERO,
            recent: VecDeque::with_capacity(WINDOW),
            steps: 0,
            tokens: 0,
            training_time: Duration::ZERO,
            loss_sum: 0.0,
            loss_weight: 0.0,
        }
    }

    pub fn step(&mut self, report: &StepReport) {
        self.step = report.step;
        // The first step pays for cold caches and page faults: it says nothing about the others.
        if self.steps > 0 {
            if self.recent.len() == WINDOW {
                self.recent.pop_front();
            }
            self.recent.push_back(StepTime {
                tokens: report.tokens,
                seconds: report.duration.as_secs_f64(),
            });
        }
        self.steps += 1;
        self.tokens += report.tokens;
        self.training_time += report.duration;
        self.loss_sum = LOSS_DECAY * self.loss_sum + (1.0 - LOSS_DECAY) * report.loss;
        self.loss_weight = LOSS_DECAY * self.loss_weight + (1.0 - LOSS_DECAY);
    }

    pub fn eval(&mut self, report: &EvalReport) {
        self.last_eval_step = report.step;
        self.last_eval = report.duration;
    }

    /// The present rate: the median over the last 32 steps, without the first step of the
    /// process. One step that the machine held up does not move it. `None` before the second step.
    pub fn tokens_per_second(&self) -> Option<f64> {
        let rates = self.recent.iter().map(|t| t.tokens as f64 / t.seconds);
        median(rates).filter(|rate| rate.is_finite())
    }

    /// Time until `max_iters`: the steps left at the median step time, and the evaluations left,
    /// each as long as the last one took. Writing checkpoints is not counted.
    pub fn eta(&self) -> Option<Duration> {
        let step_seconds = median(self.recent.iter().map(|t| t.seconds))?;
        let steps = self.max_iters.saturating_sub(self.step) as f64 * step_seconds;
        let evals = self.evals_left() as f64 * self.last_eval.as_secs_f64();
        Duration::try_from_secs_f64(steps + evals).ok()
    }

    /// Running loss: an exponential average with weight 0.98 on the past, corrected for its
    /// start as Adam's moments are. `None` before the first step.
    pub fn smoothed_loss(&self) -> Option<f64> {
        (self.steps > 0).then(|| self.loss_sum / self.loss_weight)
    }

    /// Steps done by this process.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// Tokens trained on by this process.
    pub fn tokens(&self) -> u64 {
        self.tokens
    }

    /// Time spent in steps by this process, evaluations and checkpoints left out.
    pub fn training_time(&self) -> Duration {
        self.training_time
    }

    /// Tokens per second over every step of this process, the first one included.
    pub fn average_tokens_per_second(&self) -> Option<f64> {
        let rate = self.tokens as f64 / self.training_time.as_secs_f64();
        (self.steps > 0 && rate.is_finite()).then_some(rate)
    }

    /// Evaluations left: multiples of the interval after the last evaluation, up to the end.
    fn evals_left(&self) -> u64 {
        let until = |step: u64| step.checked_div(self.eval_interval).unwrap_or(0);
        until(self.max_iters).saturating_sub(until(self.last_eval_step))
    }
}

/// The middle value, or the mean of the two middle ones; `None` of nothing.
pub(crate) fn median(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut sorted: Vec<f64> = values.collect();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        n if n % 2 == 1 => Some(sorted[middle]),
        _ => Some((sorted[middle - 1] + sorted[middle]) / 2.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::terms::Gelu;

    fn step(step: u64, loss: f64, ms: u64) -> StepReport {
        StepReport {
            step,
            loss,
            learning_rate: 1e-3,
            grad_norm: 1.0,
            tokens: 1_000,
            duration: Duration::from_millis(ms),
            ..StepReport::default()
        }
    }

    fn eval(step: u64, seconds: u64) -> EvalReport {
        EvalReport {
            step,
            train_loss: 2.0,
            val_loss: 2.0,
            duration: Duration::from_secs(seconds),
        }
    }

    fn dims(vocab_size: usize, bias: bool) -> ModelDims {
        ModelDims {
            n_layer: 12,
            n_head: 12,
            n_embd: 768,
            block_size: 1024,
            vocab_size,
            bias,
            dropout: 0.0,
            gelu: Gelu::Tanh,
        }
    }

    /// N of nanoGPT's train.py for GPT-2 124M is 123.59M (it prints that), Q H = 768.
    #[test]
    fn flops_of_gpt2_124m_are_nanogpt_s() {
        let expected = 6.0 * 123_587_328.0 + 12.0 * 12.0 * 768.0 * 1024.0;
        assert_eq!(flops_per_token(&dims(50_304, false)), expected);
        assert_eq!((expected / 1e7).round() / 100.0, 0.85);
        // Biases are parameters too: 11 C per layer and C in the last layer norm.
        let biases = 6.0 * (12.0 * 11.0 + 1.0) * 768.0;
        assert_eq!(flops_per_token(&dims(50_304, true)), expected + biases);
    }

    #[test]
    fn perplexity_is_the_exponential_of_the_loss() {
        assert!((perplexity(50_257f64.ln()) - 50_257.0).abs() < 1e-6);
        assert_eq!(perplexity(0.0), 1.0);
    }

    #[test]
    fn the_rate_is_the_median_without_the_first_step() {
        let mut meter = Meter::new(0, 100, 0);
        meter.step(&step(1, 4.0, 9_000));
        assert_eq!(meter.tokens_per_second(), None);
        assert_eq!(meter.eta(), None);
        for (n, ms) in [(2, 100), (3, 125), (4, 60_000)] {
            meter.step(&step(n, 4.0, ms));
        }
        assert_eq!(meter.tokens_per_second(), Some(8_000.0));
        assert_eq!(meter.eta(), Some(Duration::from_secs(12))); // 96 steps of 125 ms
    }

    #[test]
    fn the_rate_follows_the_last_32_steps() {
        let mut meter = Meter::new(0, 1_000, 0);
        for n in 1..=200 {
            meter.step(&step(n, 4.0, 500));
        }
        for n in 201..=217 {
            meter.step(&step(n, 4.0, 250));
        }
        assert_eq!(meter.tokens_per_second(), Some(4_000.0));
    }

    #[test]
    fn the_average_counts_every_step_and_only_steps() {
        let mut meter = Meter::new(500, 1_000, 100);
        assert_eq!(meter.average_tokens_per_second(), None);
        meter.eval(&eval(500, 3_600));
        meter.step(&step(501, 4.0, 1_500));
        meter.step(&step(502, 4.0, 500));
        assert_eq!(meter.average_tokens_per_second(), Some(1_000.0));
        assert_eq!((meter.steps(), meter.tokens()), (2, 2_000));
        assert_eq!(meter.training_time(), Duration::from_secs(2));
    }

    #[test]
    fn the_time_left_counts_the_evaluations_left() {
        let mut meter = Meter::new(0, 1_000, 250);
        meter.eval(&eval(0, 10));
        meter.step(&step(1, 4.0, 100));
        meter.step(&step(2, 4.0, 100));
        // 998 steps of 0.1 s, evaluations at 250, 500, 750 and 1000.
        assert_eq!(meter.eta(), Some(Duration::from_millis(99_800 + 40_000)));
        // At step 250 the evaluation of step 250 is still to come ...
        meter.step(&step(250, 4.0, 100));
        assert_eq!(meter.eta(), Some(Duration::from_millis(75_000 + 40_000)));
        // ... and then it is not, and the next ones are expected to take as long.
        meter.eval(&eval(250, 20));
        assert_eq!(meter.eta(), Some(Duration::from_millis(75_000 + 60_000)));
    }

    #[test]
    fn a_run_past_its_end_has_no_time_left() {
        let mut meter = Meter::new(0, 2, 1);
        for n in 1..=3 {
            meter.step(&step(n, 4.0, 100));
            meter.eval(&eval(n, 5));
        }
        assert_eq!(meter.eta(), Some(Duration::ZERO));
    }

    #[test]
    fn steps_that_took_no_time_give_no_rate() {
        let mut meter = Meter::new(0, 10, 1);
        meter.step(&step(1, 4.0, 0));
        meter.step(&step(2, 4.0, 0));
        assert_eq!(meter.tokens_per_second(), None);
        assert_eq!(meter.average_tokens_per_second(), None);
    }

    #[test]
    fn the_running_loss_starts_at_the_first_loss_and_forgets_it() {
        let mut meter = Meter::new(0, 10_000, 0);
        assert_eq!(meter.smoothed_loss(), None);
        meter.step(&step(1, 10.0, 1));
        assert!((meter.smoothed_loss().unwrap() - 10.0).abs() < 1e-12);
        meter.step(&step(2, 2.0, 1));
        // Weights 0.98 and 1, over their sum.
        let expected = (0.98 * 10.0 + 2.0) / 1.98;
        assert!((meter.smoothed_loss().unwrap() - expected).abs() < 1e-12);
        for n in 3..2_000 {
            meter.step(&step(n, 2.0, 1));
        }
        assert!((meter.smoothed_loss().unwrap() - 2.0).abs() < 1e-9);
    }
}
