//! `cp.async.bulk` and `.tensor`: what arrives where, and what must come before and after.

mod common;

use common::{Program, kernel_for};
use vgpu::fault::{Fault, What};
use vgpu::tensor_map::{Swizzle, TensorMap};

/// `%r1` is the thread, `%r3` the barrier, `%r4` the tile of 4 KiB; thread 0 has initialised the barrier for one arrival.
const START: &str = "
.shared .align 8 .b8 bar[8];
.shared .align 1024 .b8 s[4096];
mov.u32 %r1, %tid.x;
mov.u32 %r3, bar;
mov.u32 %r4, s;
setp.eq.u32 %p1, %r1, 0;
@%p1 mbarrier.init.shared::cta.b64 [%r3], 1;
";
const FENCE: &str = "@%p1 fence.mbarrier_init.release.cluster;\nbar.sync 0;\n";
const WAIT: &str = "W:\nmbarrier.try_wait.parity.shared::cta.b64 %p2, [%r3], 0;\n@!%p2 bra W;\n";

fn expect(bytes: u64) -> String {
    format!("@%p1 mbarrier.arrive.expect_tx.shared::cta.b64 _, [%r3], {bytes};\n")
}

/// Copies `words` of the tile to the output as threads do.
fn out(words: u32) -> String {
    format!(
        "mov.u32 %r5, %r1;\nL:\nsetp.ge.u32 %p3, %r5, {words};\n@%p3 bra E;\nmad.lo.u32 %r6, %r5, 4, %r4;\n\
         ld.shared.u32 %r7, [%r6];\nld.param.u64 %rd2, [out];\nmad.wide.u32 %rd2, %r5, 4, %rd2;\n\
         st.global.u32 [%rd2], %r7;\nadd.u32 %r5, %r5, 64;\nbra L;\nE:\n"
    )
}

const LOAD: &str = "ld.param.u64 %rd1, [in];\n\
    @%p1 cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%r4], [%rd1], 1024, [%r3];\n";

/// Runs `body` with 256 words in `in`; 256 words come out.
fn run(body: &str) -> Result<Vec<u32>, Fault> {
    let text = kernel_for("sm_90", &[".u64 in", ".u64 out"], &format!("{START}{body}"));
    let program = Program::new(&text);
    let from = program.put(&(0..256).map(|i| i * 3).collect::<Vec<u32>>());
    let to = program.put(&[0u32; 256]);
    program.launch("k", [1, 1, 1], [64, 1, 1], 0, &[from, to])?;
    Ok(program.get(to, 256))
}

fn what(body: &str) -> What {
    run(body).expect_err("a fault").what
}

fn threes() -> Vec<u32> {
    (0..256).map(|i| i * 3).collect()
}

#[test]
fn a_bulk_load_is_there_after_its_phase() {
    let body = format!("{FENCE}{}{LOAD}{WAIT}{}", expect(1024), out(256));
    assert_eq!(run(&body).unwrap(), threes());
    // The other fence will do, too.
    let fence = "@%p1 fence.proxy.async.shared::cta;\nbar.sync 0;\n";
    let body = format!("{fence}{}{LOAD}{WAIT}{}", expect(1024), out(256));
    assert_eq!(run(&body).unwrap(), threes());
}

#[test]
fn a_bulk_load_is_not_there_before() {
    let body = format!("{FENCE}{}{LOAD}bar.sync 0;\n{}", expect(1024), out(256));
    assert!(matches!(what(&body), What::NotAwaited { this: "read", .. }));
    // Nor for a thread that waits for less than all bytes.
    let body = format!("{FENCE}{}{LOAD}{WAIT}{}", expect(2048), out(256));
    assert!(matches!(what(&body), What::Deadlock(text) if text.contains("1024 bytes")));
}

#[test]
fn bytes_that_nobody_expects_are_found() {
    let arrive = "@%p1 mbarrier.arrive.shared::cta.b64 _, [%r3];\n";
    let body = format!("{FENCE}{arrive}bar.sync 0;\n{LOAD}{WAIT}{}", out(256));
    assert!(matches!(
        what(&body),
        What::StillCopying { how: "read", .. }
    ));
}

