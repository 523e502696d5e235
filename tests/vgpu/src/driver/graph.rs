//! Graphs: what was captured, given to the card at every launch with what waits for what.

use std::ffi::{c_char, c_void};
use std::sync::Arc;

use super::capture::Node;
use super::counts::Asked;
use super::giving::Call;
use super::guard::{Outcome, with_context, write};
use super::operation::{HostAddress, Operation};
use super::queue::{Point, StreamRef, Task};
use super::refused::refuse;
use super::result::CuResult;
use super::state::{Driver, new_handle};
use super::stream::StreamKey;

/// What was captured. Memory that was allocated in the capture lives as long as the graph, unless the
/// program frees it earlier.
pub struct Graph {
    nodes: Vec<Node>,
    memory: Vec<u64>,
}

/// A graph that can be launched.
pub struct Executable {
    graph: Arc<Graph>,
    /// The end of its last launch, which the next one waits for, whatever its stream.
    last: Point,
}

/// # Safety
/// `graph` is null or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuStreamEndCapture(stream: usize, graph: *mut usize) -> CuResult {
    with_context(|driver| {
        let mut objects = driver.objects();
        let key = objects.stream_key(stream)?;
        // SAFETY: as the caller promises.
        unsafe { write(graph, 0) }?;
        let captured = objects.captures.end(key)?;
        let handle = new_handle();
        let captured = Graph {
            nodes: captured.nodes,
            memory: captured.memory,
        };
        objects.graphs.insert(handle, Arc::new(captured));
        // SAFETY: as the caller promises.
        unsafe { write(graph, handle) }
    })
}

/// `CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH` and `..._USE_NODE_PRIORITY`.
const AUTO_FREE: u64 = 1;
const USE_PRIORITY: u64 = 8;

/// # Safety
/// `executable` is null or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuGraphInstantiateWithFlags(
    executable: *mut usize,
    graph: usize,
    flags: u64,
) -> CuResult {
    with_context(|driver| {
        match flags & !(AUTO_FREE | USE_PRIORITY) {
            0 => {}
            _ if flags & AUTO_FREE != 0 => return Err(CuResult::ERROR_INVALID_VALUE),
            _ => return Err(refuse("cuGraphInstantiateWithFlags", "a flag")),
        }
        let mut objects = driver.objects();
        let found = objects.graphs.get(&graph).cloned();
        let found = found.ok_or(CuResult::ERROR_INVALID_HANDLE)?;
        let handle = new_handle();
        let executable_graph = Executable {
            graph: found,
            last: Point::default(),
        };
        objects.executables.insert(handle, executable_graph);
        // SAFETY: as the caller promises.
        unsafe { write(executable, handle) }
    })
}

/// The form before CUDA 12, which gave a log of what is wrong with a graph; a captured one is never wrong.
///
/// # Safety
/// `executable` is null or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuGraphInstantiate_v2(
    executable: *mut usize,
    graph: usize,
    _node: *mut usize,
    _log: *mut c_char,
    _length: usize,
) -> CuResult {
    // SAFETY: as the caller promises.
    unsafe { cuGraphInstantiateWithFlags(executable, graph, 0) }
}

/// # Safety
/// None is needed; what the operations use must still be there.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuGraphLaunch(executable: usize, stream: usize) -> CuResult {
    with_context(|driver| {
        let mut objects = driver.objects();
        let found = objects.executables.get(&executable);
        let found = found.ok_or(CuResult::ERROR_INVALID_HANDLE)?;
        let (graph, last) = (found.graph.clone(), found.last.clone());
        let into = objects.stream_ref(stream)?;
        if objects.captures.is_captured(into.key) {
            // A graph within a graph: its nodes, one after the other.
            for node in &graph.nodes {
                objects.captures.record(into.key, node.operation.clone())?;
            }
            return Ok(());
        }
        objects.captures.refuse_legacy(into.key)?;
        drop(objects);
        let end = driver.launch_graph(executable, &graph, &into, last)?;
        if let Some(found) = driver.objects().executables.get_mut(&executable) {
            found.last = end;
        }
        Ok(())
    })
}

