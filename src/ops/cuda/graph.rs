//! Work that the GPU repeats from a CUDA graph: one launch instead of one for every kernel.

use std::sync::Arc;

use cudarc::driver::sys::{CUgraphInstantiate_flags, CUstreamCaptureMode};
use cudarc::driver::{CudaGraph, CudaStream, DriverError};

use crate::memory::Refused;
use crate::ops::backend::Done;

/// State of repeated work, from one time to the next.
#[derive(Default)]
pub(super) enum Graph {
    /// Not done yet: the first time loads kernels, which cannot be recorded.
    #[default]
    New,
    Done,
    Recorded(CudaGraph),
    /// Done without a graph: the driver did not record the work.
    Plain,
}

impl Graph {
    /// Does `work`; from the second time on as a graph. Returns the reason at the moment when the driver refuses to
    /// record one.
    pub fn run(
        &mut self,
        stream: &Arc<CudaStream>,
        mut work: impl FnMut() -> Done,
    ) -> Result<Option<String>, Refused> {
        match self {
            Graph::New => {
                work()?;
                *self = Graph::Done;
            }
            Graph::Done => match capture(stream, &mut work)? {
                Ok(graph) => {
                    graph.launch()?;
                    *self = Graph::Recorded(graph);
                }
                Err(error) => {
                    *self = Graph::Plain;
                    work()?;
                    return Ok(Some(error.to_string()));
                }
            },
            Graph::Recorded(graph) => graph.launch()?,
            Graph::Plain => work()?,
        }
        Ok(None)
    }
}

/// Records `work` as a graph, without doing it. The outer error is that of `work`, the inner one the driver's failure
/// to record. Either way nothing was done.
fn capture(
    stream: &Arc<CudaStream>,
    work: impl FnOnce() -> Done,
) -> Result<Result<CudaGraph, DriverError>, Refused> {
    let mode = CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
    if let Err(error) = stream.begin_capture(mode) {
        return Ok(Err(error));
    }
    let done = work();
    // Ends the capture also after a failure.
    let graph = stream.end_capture(CUgraphInstantiate_flags(0));
    done?;
    Ok(match graph {
        Ok(Some(graph)) => Ok(graph),
        Ok(None) => Err(DriverError(
            cudarc::driver::sys::CUresult::CUDA_ERROR_STREAM_CAPTURE_INVALIDATED,
        )),
        Err(error) => Err(error),
    })
}
