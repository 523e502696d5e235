//! GPT-2. The only place that knows the model: all others fold over the [`Program`].
//!
//! Read from top to bottom as nanoGPT's `model.py`: what a `GPT` and its `Block` are made of, their forward, and both
//! in reverse. Letters are those of [`crate::ops`].

use super::builder::{Builder, Nodes};
use super::{ParamLayout, Program};
use crate::ops::backend::{
    Affine, BufferId, DropoutSite, Embeddings, Matrix, Op, Owner, RowStats, Shape,
};
use crate::terms::{Engine, ModelDims, Precision, Purpose, Recompute, Rung};

/// Standard deviation of initial weights (GPT-2 paper, section 2.3, and its code).
const STD: f64 = 0.02;

/// GPT-2 at `rung`, on a kind of device that computes in `precision`.
pub fn gpt2(
    dims: &ModelDims,
    rung: Rung,
    purpose: Purpose,
    engine: Engine,
    precision: Precision,
) -> Program {
    let mut builder = Builder::new(dims, rung, purpose, engine, precision);
    let gpt = Gpt2::declare(dims, rung.recompute, &mut builder);
    gpt.forward(&mut builder.forward);
    gpt.copy(&mut builder.copy);
    gpt.losses(&mut builder);
    if purpose == Purpose::Training {
        let gradients = Gradients::declare(dims, &mut builder);
        gpt.backward(&gradients, &mut builder);
    }
    builder.finish(gpt.losses, gpt.logits)
}

/// The parameters of GPT-2, which are the same at every rung.
pub(super) fn params(dims: &ModelDims) -> ParamLayout {
    let rung = Rung {
        micro_batch: 1,
        recompute: Recompute::Block,
        logits_rows: 1,
    };
    let (purpose, precision) = (Purpose::Inference, Precision::Float32);
    let mut builder = Builder::new(dims, rung, purpose, Engine::Cuda, precision);
    Gpt2::declare(dims, rung.recompute, &mut builder);
    builder.params
}

/// Parameters, and what the forward writes.
struct Gpt2<'a> {
    dims: &'a ModelDims,
    recompute: Recompute,
    tables: Embeddings,
    embedding: Matrix, // (R, C)
    blocks: Vec<Block>,
    ln_f: Norm,
    /// The classifier, whose weight is the tokens' embedding.
    head: Affine,
    logits: Matrix, // (chunk, V)
    losses: Matrix, // (R, 1)
    /// The output of a branch, before it joins the residual stream.
    branch: Matrix, // (R, C)
    /// Scratch of attention.
    attention: BufferId,
    /// The slots of a program for generation.
    slots: Option<Shape>,
}

/// Parameters and activations of a block. Several blocks may share the buffer of an activation.
struct Block {
    ln_1: Norm,
    c_attn: Affine,
    qkv: Matrix,       // (R, 3C)
    attention: Matrix, // (R, C)
    lse: Matrix,       // (B, H, T)
    /// Keys and values of a program for generation.
    cache: Option<BufferId>, // (slots, 2, H, T, D)
    attn_proj: Affine,
    /// The residual stream between attention and MLP.
    residual: Matrix, // (R, C)
    ln_2: Norm,
    c_fc: Affine,
    fc: Matrix,   // (R, 4C), before the activation
    gelu: Matrix, // (R, 4C)
    mlp_proj: Affine,
    /// The residual stream behind the block.
    out: Matrix, // (R, C)
}

/// A layer norm, its output, and the statistics of its input's rows.
struct Norm {
    affine: Affine,
    out: Matrix, // (R, C)
    stats: RowStats,
}

