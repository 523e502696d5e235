//! Where the paths of a branch meet again: its immediate post-dominator.

use crate::exec::code::{Code, Instruction};

/// Where a branch reconverges when its paths meet only at the end of the function.
pub const NOWHERE: u32 = u32::MAX;

/// Basic blocks, by number; the last one is the end of the function.
struct Graph {
    /// First instruction of each block.
    starts: Vec<usize>,
    successors: Vec<Vec<usize>>,
}

/// Writes into every branch where its paths meet.
pub fn reconverge(code: &mut [Instruction]) {
    let branches =
        |i: &Instruction| matches!(i.code, Code::Branch { .. } | Code::BranchTable { .. });
    if !code.iter().any(branches) {
        return;
    }
    let graph = graph(code);
    let after = post_dominators(&graph);
    for (block, &start) in graph.starts.iter().enumerate() {
        let end = graph.starts.get(block + 1).copied().unwrap_or(code.len());
        let meet = match after[block] {
            Some(meet) if meet < graph.starts.len() => graph.starts[meet] as u32,
            _ => NOWHERE,
        };
        if let Some(last) = code[start..end].last_mut() {
            match &mut last.code {
                Code::Branch { reconverge, .. } | Code::BranchTable { reconverge, .. } => {
                    *reconverge = meet
                }
                _ => {}
            }
        }
    }
}

fn graph(code: &[Instruction]) -> Graph {
    let mut leads = vec![false; code.len() + 1];
    leads[0] = true;
    for (at, instruction) in code.iter().enumerate() {
        match &instruction.code {
            Code::Branch { to, .. } => {
                leads[*to as usize] = true;
                leads[at + 1] = true;
            }
            Code::BranchTable { to, .. } => {
                to.iter().for_each(|&to| leads[to as usize] = true);
                leads[at + 1] = true;
            }
            Code::Return | Code::Exit | Code::Trap => leads[at + 1] = true,
            _ => {}
        }
    }
    let starts: Vec<usize> = (0..code.len()).filter(|&at| leads[at]).collect();
    let mut number = vec![starts.len(); code.len() + 1];
    for (block, &start) in starts.iter().enumerate() {
        number[start] = block;
    }
    let end = starts.len();
    let successors = (0..starts.len()).map(|block| {
        let next = starts.get(block + 1).copied().unwrap_or(code.len());
        let last = &code[next - 1];
        let falls = if block + 1 < end { block + 1 } else { end };
        let mut list = match &last.code {
            Code::Branch { to, .. } => vec![number[*to as usize]],
            Code::BranchTable { to, .. } => {
                return to.iter().map(|&to| number[to as usize]).collect();
            }
            Code::Return | Code::Exit | Code::Trap => vec![end],
            _ => return vec![falls],
        };
        if last.guard.is_some() {
            list.push(falls);
        }
        list
    });
    Graph {
        successors: successors.collect(),
        starts,
    }
}

/// The immediate post-dominator of each block, by the algorithm of Cooper, Harvey and Kennedy ("A Simple, Fast
/// Dominance Algorithm") on the reversed graph; `None` where the end is never reached.
fn post_dominators(graph: &Graph) -> Vec<Option<usize>> {
    let end = graph.starts.len();
    let mut predecessors = vec![Vec::new(); end + 1];
    for (block, successors) in graph.successors.iter().enumerate() {
        successors.iter().for_each(|&s| predecessors[s].push(block));
    }
    let order = post_order(&predecessors, end);
    let mut rank = vec![usize::MAX; end + 1];
    for (i, &block) in order.iter().enumerate() {
        rank[block] = i;
    }
    let mut after: Vec<Option<usize>> = vec![None; end + 1];
    after[end] = Some(end);
    let mut changed = true;
    while changed {
        changed = false;
        for &block in order.iter().rev().filter(|&&block| block != end) {
            let known = graph.successors[block]
                .iter()
                .copied()
                .filter(|&s| after[s].is_some());
            let meet = known.reduce(|mut a, mut b| {
                while a != b {
                    while rank[a] < rank[b] {
                        a = after[a].unwrap_or(end);
                    }
                    while rank[b] < rank[a] {
                        b = after[b].unwrap_or(end);
                    }
                }
                a
            });
            if meet.is_some() && meet != after[block] {
                after[block] = meet;
                changed = true;
            }
        }
    }
    after.truncate(end);
    after
}

/// Blocks that reach the end, in post-order of a walk from it.
fn post_order(predecessors: &[Vec<usize>], end: usize) -> Vec<usize> {
    let mut seen = vec![false; predecessors.len()];
    let mut order = Vec::new();
    let mut walk = vec![(end, 0)];
    seen[end] = true;
    while let Some((block, next)) = walk.last_mut() {
        match predecessors[*block].get(*next) {
            Some(&predecessor) => {
                *next += 1;
                if !seen[predecessor] {
                    seen[predecessor] = true;
                    walk.push((predecessor, 0));
                }
            }
            None => {
                order.push(*block);
                walk.pop();
            }
        }
    }
    order
}
