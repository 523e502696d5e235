//! Lanes that part at a branch, and meet again.

use super::lanes::Lanes;
use super::memory_ops::lanes;
use super::warp::{Path, Warp};

impl Warp {
    pub fn pop_path(&mut self) {
        if let Some(frame) = self.frames.last_mut() {
            frame.paths.pop();
        }
    }

    /// Of `active` lanes, those `taken` go to `to`, the others on.
    pub fn branch(&mut self, to: u32, reconverge: u32, taken: u32, active: u32) {
        let Some(path) = self
            .frames
            .last_mut()
            .and_then(|frame| frame.paths.last_mut())
        else {
            return;
        };
        let next = path.at;
        if taken == active {
            path.at = to;
            return;
        }
        self.part(
            reconverge,
            [(next, active & !taken), (to, taken)].into_iter(),
        );
    }

    /// Splits the lanes of the running path; the last one given runs first.
    fn part(&mut self, reconverge: u32, sides: impl Iterator<Item = (u32, u32)>) {
        let Some(paths) = self.frames.last_mut().map(|frame| &mut frame.paths) else {
            return;
        };
        let Some(path) = paths.last_mut() else { return };
        // Where the lanes already wait for that place, those below do so for them.
        if path.reconverge == reconverge {
            paths.pop();
        } else {
            path.at = reconverge;
        }
        paths.extend(
            sides
                .filter(|&(at, mask)| mask != 0 && at != reconverge)
                .map(|(at, mask)| Path {
                    at,
                    reconverge,
                    mask,
                }),
        );
    }

    pub fn branch_table(&mut self, index: &Lanes, to: &[u32], reconverge: u32, mask: u32) {
        // Lanes with an index beyond the list are undefined: they take its last target.
        let last = to.len().saturating_sub(1);
        let mut sides: Vec<(u32, u32)> = to.iter().map(|&at| (at, 0)).collect();
        for lane in lanes(mask) {
            if let Some(side) = sides.get_mut((index.0[lane] as u32 as usize).min(last)) {
                side.1 |= 1 << lane;
            }
        }
        let active = self
            .frames
            .last()
            .and_then(|frame| frame.paths.last())
            .map_or(mask, |path| path.mask);
        let next = self
            .frames
            .last()
            .and_then(|frame| frame.paths.last())
            .map_or(0, |path| path.at);
        sides.push((next, active & !mask));
        self.part(reconverge, sides.into_iter());
    }

    /// These lanes leave the function, or end for good.
    pub fn end_lanes(&mut self, mask: u32, for_good: bool) {
        let outermost = self.frames.len() == 1;
        if for_good || outermost {
            self.live &= !mask;
        }
        let first = if for_good { 0 } else { self.frames.len() - 1 };
        for frame in &mut self.frames[first..] {
            frame.paths.iter_mut().for_each(|path| path.mask &= !mask);
            frame.paths.retain(|path| path.mask != 0);
        }
    }
}