#[test]
fn a_wait_for_the_wrong_parity_finds_the_copy_under_way() {
    let wait = WAIT.replace("[%r3], 0", "[%r3], 1");
    let body = format!("{FENCE}{LOAD}bar.sync 0;\n{wait}{}", out(256));
    assert!(matches!(
        what(&body),
        What::StillCopying { how: "read", .. }
    ));
}

#[test]
fn the_async_proxy_must_see_the_initialisation() {
    let body = format!("bar.sync 0;\n{}{LOAD}{WAIT}", expect(1024));
    assert!(matches!(what(&body), What::NoProxyFence { thread: 0, .. }));
}

#[test]
fn a_copy_may_not_overtake_the_readers_of_what_it_replaces() {
    let twice = |between: &str| {
        let again = WAIT.replace("W", "X").replace("[%r3], 0", "[%r3], 1");
        let out_again = out(256).replace("L:", "M:").replace("bra L", "bra M");
        let out_again = out_again.replace("E:", "F:").replace("bra E", "bra F");
        format!(
            "{FENCE}{e}{LOAD}{WAIT}{}{between}{e}{LOAD}{again}{out_again}",
            out(256),
            e = expect(1024)
        )
    };
    assert_eq!(run(&twice("bar.sync 0;\n")).unwrap(), threes());
    assert!(matches!(
        what(&twice("")),
        What::SharedRace {
            this: "write",
            other: "read",
            ..
        }
    ));
}

/// Threads fill the tile, thread 0 stores it.
fn store(fence: &str, wait: &str) -> String {
    format!(
        "bar.sync 0;\nmov.u32 %r5, %r1;\nL:\nsetp.ge.u32 %p3, %r5, 256;\n@%p3 bra E;\nmad.lo.u32 %r6, %r5, 4, %r4;\n\
         mul.lo.u32 %r7, %r5, 3;\nst.shared.u32 [%r6], %r7;\nadd.u32 %r5, %r5, 64;\nbra L;\nE:\n{fence}bar.sync 0;\n\
         ld.param.u64 %rd2, [out];\n@%p1 cp.async.bulk.global.shared::cta.bulk_group [%rd2], [%r4], 1024;\n\
         @%p1 cp.async.bulk.commit_group;\n{wait}"
    )
}

const WAIT_READ: &str = "@%p1 cp.async.bulk.wait_group.read 0;\n";

#[test]
fn a_bulk_store_takes_what_threads_wrote_and_fenced() {
    let fence = "fence.proxy.async.shared::cta;\n";
    assert_eq!(run(&store(fence, WAIT_READ)).unwrap(), threes());
    assert!(matches!(
        what(&store("", WAIT_READ)),
        What::NoProxyFence { .. }
    ));
    // A fence by one thread is none for what the others wrote; nor is one that comes after the barrier.
    assert!(matches!(
        what(&store(&format!("@%p1 {fence}"), WAIT_READ)),
        What::NoProxyFence { .. }
    ));
    let late = store("", WAIT_READ).replace("ld.param", &format!("{fence}ld.param"));
    let What::NoProxyFence { thread, .. } = what(&late) else {
        panic!("a missing fence was expected")
    };
    assert_eq!(
        thread, 32,
        "the storing thread knows of its own warp's fences only"
    );
}

#[test]
fn the_source_of_a_bulk_store_is_not_touched_before_it_was_read() {
    let fence = "fence.proxy.async.shared::cta;\n";
    let write = "@%p1 st.shared.u32 [%r4+512], 1;\n";
    let early = store(fence, &format!("{write}{WAIT_READ}"));
    assert!(matches!(
        what(&early),
        What::StillRead {
            reader: "`cp.async.bulk`",
            ..
        }
    ));
    assert_eq!(
        run(&store(fence, &format!("{WAIT_READ}{write}"))).unwrap(),
        threes()
    );
    // Another warp must be told.
    let other = "setp.eq.u32 %p4, %r1, 32;\n@%p4 st.shared.u32 [%r4+512], 1;\n";
    assert!(matches!(
        what(&store(fence, &format!("{WAIT_READ}{other}"))),
        What::SharedRace {
            this: "write",
            other: "read",
            ..
        }
    ));
    let told = format!("{WAIT_READ}bar.sync 0;\n{other}");
    assert_eq!(run(&store(fence, &told)).unwrap(), threes());
    assert!(
        matches!(what(&store(fence, "")), What::Undefined(text) if text.contains("still reads"))
    );
}

