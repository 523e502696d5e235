//! The faults in how the trainer sent packets, beside a copy of its way that has none: each is found and named. What
//! else is planted, memory that the host overwrites under a copy among it, is in tests/vgpu/tests/driver_order/.
#![cfg(feature = "cuda")]
// The first of them is about what cudarc's own copies do without event tracking.
#![allow(clippy::disallowed_methods)]

use std::process::Command;
use std::sync::Arc;

use cudarc::driver::{CudaContext, CudaEvent, CudaSlice, CudaStream, DriverError, PinnedHostSlice};
use taper::ops::launch::host::{Pinned, download};

const WORDS: usize = 1000;
const PACKETS: u32 = 8;
/// Says in a test's own child what is to be wrong there.
const PLANTED: &str = "TAPER_TEST_PLANTED";

/// Packets on their way: from pinned memory by one stream to one of two places, and from there by another stream to
/// the one place that is read.
struct Packets {
    main: Arc<CudaStream>,
    copies: Arc<CudaStream>,
    current: CudaSlice<u32>,
    slots: [Slot; 2],
    planted: String,
}

struct Slot {
    host: Pinned<u32>,
    /// In place of it, where cudarc is to wait.
    cudarcs: Option<PinnedHostSlice<u32>>,
    ahead: CudaSlice<u32>,
    arrived: CudaEvent,
    left: CudaEvent,
}

impl Packets {
    fn new(planted: &str) -> Result<Self, DriverError> {
        let context = CudaContext::new(0)?;
        // SAFETY: events order the streams, unless that is what is wrong.
        unsafe { context.disable_event_tracking() };
        let (main, copies) = (context.new_stream()?, context.new_stream()?);
        let slot = || {
            let ahead = main.alloc_zeros(WORDS)?;
            Ok::<_, DriverError>(Slot {
                host: Pinned::new(&context, WORDS)?,
                cudarcs: match planted {
                    "cudarc is to wait" => {
                        // SAFETY: plain numbers, which are written before they are read.
                        Some(unsafe { context.alloc_pinned_with_flags(WORDS, 0) }?)
                    }
                    _ => None,
                },
                ahead,
                arrived: context.new_event(None)?,
                left: match planted {
                    "left is never recorded" => context.new_event(None)?,
                    _ => main.record_event(None)?,
                },
            })
        };
        Ok(Self {
            slots: [slot()?, slot()?],
            current: main.alloc_zeros(WORDS)?,
            main,
            copies,
            planted: planted.into(),
        })
    }

    fn send(&mut self, packet: u32) -> Result<(), DriverError> {
        let (main, copies) = (&self.main, &self.copies);
        let slot = &mut self.slots[packet as usize % 2];
        if self.planted != "left is not awaited" {
            copies.wait(&slot.left)?;
        }
        match &mut slot.cudarcs {
            Some(host) => {
                host.as_mut_slice()?.fill(packet);
                copies.memcpy_htod(&*host, &mut slot.ahead)?;
            }
            None => {
                slot.host.write()?.fill(packet);
                slot.host.send(copies, &mut slot.ahead)?;
            }
        }
        slot.arrived.record(copies)?;
        main.wait(&slot.arrived)?;
        main.memcpy_dtod(&slot.ahead, &mut self.current)?;
        slot.left.record(main)
    }
}

/// What arrived of every packet, looked at when all were sent.
fn arrived(planted: &str) -> Result<Vec<u32>, DriverError> {
    let mut packets = Packets::new(planted)?;
    let mut seen = Vec::new();
    for packet in 1..=PACKETS {
        packets.send(packet)?;
        let copy = packets.main.clone_dtod(&packets.current)?;
        seen.push(copy);
    }
    seen.iter()
        .map(|copy| Ok(download(&packets.main, copy)?[WORDS - 1]))
        .collect()
}

/// Runs in a process of its own, in an order that its parent chose.
#[test]
#[ignore = "run by the other test of this file, with what is wrong in its environment"]
fn planted() {
    let planted = std::env::var(PLANTED).unwrap();
    let all: Vec<u32> = (1..=PACKETS).collect();
    assert_eq!(arrived(&planted), Ok(all));
}

/// Whether the child came through, and what it and the card said.
fn child(planted: &str, order: &str) -> (bool, String) {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "planted", "--ignored", "--nocapture"])
        .env(PLANTED, planted)
        .env("VGPU_ORDER", order)
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    (output.status.success(), stderr.into_owned())
}

#[test]
fn each_fault_is_found_by_name_in_every_order_and_nothing_without_one() {
    if std::env::var_os("VGPU_CARD").is_none() {
        eprintln!("skipped: this test chooses the order of a virtual GPU, use scripts/vgpu");
        return;
    }
    let unordered = "no order between operations: a copy from the host in stream";
    let faults = [
        (
            "cudarc is to wait",
            "the host waits for an event that was never recorded",
        ),
        (
            "left is never recorded",
            "waits for an event that was never recorded",
        ),
        ("left is not awaited", unordered),
    ];
    for order in ["eager", "late", "random:1", "random:2", "random:3"] {
        let (came_through, stderr) = child("nothing", order);
        assert!(
            came_through && !stderr.contains("vgpu: "),
            "{order}: {stderr}"
        );
        for (planted, words) in faults {
            let (came_through, stderr) = child(planted, order);
            assert!(!came_through, "{planted}, {order}: {stderr}");
            assert!(stderr.contains(words), "{planted}, {order}: {stderr}");
        }
    }
}