impl<'a> Gpt2<'a> {
    fn declare(dims: &'a ModelDims, recompute: Recompute, builder: &mut Builder) -> Self {
        let (c, model) = (dims.n_embd, Owner::Model);
        builder.path = "transformer".into();
        let tables = Embeddings {
            wte: builder.embedding("wte", [dims.vocab_size, c], STD),
            wpe: builder.embedding("wpe", [dims.block_size, c], STD),
        };
        let blocks = (0..dims.n_layer).map(|index| Block::declare(dims, index, recompute, builder));
        let blocks = blocks.collect();
        builder.path = "transformer".into();
        Self {
            dims,
            recompute,
            embedding: builder.activation(model, "embedding", c),
            blocks,
            ln_f: Norm {
                affine: builder.norm("ln_f", c),
                out: builder.activation(model, "ln_f", c),
                stats: builder.row_stats(model, ["ln_f.mean", "ln_f.rstd"]),
            },
            head: Affine {
                label: "logits",
                weight: tables.wte.clone(),
                bias: None,
            },
            tables,
            losses: builder.statistic(model, "losses", 1),
            branch: builder.workspace("branch", c),
            attention: builder.attention_scratch(dims.n_head, c),
            slots: builder.slots(dims.n_head, c),
            logits: builder.logits(dims.vocab_size),
        }
    }
}

impl Block {
    fn declare(
        dims: &ModelDims,
        index: usize,
        recompute: Recompute,
        builder: &mut Builder,
    ) -> Self {
        let c = dims.n_embd;
        // Projections back into the residual stream start smaller, by the number of them.
        let projection_std = STD / (2.0 * dims.n_layer as f64).sqrt();
        let (own, shared) = (Owner::Block(index), Owner::AllBlocks);
        // What is expensive to compute again, and what is cheap.
        let (kept, cheap) = match recompute {
            Recompute::None => (own, own),
            Recompute::GeluLn => (own, shared),
            Recompute::Block => (shared, shared),
        };
        // Without a backward only cached keys and values are read again.
        let (cached, kept, cheap, out) = if builder.is_training() {
            (kept, kept, cheap, own)
        } else {
            (kept, shared, shared, shared)
        };
        builder.path = format!("transformer.h.{index}");
        Self {
            ln_1: Norm {
                affine: builder.norm("ln_1", c),
                out: builder.activation(cheap, "ln_1", c),
                stats: builder.row_stats(kept, ["ln_1.mean", "ln_1.rstd"]),
            },
            c_attn: builder.linear("c_attn", "attn.c_attn", [3 * c, c], STD),
            qkv: builder.activation(kept, "attn.qkv", 3 * c),
            attention: builder.activation(kept, "attn.out", c),
            lse: builder.statistic(kept, "attn.lse", dims.n_head),
            cache: builder.cache(cached, dims.n_head, c),
            attn_proj: builder.linear("attn.c_proj", "attn.c_proj", [c, c], projection_std),
            residual: builder.activation(kept, "residual", c),
            ln_2: Norm {
                affine: builder.norm("ln_2", c),
                out: builder.activation(cheap, "ln_2", c),
                stats: builder.row_stats(kept, ["ln_2.mean", "ln_2.rstd"]),
            },
            c_fc: builder.linear("c_fc", "mlp.c_fc", [4 * c, c], STD),
            fc: builder.activation(kept, "mlp.fc", 4 * c),
            gelu: builder.activation(cheap, "mlp.gelu", 4 * c),
            mlp_proj: builder.linear("mlp.c_proj", "mlp.c_proj", [c, 4 * c], projection_std),
            out: builder.activation(out, "out", c),
        }
    }
}

/// Gradients of activations, each overwritten block by block.
struct Gradients {
    /// The residual stream's.
    residual: Matrix, // (R, C)
    /// Those of a branch's output or input.
    branch: Matrix, // (R, C)
    wide: Matrix, // (R, 4C)
    /// Partial sums of parameters' gradients.
    partials: BufferId,
}

impl Gradients {
    fn declare(dims: &ModelDims, builder: &mut Builder) -> Self {
        let c = dims.n_embd;
        Self {
            residual: builder.workspace("d residual", c),
            branch: builder.workspace("d branch", c),
            wide: builder.workspace("d wide", 4 * c),
            partials: builder.partials(),
        }
    }

    fn weight_gradients(&self, layer: &Affine, dy: Matrix, x: Matrix) -> Op {
        Op::WeightGradients {
            layer: layer.clone(),
            dy,
            x,
            partials: self.partials,
        }
    }

    /// From the gradient of the norm's output, in `branch`, into `residual`.
    fn norm_gradients(&self, norm: &Norm, x: Matrix) -> Op {
        Op::NormGradients {
            norm: norm.affine.clone(),
            dout: self.branch,
            x,
            stats: norm.stats,
            dx: self.residual,
            partials: self.partials,
        }
    }
}

