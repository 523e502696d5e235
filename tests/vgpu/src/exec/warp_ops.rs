//! What the lanes of a warp do together: `shfl`, `vote`, `match`, `redux`, `activemask`.

use super::atomics::word_reduction;
use super::code::{Code, PredicateSource, Reg, Source};
use super::compare::predicate_or_sink;
use super::decode::{Decoded, Decoding};
use super::lanes::{Lanes, WARP};
use super::memory_ops::lanes;
use super::warp::{Trouble, View, Warp};
use crate::fault::What;
use crate::ptx::names::Operand;
use crate::ptx::types::Type;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Up,
    Down,
    Butterfly,
    Index,
}

pub struct Shuffle {
    mode: Mode,
    to: Reg,
    /// Whether the source lane was in range.
    in_range: Option<u32>,
    /// Value, lane, clamp and segment, member mask.
    from: [Source; 4],
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Poll {
    All,
    Any,
    Uniform,
    Ballot,
}

pub struct Vote {
    poll: Poll,
    to: Option<Reg>,
    to_predicate: Option<u32>,
    by: PredicateSource,
    mask: Source,
}

pub struct Match {
    /// `.all`: the mask where every lane agrees, else zero.
    all: bool,
    to: Reg,
    agree: Option<u32>,
    value: Source,
    mask: Source,
    bits: u32,
}

pub struct Reduce {
    to: Reg,
    combine: fn(u32, u32) -> u32,
    value: Source,
    mask: Source,
}

pub fn decode(d: &mut Decoding) -> Decoded {
    if !matches!(d.name, "shfl" | "vote" | "match" | "redux" | "activemask") {
        return Ok(None);
    }
    if d.name == "activemask" {
        return Ok(Some(Code::ActiveMask { to: d.to(0)? }));
    }
    if !d.take("sync") {
        return Err("only the `.sync` form is executed".into());
    }
    match d.name {
        "shfl" => shuffle(d),
        "vote" => vote(d),
        "match" => matched(d),
        _ => {
            let ty = d.ty()?;
            const NAMES: [&str; 6] = ["add", "min", "max", "and", "or", "xor"];
            let Some(name) = NAMES.into_iter().find(|name| d.take(name)) else {
                return Ok(None);
            };
            let combine = word_reduction(name, ty)?;
            let (value, mask) = (d.from(1, ty)?, d.from(2, Type::B32)?);
            Ok(Some(Code::Reduce(Box::new(Reduce {
                to: d.to(0)?,
                combine,
                value,
                mask,
            }))))
        }
    }
}

/// `d|p`, or `d` alone.
fn with_predicate(operand: &Operand) -> Result<(Reg, Option<u32>), String> {
    match operand {
        Operand::Register(to) => Ok((*to, None)),
        Operand::Pair(pair) => match &pair.0 {
            Operand::Register(to) => Ok((*to, predicate_or_sink(&pair.1)?)),
            other => Err(format!("a register was expected, not {other:?}")),
        },
        other => Err(format!("a register was expected, not {other:?}")),
    }
}

fn shuffle(d: &mut Decoding) -> Decoded {
    const MODES: [(&str, Mode); 4] = [
        ("up", Mode::Up),
        ("down", Mode::Down),
        ("bfly", Mode::Butterfly),
        ("idx", Mode::Index),
    ];
    let Some(mode) = d.take_one_of(&MODES) else {
        return Ok(None);
    };
    d.expect_operands(5)?;
    let (to, in_range) = with_predicate(d.operand(0)?)?;
    let from = [
        d.from(1, Type::B32)?,
        d.from(2, Type::B32)?,
        d.from(3, Type::B32)?,
        d.from(4, Type::B32)?,
    ];
    Ok(Some(Code::Shuffle(Box::new(Shuffle {
        mode,
        to,
        in_range,
        from,
    }))))
}

fn vote(d: &mut Decoding) -> Decoded {
    const POLLS: [(&str, Poll); 4] = [
        ("all", Poll::All),
        ("any", Poll::Any),
        ("uni", Poll::Uniform),
        ("ballot", Poll::Ballot),
    ];
    let Some(poll) = d.take_one_of(&POLLS) else {
        return Ok(None);
    };
    let (to, to_predicate) = if poll == Poll::Ballot {
        (Some(d.to(0)?), None)
    } else {
        (None, Some(d.to_predicate(0)?))
    };
    let mask = d.from(2, Type::B32)?;
    Ok(Some(Code::Vote(Box::new(Vote {
        poll,
        to,
        to_predicate,
        by: d.predicate(1)?,
        mask,
    }))))
}

fn matched(d: &mut Decoding) -> Decoded {
    let all = d.take("all");
    if !all && !d.take("any") {
        return Ok(None);
    }
    let ty = d.ty()?;
    let (to, agree) = with_predicate(d.operand(0)?)?;
    let (value, mask) = (d.from(1, ty)?, d.from(2, Type::B32)?);
    Ok(Some(Code::Match(Box::new(Match {
        all,
        to,
        agree,
        value,
        mask,
        bits: ty.bits(),
    }))))
}

/// The member mask that the active lanes give: each is in it, and it names none that will not come.
pub fn members(warp: &Warp, mask: &Lanes, active: u32, what: &str) -> Result<u32, Trouble> {
    for lane in lanes(active) {
        let named = mask.0[lane] as u32;
        if named >> lane & 1 == 0 || named & warp.live & !active != 0 {
            return Err(Trouble::of(
                lane,
                What::WarpDivergence(format!("`{what}` with mask {named:#010x}")),
            ));
        }
    }
    Ok(active)
}

impl Shuffle {
    pub fn run(&self, warp: &mut Warp, view: &View, active: u32) -> Result<(), Trouble> {
        let [value, by, control, mask] = self.from.map(|source| *warp.value(view, source));
        members(warp, &mask, active, "shfl.sync")?;
        let (mut out, mut found) = (Lanes::ZERO, 0);
        for lane in lanes(active) {
            let (b, c) = (by.0[lane] as i32 & 31, control.0[lane] as i32);
            let (segment, clamp) = (c >> 8 & 31, c & 31);
            let lowest = lane as i32 & segment;
            let highest = lowest | (clamp & !segment);
            let (from, in_range) = match self.mode {
                Mode::Up => (lane as i32 - b, lane as i32 - b >= highest),
                Mode::Down => (lane as i32 + b, lane as i32 + b <= highest),
                Mode::Butterfly => (lane as i32 ^ b, lane as i32 ^ b <= highest),
                Mode::Index => (lowest | (b & !segment), lowest | (b & !segment) <= highest),
            };
            let from = if in_range { from as usize } else { lane };
            if active >> from & 1 == 0 || mask.0[lane] as u32 >> from & 1 == 0 {
                return Err(Trouble::of(lane, What::InactiveLane(from as u32)));
            }
            out.0[lane] = value.0[from] & 0xffff_ffff;
            found |= u32::from(in_range) << lane;
        }
        warp.set(view, self.to, active, &out);
        if let Some(predicate) = self.in_range {
            warp.set_predicate(view, predicate, active, found);
        }
        Ok(())
    }
}

impl Vote {
    pub fn run(&self, warp: &mut Warp, view: &View, active: u32) -> Result<(), Trouble> {
        let mask = *warp.value(view, self.mask);
        members(warp, &mask, active, "vote.sync")?;
        let yes = warp.predicate(view, self.by);
        let (mut out, mut truth) = (Lanes::ZERO, 0);
        for lane in lanes(active) {
            let named = mask.0[lane] as u32 & active;
            let yes = yes & named;
            out.0[lane] = yes.into();
            let holds = match self.poll {
                Poll::All => yes == named,
                Poll::Any => yes != 0,
                Poll::Uniform => yes == named || yes == 0,
                Poll::Ballot => false,
            };
            truth |= u32::from(holds) << lane;
        }
        if let Some(to) = self.to {
            warp.set(view, to, active, &out);
        }
        if let Some(to) = self.to_predicate {
            warp.set_predicate(view, to, active, truth);
        }
        Ok(())
    }
}

impl Match {
    pub fn run(&self, warp: &mut Warp, view: &View, active: u32) -> Result<(), Trouble> {
        let [value, mask] = [self.value, self.mask].map(|source| *warp.value(view, source));
        members(warp, &mask, active, "match.sync")?;
        let keep = u64::MAX >> (64 - self.bits);
        let (mut out, mut agree) = (Lanes::ZERO, 0);
        for lane in lanes(active) {
            let named = mask.0[lane] as u32 & active;
            let same = lanes(named)
                .filter(|&other| (value.0[other] ^ value.0[lane]) & keep == 0)
                .fold(0u32, |mask, other| mask | 1 << other);
            let agreed = same == named;
            out.0[lane] = if !self.all || agreed { same.into() } else { 0 };
            agree |= u32::from(agreed) << lane;
        }
        warp.set(view, self.to, active, &out);
        if let Some(predicate) = self.agree {
            warp.set_predicate(view, predicate, active, agree);
        }
        Ok(())
    }
}

impl Reduce {
    pub fn run(&self, warp: &mut Warp, view: &View, active: u32) -> Result<(), Trouble> {
        let [value, mask] = [self.value, self.mask].map(|source| *warp.value(view, source));
        members(warp, &mask, active, "redux.sync")?;
        let mut out = Lanes::ZERO;
        for lane in lanes(active) {
            let named = (0..WARP).filter(|other| mask.0[lane] as u32 & active & 1 << other != 0);
            let reduced = named
                .map(|other| value.0[other] as u32)
                .reduce(self.combine);
            out.0[lane] = reduced.unwrap_or(0).into();
        }
        warp.set(view, self.to, active, &out);
        Ok(())
    }
}