#[test]
fn sizes_and_addresses_are_multiples_of_16() {
    let load = LOAD.replace("1024", "1000");
    let body = format!("{FENCE}{}{load}", expect(1000));
    assert!(matches!(what(&body), What::Undefined(text) if text.contains("1000")));
    for (from, to) in [("[%rd1]", "[%rd1+8]"), ("[%r4]", "[%r4+8]")] {
        let body = format!(
            "{FENCE}{}{}",
            expect(1024),
            LOAD.replace(from, to).replace("1024", "512")
        );
        assert_eq!(what(&body), What::Misaligned { bytes: 16 });
    }
}

/// A tensor of u16 whose elements are their index, rows of `width` of `pitch` bytes.
struct Tensor {
    program: Program,
    map: TensorMap,
    out: u64,
}

/// Loads (or stores) the box of `map` at `corner`, and the tile as 2048 words of 16 bits.
fn tensor(
    dims: &[u64],
    strides: &[u64],
    boxes: &[u32],
    swizzle: Swizzle,
    store: bool,
    corner: &[i32],
) -> Tensor {
    let list: Vec<String> = corner.iter().map(|c| c.to_string()).collect();
    let (rank, list) = (dims.len(), list.join(", "));
    let bytes = boxes.iter().product::<u32>() * 2;
    let map_address = "mov.b64 %rd3, map;\ncvta.param.u64 %rd3, %rd3;\n";
    let body = if !store {
        format!(
            "{FENCE}{}{map_address}@%p1 cp.async.bulk.tensor.{rank}d.shared::cluster.global.tile.mbarrier::complete_tx::bytes\
         .L2::cache_hint [%r4], [%rd3, {{{list}}}], [%r3], 1152921504606846976;\n{WAIT}{}",
            expect(bytes.into()),
            out(bytes / 4)
        )
    } else {
        format!(
            "bar.sync 0;\nmov.u32 %r5, %r1;\nL:\nsetp.ge.u32 %p3, %r5, {};\n@%p3 bra E;\nmad.lo.u32 %r6, %r5, 4, %r4;\n\
         mul.lo.u32 %r7, %r5, 131074;\nadd.u32 %r7, %r7, 65536;\nst.shared.u32 [%r6], %r7;\nadd.u32 %r5, %r5, 64;\nbra L;\nE:\n\
         fence.proxy.async.shared::cta;\nbar.sync 0;\n{map_address}\
         @%p1 cp.async.bulk.tensor.{rank}d.global.shared::cta.tile.bulk_group [%rd3, {{{list}}}], [%r4];\n\
         @%p1 cp.async.bulk.commit_group;\n@%p1 cp.async.bulk.wait_group 0;\n",
            bytes / 4
        )
    };
    let text = kernel_for(
        "sm_90",
        &[".align 64 .b8 map[128]", ".u64 out"],
        &format!("{START}{body}"),
    );
    let program = Program::new(&text);
    let total = strides
        .last()
        .map_or(dims[0] * 2, |s| s * dims[dims.len() - 1])
        / 2;
    let elements: Vec<u32> = (0..total.div_ceil(2) as u32)
        .map(|i| ((2 * i) & 0xffff) | (2 * i + 1) << 16)
        .collect();
    let address = program.put(&elements);
    let out = program.put(&[0xffff_ffffu32; 1024]);
    let map = TensorMap {
        element: 2,
        address,
        dims: dims.into(),
        strides: strides.into(),
        boxes: boxes.into(),
        swizzle,
    };
    map.check().unwrap();
    let params = [map.encode().to_vec(), out.to_le_bytes().to_vec()];
    program
        .launch_with("k", [1, 1, 1], [64, 1, 1], 0, &params)
        .unwrap_or_else(|fault| panic!("{fault}"));
    Tensor { program, map, out }
}

fn halves(words: &[u32]) -> Vec<u16> {
    words
        .iter()
        .flat_map(|w| [*w as u16, (*w >> 16) as u16])
        .collect()
}

/// What lies at a byte of the tile, for the pattern of the CUDA programming guide: rows of the swizzle's width in 8
/// (4, 2) groups of 16 bytes, the group's number changed by the row's.
fn swizzled_offset(row: usize, byte: usize, span: usize) -> usize {
    let groups = span / 16;
    let rows_per_line = 128 / span;
    let key = row / rows_per_line % groups;
    row * span + ((byte / 16) ^ key) * 16 + byte % 16
}

