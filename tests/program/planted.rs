//! Programs with one mistake each: it is found, by its name and with the buffer's.

use taper::model::{Node, Program};
use taper::ops::backend::{Op, OpKind};
use taper::terms::Recompute;

use super::edit::{buffer, lists, operands, replace, writer, written};
use super::{dims, training};
use crate::flow::{Dataflow, Flow, Operand};
use crate::validate::{Fault, Place, gradient_symbols, validate};

fn good(recompute: Recompute) -> Program {
    training(&dims(0.1), recompute)
}

fn kept() -> Program {
    good(Recompute::None)
}

fn place(op: OpKind, layer: impl Into<Option<usize>>, buffer: &str) -> Place {
    Place {
        op,
        layer: layer.into(),
        buffer: buffer.into(),
    }
}

/// The place of the one operation of that kind in a block.
#[track_caller]
fn only(nodes: &[Node], layer: impl Into<Option<usize>>, kind: OpKind) -> usize {
    let layer = layer.into();
    let is_it = |node: &Node| node.layer == layer && node.op.kind() == kind;
    assert_eq!(nodes.iter().filter(|node| is_it(node)).count(), 1);
    nodes.iter().position(is_it).unwrap()
}

#[test]
fn a_good_program_has_no_fault() {
    for recompute in Recompute::ALL {
        assert_eq!(validate(&good(recompute)), []);
    }
}

#[test]
fn what_the_forward_does_not_compute_is_read_before_it_is_written() {
    let mut program = kept();
    let missing = writer(&program, &program.forward, Some(1), "h.1.attn.qkv");
    program.forward.remove(missing);
    let readers = [OpKind::Attention, OpKind::AttentionGradients];
    let expected = readers.map(|op| Fault::ReadBeforeWrite(place(op, 1, "h.1.attn.qkv")));
    assert_eq!(validate(&program), expected);

    let mut program = kept();
    let missing = only(&program.forward, None, OpKind::Embedding);
    program.forward.remove(missing);
    let readers = [
        (OpKind::Norm, None),
        (OpKind::ResidualNorm, Some(0)),
        (OpKind::NormGradients, Some(0)),
    ];
    let expected = readers.map(|(op, layer)| {
        let place = place(op, layer, "embedding");
        Fault::ReadBeforeWrite(place)
    });
    assert_eq!(validate(&program), expected);
}

/// All but those that write scratch: that has the value of an earlier operation.
#[test]
fn every_operation_of_the_forward_is_missed_by_a_reader_of_each_of_its_results() {
    let good = kept();
    for index in 0..good.forward.len() {
        let mut program = good.clone();
        let node = program.forward.remove(index);
        let results = written(&good, &node);
        if results == ["branch"] {
            continue;
        }
        let faults = validate(&program);
        for name in results {
            let is_missed = faults.iter().any(
                |fault| matches!(fault, Fault::ReadBeforeWrite(place) if place.buffer == name),
            );
            assert!(is_missed, "{name} of {:?}: {faults:?}", node.op);
        }
    }
}

#[test]
fn logits_that_are_not_computed_are_missed() {
    let mut program = kept();
    program.head.clear();
    let first = place(OpKind::CrossEntropy, None, "logits");
    assert_eq!(validate(&program)[0], Fault::ReadBeforeWrite(first));
}

/// The names of an operation's parameters.
fn params(program: &Program, op: &Op) -> Vec<String> {
    let flow = op.flow();
    let written = |offset| flow.changes.contains(&Operand::Gradient(offset));
    let params = program.params.params.iter();
    let params = params.filter(|param| written(param.offset));
    params.map(|param| param.name.clone()).collect()
}