fn linear(layer: &Affine, x: Matrix, y: Matrix) -> Op {
    let layer = layer.clone();
    Op::Linear { layer, x, y }
}

fn input_gradients(layer: &Affine, dy: Matrix, dx: Matrix) -> Op {
    let layer = layer.clone();
    Op::InputGradients { layer, dy, dx }
}

fn norm(norm: &Norm, x: Matrix) -> Op {
    Op::Norm {
        norm: norm.affine.clone(),
        x,
        out: norm.out,
        stats: norm.stats,
    }
}

/// The site of a block's attention weights, from which its heads count on.
fn weights_site(layer: usize) -> DropoutSite {
    DropoutSite::Attention { layer, head: 0 }
}

impl Gpt2<'_> {
    fn forward(&self, nodes: &mut Nodes) {
        let (tables, out) = (self.tables.clone(), self.embedding);
        nodes.push(match self.slots {
            Some(slots) => Op::EmbedAt { tables, out, slots },
            None => Op::Embed {
                tables,
                out,
                site: DropoutSite::Embedding,
            },
        });
        let first = self.blocks.first().map_or(&self.ln_f, |first| &first.ln_1);
        nodes.push(norm(first, self.embedding));
        for (index, block) in self.blocks.iter().enumerate() {
            nodes.enter_block(index);
            self.activations(index, nodes);
            nodes.push(linear(&block.mlp_proj, block.gelu, self.branch));
            let next = self
                .blocks
                .get(index + 1)
                .map_or(&self.ln_f, |next| &next.ln_1);
            let site = DropoutSite::MlpOutput { layer: index };
            nodes.push(self.join(block.residual, block.out, site, next));
        }
        nodes.leave_blocks();
    }

    fn copy(&self, nodes: &mut Nodes) {
        for (index, block) in self.blocks.iter().enumerate() {
            if let Some((slots, cache)) = self.slots.zip(block.cache) {
                nodes.enter_block(index);
                nodes.push(Op::CopyCache { slots, cache });
            }
        }
    }

    /// Block `index` from its first norm's output up to the activation of its MLP: all that its backward reads.
    fn activations(&self, index: usize, nodes: &mut Nodes) {
        let block = &self.blocks[index];
        nodes.push(linear(&block.c_attn, block.ln_1.out, block.qkv));
        nodes.push(match self.slots.zip(block.cache) {
            Some((slots, cache)) => Op::CachedAttention {
                slots,
                qkv: block.qkv,
                cache,
                out: block.attention,
                scratch: self.attention,
            },
            None => Op::Attention {
                heads: self.dims.n_head,
                qkv: block.qkv,
                out: block.attention,
                lse: block.lse,
                scratch: self.attention,
                site: weights_site(index),
            },
        });
        nodes.push(linear(&block.attn_proj, block.attention, self.branch));
        let (x, site) = (
            self.input_of(index),
            DropoutSite::AttentionOutput { layer: index },
        );
        nodes.push(self.join(x, block.residual, site, &block.ln_2));
        nodes.push(Op::LinearGelu {
            form: self.dims.gelu,
            layer: block.c_fc.clone(),
            x: block.ln_2.out,
            y: block.fc,
            activated: block.gelu,
        });
    }

    /// The branch joins the residual stream `x`, and the sum is normalised for what comes next.
    fn join(&self, x: Matrix, sum: Matrix, site: DropoutSite, next: &Norm) -> Op {
        Op::ResidualNorm {
            x,
            branch: self.branch,
            sum,
            site,
            norm: next.affine.clone(),
            out: next.out,
            stats: next.stats,
        }
    }

    /// The residual stream that enters block `index`; with `index` the number of blocks, the final norm.
    fn input_of(&self, index: usize) -> Matrix {
        match index.checked_sub(1) {
            Some(previous) => self.blocks[previous].out,
            None => self.embedding,
        }
    }

    /// The classifier. Its logits exist a chunk at a time.
    fn losses(&self, builder: &mut Builder) {
        let (logits, losses) = (self.logits, self.losses);
        builder.head.push(linear(&self.head, self.ln_f.out, logits));
        builder
            .chunk_losses
            .push(Op::CrossEntropy { logits, losses });
        builder.tally.push(Op::AddLosses { losses });
    }

    fn backward(&self, d: &Gradients, builder: &mut Builder) {
        let (logits, losses, nodes) = (self.logits, self.losses, &mut builder.chunk_gradients);
        nodes.push(Op::CrossEntropyGradients { logits, losses });
        nodes.push(input_gradients(&self.head, logits, d.branch));
        nodes.push(d.weight_gradients(&self.head, logits, self.ln_f.out));

        let nodes = &mut builder.backward;
        nodes.push(Op::Zero { x: d.residual });
        nodes.push(d.norm_gradients(&self.ln_f, self.input_of(self.blocks.len())));
        for index in (0..self.blocks.len()).rev() {
            nodes.enter_block(index);
            nodes.recompute(|nodes| self.recompute(index, nodes));
            self.mlp_backward(index, d, nodes);
            self.attention_backward(index, d, nodes);
        }
        nodes.leave_blocks();
        nodes.push(Op::EmbeddingGradients {
            tables: self.tables.clone(),
            dx: d.residual,
            site: DropoutSite::Embedding,
            partials: d.partials,
        });
    }

    /// Recomputes the buffers that block `index` shares with others. Those of the last block still hold its values
    /// after the forward.
    fn recompute(&self, index: usize, nodes: &mut Nodes) {
        let block = &self.blocks[index];
        if index + 1 == self.blocks.len() || self.recompute == Recompute::None {
            return;
        }
        nodes.push(norm(&block.ln_1, self.input_of(index)));
        if self.recompute == Recompute::Block {
            return self.activations(index, nodes);
        }
        nodes.push(norm(&block.ln_2, block.residual));
        nodes.push(Op::Gelu {
            form: self.dims.gelu,
            x: block.fc,
            out: block.gelu,
        });
    }

    /// The MLP of block `index` in reverse, from `d.residual` and into it.
    fn mlp_backward(&self, index: usize, d: &Gradients, nodes: &mut Nodes) {
        let block = &self.blocks[index];
        let dy = self.branch_gradient(DropoutSite::MlpOutput { layer: index }, d, nodes);
        nodes.push(d.weight_gradients(&block.mlp_proj, dy, block.gelu));
        nodes.push(Op::GeluInputGradients {
            form: self.dims.gelu,
            layer: block.mlp_proj.clone(),
            dy,
            x: block.fc,
            dx: d.wide,
        });
        nodes.push(d.weight_gradients(&block.c_fc, d.wide, block.ln_2.out));
        nodes.push(input_gradients(&block.c_fc, d.wide, d.branch));
        nodes.push(d.norm_gradients(&block.ln_2, block.residual));
    }

    /// The attention of block `index` in reverse, from `d.residual` and into it.
    fn attention_backward(&self, index: usize, d: &Gradients, nodes: &mut Nodes) {
        let (block, dqkv) = (
            &self.blocks[index],
            d.wide.with_columns(3 * self.dims.n_embd),
        );
        let dy = self.branch_gradient(DropoutSite::AttentionOutput { layer: index }, d, nodes);
        nodes.push(d.weight_gradients(&block.attn_proj, dy, block.attention));
        nodes.push(input_gradients(&block.attn_proj, dy, self.branch));
        nodes.push(Op::AttentionGradients {
            heads: self.dims.n_head,
            dout: self.branch,
            qkv: block.qkv,
            out: block.attention,
            lse: block.lse,
            dqkv,
            scratch: self.attention,
            site: weights_site(index),
        });
        nodes.push(d.weight_gradients(&block.c_attn, dqkv, block.ln_1.out));
        nodes.push(input_gradients(&block.c_attn, dqkv, d.branch));
        nodes.push(d.norm_gradients(&block.ln_1, self.input_of(index)));
    }

    /// The gradient of a branch's output: that of the residual stream, after the dropout at `site`.
    fn branch_gradient(&self, site: DropoutSite, d: &Gradients, nodes: &mut Nodes) -> Matrix {
        if self.dims.dropout == 0.0 {
            return d.residual;
        }
        let (x, out) = (d.residual, d.branch);
        nodes.push(Op::Dropout { x, out, site });
        out
    }
}