#[test]
fn boxes_are_laid_out_with_their_swizzle_and_zeros_outside() {
    for (swizzle, width) in [
        (Swizzle::None, 40),
        (Swizzle::Bytes32, 16),
        (Swizzle::Bytes64, 32),
        (Swizzle::Bytes128, 64),
    ] {
        for corner in [[0, 0], [8, 3], [-5, -2], [90, 35], [200, 5]] {
            let (columns, rows, pitch) = (100u64, 40u64, 208u64);
            let t = tensor(
                &[columns, rows],
                &[pitch],
                &[width, 20],
                swizzle,
                false,
                &corner,
            );
            let tile = halves(&t.program.get(t.out, (width * 20 / 2) as usize));
            for row in 0..20usize {
                for column in 0..width as usize {
                    let (x, y) = (
                        corner[0] as i64 + column as i64,
                        corner[1] as i64 + row as i64,
                    );
                    let inside = (0..columns as i64).contains(&x) && (0..rows as i64).contains(&y);
                    let wanted = if inside {
                        (y * pitch as i64 / 2 + x) as u16
                    } else {
                        0
                    };
                    let at = match swizzle {
                        Swizzle::None => row * 2 * width as usize + 2 * column,
                        _ => swizzled_offset(row, 2 * column, 2 * width as usize),
                    };
                    assert_eq!(
                        tile[at / 2],
                        wanted,
                        "{swizzle:?} {corner:?} row {row} column {column}"
                    );
                }
            }
        }
    }
}

#[test]
fn three_dimensions_are_boxed() {
    let t = tensor(
        &[24, 6, 5],
        &[48, 288],
        &[8, 4, 3],
        Swizzle::None,
        false,
        &[16, 3, 3],
    );
    let tile = halves(&t.program.get(t.out, 8 * 4 * 3 / 2));
    for (i, &found) in tile.iter().enumerate() {
        let (x, y, z) = (16 + i % 8, 3 + i / 8 % 4, 3 + i / 32);
        let wanted = if y < 6 && z < 5 {
            (z * 288 + y * 48) / 2 + x
        } else {
            0
        };
        assert_eq!(found, wanted as u16, "element {i}");
    }
}

#[test]
fn a_tensor_store_writes_only_what_lies_inside() {
    let t = tensor(
        &[100, 40],
        &[208],
        &[64, 16],
        Swizzle::Bytes128,
        true,
        &[60, 30],
    );
    let all = halves(&t.program.get(t.map.address, 208 * 40 / 4));
    for (i, &found) in all.iter().enumerate() {
        let (x, y) = (i % 104, i / 104);
        let wanted = if (60..100).contains(&x) && y >= 30 {
            // The tile's elements are their place in it.
            swizzled_offset(y - 30, 2 * (x - 60), 128) / 2
        } else {
            i
        };
        assert_eq!(found, wanted as u16, "row {y} column {x}");
    }
}

#[test]
fn tensor_maps_that_no_driver_makes_are_refused() {
    let good = TensorMap {
        element: 2,
        address: 1 << 40,
        dims: vec![100, 40],
        strides: vec![208],
        boxes: vec![64, 16],
        swizzle: Swizzle::Bytes128,
    };
    assert_eq!(good.check(), Ok(()));
    assert_eq!(TensorMap::decode(&good.encode()), Some(good.clone()));
    let wrong = |change: fn(&mut TensorMap)| {
        let mut map = good.clone();
        change(&mut map);
        map.check().unwrap_err()
    };
    assert!(wrong(|m| m.address += 8).contains("multiple of 16"));
    assert!(wrong(|m| m.strides[0] = 200).contains("stride of 200"));
    assert!(wrong(|m| m.boxes[1] = 257).contains("257"));
    assert!(wrong(|m| m.boxes[0] = 72).contains("144 bytes, the swizzle 128"));
    assert!(wrong(|m| m.boxes[0] = 4).contains("8 bytes"));
    assert!(wrong(|m| m.dims[0] = 0).contains("0 elements"));
    assert!(wrong(|m| m.strides.clear()).contains("dimensions"));
}