#[test]
fn parameters_without_a_gradient_are_named() {
    let good = kept();
    let mut named = Vec::new();
    for (index, node) in good.backward.iter().enumerate() {
        let params = params(&good, &node.op);
        if params.is_empty() {
            continue;
        }
        let mut program = good.clone();
        program.backward.remove(index);
        let faults = validate(&program);
        let untrained: Vec<String> = faults
            .into_iter()
            .filter_map(|fault| match fault {
                Fault::NoGradient { param } => Some(param),
                _ => None,
            })
            .collect();
        // The classifier still brings the embedding of the tokens a gradient.
        let expected: Vec<String> = params
            .into_iter()
            .filter(|name| name != "transformer.wte.weight")
            .collect();
        assert_eq!(untrained, expected);
        named.extend(untrained);
    }
    assert_eq!(named.len() + 1, good.params.params.len());
}

#[test]
fn a_gradient_that_nothing_reads_is_lost_when_the_next_is_written() {
    // The norm of the MLP reads the gradient of its output, which the attention's replaces.
    let mut program = kept();
    let reads_d_branch = |node: &Node| {
        let d_branch = Operand::Buffer(buffer(&kept(), "d branch"));
        let is_norm = node.op.kind() == OpKind::NormGradients;
        is_norm && node.layer == Some(1) && node.op.flow().reads.contains(&d_branch)
    };
    let reader = program.backward.iter().position(reads_d_branch).unwrap();
    program.backward.remove(reader);
    let lost = Fault::LostWrite(place(OpKind::Dropout, 1, "d branch"));
    assert!(
        validate(&program).contains(&lost),
        "{:?}",
        validate(&program)
    );

    let mut program = kept();
    let attention = only(&program.backward, 1, OpKind::AttentionGradients);
    program.backward.remove(attention);
    let lost = Fault::LostWrite(place(OpKind::InputGradients, 0, "branch"));
    assert_eq!(validate(&program), [lost]);
}

#[test]
fn operations_in_the_wrong_order_are_found() {
    let mut program = kept();
    let attention = only(&program.forward, 1, OpKind::Attention);
    program.forward.swap(attention - 1, attention);
    let unwritten = place(OpKind::Attention, 1, "h.1.attn.qkv");
    assert_eq!(validate(&program), [Fault::ReadBeforeWrite(unwritten)]);

    // The last block's MLP: the gradient of its first layer needs that of its activation.
    let mut program = kept();
    let wide = writer(&program, &program.backward, Some(2), "d wide");
    program.backward.swap(wide, wide + 1);
    let unwritten = place(OpKind::WeightGradients, 2, "d wide");
    assert_eq!(validate(&program)[0], Fault::ReadBeforeWrite(unwritten));

    let mut program = kept();
    assert_eq!(program.backward[0].op.kind(), OpKind::Zeroing);
    program.backward.swap(0, 1);
    let unwritten = place(OpKind::NormGradients, None, "d residual");
    assert!(validate(&program).contains(&Fault::ReadBeforeWrite(unwritten)));
}

#[test]
fn an_operation_that_writes_its_own_operand_is_found() {
    // A linear layer whose output is its input.
    let mut program = kept();
    let linear = writer(&program, &program.forward, Some(0), "h.0.attn.qkv");
    let Op::Linear { x, y, .. } = &mut program.forward[linear].op else {
        panic!("not a linear layer");
    };
    y.buffer = x.buffer;
    let aliased = Fault::Aliased(place(OpKind::Products, 0, "h.0.ln_1"));
    assert!(
        validate(&program).contains(&aliased),
        "{:?}",
        validate(&program)
    );

    // Two outputs in one buffer.
    let mut program = kept();
    let gelu = writer(&program, &program.forward, Some(2), "h.2.mlp.gelu");
    let Op::LinearGelu { y, activated, .. } = &mut program.forward[gelu].op else {
        panic!("not a linear layer with GELU");
    };
    *activated = *y;
    let aliased = Fault::Aliased(place(OpKind::Products, 2, "h.2.mlp.fc"));
    assert!(
        validate(&program).contains(&aliased),
        "{:?}",
        validate(&program)
    );
}

