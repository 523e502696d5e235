//! The order within a graph, and between its launches.

use vgpu::driver::capture::cuStreamBeginCapture_v2;
use vgpu::driver::graph::*;

use crate::on_card::{check, event, stream};
use crate::{
    ORDERS, alloc, assert_found, check_or_lost, copy, fill, in_order, record, synchronize, wait,
};

/// Two streams in one graph: one fills what the other copies, then both are joined.
fn forked(in_the_middle: bool) -> (usize, usize, u64) {
    let (main, branch) = (stream(), stream());
    let [begun, filled, joined] = [(); 3].map(|()| event());
    let (address, to) = (alloc(main), alloc(main));
    check(fill(address, 0, main));
    check(synchronize(main));
    check(unsafe { cuStreamBeginCapture_v2(main, 1) });
    record(begun, main);
    check(wait(branch, begun));
    check(fill(address, 5, branch));
    record(filled, branch);
    if in_the_middle {
        check(wait(main, filled));
    }
    check(copy(to, address, main));
    record(joined, branch);
    check(wait(main, joined));
    let (mut graph, mut executable) = (0, 0);
    check(unsafe { cuStreamEndCapture(main, &mut graph) });
    check(unsafe { cuGraphInstantiateWithFlags(&mut executable, graph, 0) });
    (executable, main, to)
}

#[test]
fn a_graph_keeps_the_order_that_was_captured() {
    for order in ORDERS {
        let card = in_order(order);
        let (executable, main, to) = forked(true);
        for _ in 0..3 {
            check(unsafe { cuGraphLaunch(executable, main) });
        }
        check(synchronize(main));
        assert_eq!(card.get(to, 1), [5], "{order}");
    }
}

#[test]
fn a_graph_that_drops_a_dependency_is_named() {
    for order in ORDERS {
        let card = in_order(order);
        let (executable, main, _) = forked(false);
        check_or_lost(unsafe { cuGraphLaunch(executable, main) });
        let words = [
            "a copy on the card in stream",
            "a fill in branch 1 of a graph",
            "no order",
        ];
        assert_found(&card, &words);
    }
}

#[test]
fn launches_of_one_graph_wait_for_each_other_in_whatever_streams() {
    for order in ORDERS {
        let card = in_order(order);
        let (executable, main, to) = forked(true);
        let other = stream();
        check(unsafe { cuGraphLaunch(executable, main) });
        check(unsafe { cuGraphLaunch(executable, other) });
        check(synchronize(other));
        assert_eq!(card.get(to, 1), [5], "{order}");
    }
}