/// There is nothing to prepare.
///
/// # Safety
/// None is needed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuGraphUpload(executable: usize, stream: usize) -> CuResult {
    with_context(|driver| {
        let objects = driver.objects();
        objects.stream_key(stream)?;
        let found = objects.executables.get(&executable);
        found.map(|_| ()).ok_or(CuResult::ERROR_INVALID_HANDLE)
    })
}

/// Stores at most `*count` node handles, or only counts them. Nodes cannot be asked for anything.
///
/// # Safety
/// The pointers are null, or `count` may be read and written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuGraphGetNodes(
    graph: usize,
    nodes: *mut usize,
    count: *mut usize,
) -> CuResult {
    with_context(|driver| {
        let objects = driver.objects();
        let found = objects.graphs.get(&graph);
        let found = found.ok_or(CuResult::ERROR_INVALID_HANDLE)?;
        if nodes.is_null() {
            unsafe { write(count, found.nodes.len()) }
        } else {
            Err(refuse("cuGraphGetNodes", "the nodes themselves"))
        }
    })
}

/// # Safety
/// None is needed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuGraphExecDestroy(executable: usize) -> CuResult {
    with_context(|driver| {
        let removed = driver.objects().executables.remove(&executable);
        let removed = removed.ok_or(CuResult::ERROR_INVALID_HANDLE)?;
        // A launch that is not done keeps its memory until it is.
        if !removed.graph.memory.is_empty() {
            driver.run_until(removed.last.item)?;
        }
        driver.forget_graph(Some(removed.graph))
    })
}

/// # Safety
/// None is needed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuGraphDestroy(graph: usize) -> CuResult {
    with_context(|driver| {
        let removed = driver.objects().graphs.remove(&graph);
        driver.forget_graph(removed)
    })
}

impl Driver {
    /// Gives all nodes of a graph to the card; the end of the launch.
    fn launch_graph(
        &self,
        executable: usize,
        graph: &Graph,
        into: &StreamRef,
        last: Point,
    ) -> Outcome<Point> {
        self.counts.add(Asked::GraphLaunch);
        let begin = self.mark(into, &[last], Task::Nothing);
        let mut points: Vec<Point> = Vec::with_capacity(graph.nodes.len());
        for node in &graph.nodes {
            let mut after: Vec<Point> = node
                .after
                .iter()
                .map(|&node| points[node].clone())
                .collect();
            after.push(begin.clone());
            let branch = match node.branch {
                0 => into.clone(),
                branch => StreamRef {
                    key: StreamKey::Branch(executable, branch),
                    blocking: false,
                    name: format!("branch {branch} of a graph").into(),
                },
            };
            self.counts.add(Asked::GraphNode);
            points.push(self.give(Call::Async, &branch, &after, node.operation.clone())?);
        }
        Ok(self.mark(into, &points, Task::Nothing))
    }

    /// Frees the memory of a graph that nobody has any more.
    fn forget_graph(&self, graph: Option<Arc<Graph>>) -> Outcome {
        let graph = graph.ok_or(CuResult::ERROR_INVALID_HANDLE)?;
        match Arc::into_inner(graph) {
            Some(graph) => self.give_back_leftovers(&graph.memory),
            None => Ok(()),
        }
    }
}

/// # Safety
/// The function may be called with the argument.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuLaunchHostFunc(
    stream: usize,
    function: Option<extern "C" fn(*mut c_void)>,
    argument: usize,
) -> CuResult {
    with_context(|driver| {
        let function = function.ok_or(CuResult::ERROR_INVALID_VALUE)?;
        let argument = HostAddress(argument);
        driver.submit(stream, Operation::Call { function, argument })
    })
}