#[test]
fn scratch_that_is_another_operand_is_found() {
    let good = kept();
    let mut planted = 0;
    for (list, nodes) in lists(&mut good.clone()).into_iter().enumerate() {
        let of_training = list != 2;
        let nodes = nodes.iter_mut().enumerate().filter(|_| of_training);
        for (index, node) in nodes.filter(|(_, node)| node.op.flow().scratch.is_some()) {
            let (kind, layer) = (node.op.kind(), node.layer);
            for matrix in operands(&mut node.op).0 {
                let mut program = good.clone();
                let (_, scratch) = operands(&mut lists(&mut program)[list][index].op);
                *scratch.unwrap() = matrix.buffer;
                let name = good.buffers[matrix.buffer.0].name.to_string();
                let aliased = Fault::Aliased(place(kind, layer, &name));
                assert!(validate(&program).contains(&aliased), "{aliased}");
                planted += 1;
            }
        }
    }
    assert!(planted > 50, "{planted}");
}

#[test]
fn what_was_scratch_has_no_value() {
    let mut program = kept();
    let attention = buffer(&program, "h.0.attn.out");
    let last = only(&program.backward, 2, OpKind::AttentionGradients);
    let Op::AttentionGradients { scratch, .. } = &mut program.backward[last].op else {
        panic!("not the gradients of attention");
    };
    *scratch = attention;
    let readers = [OpKind::WeightGradients, OpKind::AttentionGradients];
    let expected = readers.map(|op| Fault::ReadBeforeWrite(place(op, 0, "h.0.attn.out")));
    assert_eq!(validate(&program), expected);
}

/// Of blocks that share what must be kept, one computes with the other's.
#[test]
fn blocks_that_share_a_buffer_compute_something_else() {
    let good = kept();
    let pairs =
        [[0, 1], [1, 0], [0, 2]].map(|pair| pair.map(|layer| format!("h.{layer}.attn.qkv")));
    for [from, to] in pairs {
        let mut program = good.clone();
        let [from, to] = [from, to].map(|name| buffer(&good, &name));
        replace(&mut program, from, to);
        assert_ne!(gradient_symbols(&program), gradient_symbols(&good));
    }
}

/// What no fault names, such as scratch that still has the value of an earlier operation, is another computation.
#[test]
fn without_any_operation_of_a_micro_step_something_else_is_computed() {
    for recompute in Recompute::ALL {
        let good = good(recompute);
        let symbols = gradient_symbols(&good);
        for list in [0, 1, 3, 4] {
            for index in 0..lists(&mut good.clone())[list].len() {
                let mut program = good.clone();
                let node = lists(&mut program)[list].remove(index);
                assert!(
                    !validate(&program).is_empty() || gradient_symbols(&program) != symbols,
                    "{recompute}: {node:?}"
                );
            }
        }
    }
}

/// Whether two neighbours may change places: neither writes what the other reads or writes.
fn commute(nodes: [&Node; 2]) -> bool {
    let [a, b] = nodes.map(|node| node.op.flow());
    let touches = |operand: &Operand, flow: &Flow| {
        let mut operands = flow.reads.iter().chain(&flow.changes).chain(&flow.writes);
        operands.any(|known| known == operand)
    };
    let free = |a: &Flow, b| {
        let mut written = a.writes.iter().chain(&a.changes);
        written.all(|operand| !touches(operand, b))
    };
    free(&a, &b) && free(&b, &a)
}

#[test]
fn in_another_order_something_else_is_computed_unless_operations_have_nothing_in_common() {
    let mut swapped = [0, 0];
    for recompute in Recompute::ALL {
        let good = good(recompute);
        let symbols = gradient_symbols(&good);
        for list in [0, 1, 3, 4] {
            for index in 1..lists(&mut good.clone())[list].len() {
                let mut program = good.clone();
                let nodes = &mut *lists(&mut program)[list];
                let commute = commute([&nodes[index - 1], &nodes[index]]);
                nodes.swap(index - 1, index);
                let what = format!("{:?} before {:?}", nodes[index - 1], nodes[index]);
                let is_same =
                    validate(&program).is_empty() && gradient_symbols(&program) == symbols;
                assert_eq!(is_same, commute, "{recompute}: {what}");
                swapped[usize::from(commute)] += 1;
            }
        }
    }
    assert!(swapped.iter().all(|count| *count > 10), "{swapped:?}");
}
