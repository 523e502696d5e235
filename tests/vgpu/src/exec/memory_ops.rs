//! `ld` and `st` of all state spaces.

use super::code::{Address, Code, Reg, Source};
use super::decode::{Decoded, Decoding, Refusal};
use super::lanes::{Lanes, WARP};
use super::order::Who;
use super::warp::{Machine, Trouble, View, Warp};
use crate::fault::What;
use crate::memory::{LOCAL_WINDOW, PARAM_WINDOW, SHARED_WINDOW, window};
use crate::ptx::ir::Space;
use crate::ptx::types::Type;

pub struct Load {
    place: Place,
    to: Vec<Option<Reg>>,
    signed: bool,
}

pub struct Store {
    place: Place,
    from: Vec<Source>,
}

/// Where an access goes, and how much each element has.
pub struct Place {
    pub space: Space,
    pub address: Address,
    pub bytes: usize,
    /// Volatile, relaxed, acquire or release.
    pub strong: bool,
}

pub fn decode(d: &mut Decoding) -> Decoded {
    match d.name {
        "ld" | "ldu" => {
            let (place, ty, count) = place(d, 1)?;
            let to = d.vector_to(0)?;
            expect_count(count, to.len())?;
            Ok(Some(Code::Load(Box::new(Load {
                place,
                to,
                signed: ty.signed(),
            }))))
        }
        "st" => {
            let (place, ty, count) = place(d, 0)?;
            if place.space == Space::Const {
                return Err("constant memory cannot be stored to".into());
            }
            let from = d.vector_from(1, ty)?;
            expect_count(count, from.len())?;
            Ok(Some(Code::Store(Box::new(Store { place, from }))))
        }
        "prefetch" | "prefetchu" => {
            d.ignore(|_| true);
            Ok(Some(Code::Nothing))
        }
        "membar" => {
            let card = !d.take("cta");
            d.ignore(|m| matches!(m, "gl" | "sys"));
            Ok(Some(Code::Fence { card }))
        }
        "fence" => {
            let card = !d.take("cta");
            d.ignore(|m| {
                matches!(
                    m,
                    "sc" | "acq_rel" | "acquire" | "release" | "gpu" | "sys" | "cluster"
                )
            });
            Ok(Some(Code::Fence { card }))
        }
        _ => Ok(None),
    }
}

fn expect_count(count: usize, found: usize) -> Result<(), Refusal> {
    if count == found {
        Ok(())
    } else {
        Err(format!("{count} registers were expected, {found} found"))
    }
}

const SPACES: [(&str, Space); 10] = [
    ("global", Space::Global),
    ("const", Space::Const),
    ("shared", Space::Shared),
    ("shared::cta", Space::Shared),
    // The block is its own cluster.
    ("shared::cluster", Space::Shared),
    ("local", Space::Local),
    ("param", Space::Param),
    ("param::entry", Space::Param),
    ("param::func", Space::Param),
    ("generic", Space::Generic),
];

/// Hints that change speed only.
pub fn is_hint(modifier: &str) -> bool {
    const CACHES: [&str; 10] = [
        "ca", "cg", "cs", "lu", "cv", "wb", "wt", "nc", "unified", "mmio",
    ];
    const SCOPES: [&str; 4] = ["cta", "cluster", "gpu", "sys"];
    CACHES.contains(&modifier)
        || SCOPES.contains(&modifier)
        || modifier.starts_with("L1::")
        || modifier.starts_with("L2::")
}

/// The space of an access whose address is operand `at`.
pub fn space_of(d: &mut Decoding, at: usize) -> Result<(Space, Address), Refusal> {
    let named = d.take_one_of(&SPACES);
    let (address, of) = d.address(at)?;
    let space = match named {
        // What functions are given lies in local memory.
        Some(Space::Param) => match of {
            Some(space) => space,
            None if d.names.entry => Space::Param,
            None => Space::Local,
        },
        // A bare variable is an address in its own space.
        None | Some(Space::Generic) => of.unwrap_or(Space::Generic),
        Some(space) => space,
    };
    Ok((space, address))
}

fn place(d: &mut Decoding, at: usize) -> Result<(Place, Type, usize), Refusal> {
    let (space, address) = space_of(d, at)?;
    let strong = [
        d.take("volatile"),
        d.take("relaxed"),
        d.take("acquire"),
        d.take("release"),
    ]
    .contains(&true);
    d.take("weak");
    if d.has("L2::cache_hint") {
        d.operands.truncate(2);
    }
    d.ignore(is_hint);
    let count = d
        .take_one_of(&[("v2", 2), ("v4", 4), ("v8", 8)])
        .unwrap_or(1);
    let ty = d.ty()?;
    if ty.bits() > 64 {
        return Err(format!("accesses of `.{}` are not executed", ty.name()));
    }
    Ok((
        Place {
            space,
            address,
            bytes: ty.bytes() as usize,
            strong,
        },
        ty,
        count,
    ))
}

/// The lanes of a mask.
#[inline]
pub fn lanes(mask: u32) -> impl Iterator<Item = usize> {
    let mut rest = mask;
    std::iter::from_fn(move || {
        let lane = rest.trailing_zeros() as usize;
        rest &= rest.wrapping_sub(1);
        (lane < WARP).then_some(lane)
    })
}

impl Place {
    /// Addresses of the lanes.
    pub fn addresses(&self, warp: &Warp, view: &View) -> Lanes {
        let mut addresses = *warp.value(view, self.address.base);
        addresses
            .0
            .iter_mut()
            .for_each(|a| *a = a.wrapping_add(self.address.offset));
        addresses
    }

    /// The space and the address there of what may be a generic address.
    #[inline]
    pub fn resolve(&self, address: u64) -> (Space, u64) {
        resolve(self.space, address)
    }
}

#[inline]
pub fn resolve(space: Space, address: u64) -> (Space, u64) {
    match space {
        Space::Generic => match window(address) {
            SHARED_WINDOW => (Space::Shared, address - SHARED_WINDOW),
            LOCAL_WINDOW => (Space::Local, address - LOCAL_WINDOW),
            PARAM_WINDOW => (Space::Param, address - PARAM_WINDOW),
            _ => (Space::Global, address),
        },
        space => (space, address),
    }
}

fn aligned(address: u64, bytes: usize) -> Result<(), Box<What>> {
    if address.is_multiple_of(bytes as u64) {
        Ok(())
    } else {
        Err(Box::new(What::Misaligned {
            bytes: bytes as u64,
        }))
    }
}

impl Load {
    pub fn run(
        &self,
        machine: &mut Machine,
        warp: &mut Warp,
        view: &View,
        mask: u32,
    ) -> Result<(), Trouble> {
        let addresses = self.place.addresses(warp, view);
        let bytes = self.place.bytes;
        if self.to.len() > 1 {
            self.check_vector(&addresses, mask)?;
        }
        let mut out = Lanes::ZERO;
        for (i, to) in self.to.iter().enumerate() {
            let Some(to) = to else { continue };
            let plus = (i * bytes) as u64;
            self.element(machine, warp, view.line, &addresses, plus, mask, &mut out)?;
            if self.signed {
                let keep = u64::MAX >> (64 - to.bits);
                out.0.iter_mut().for_each(|x| *x = extend(*x, bytes) & keep);
            }
            warp.set(view, *to, mask, &out);
        }
        Ok(())
    }

    /// A vector is aligned as a whole.
    fn check_vector(&self, addresses: &Lanes, mask: u32) -> Result<(), Trouble> {
        let whole = self.place.bytes * self.to.len();
        lanes(mask).try_for_each(|lane| {
            let address = addresses.0[lane];
            aligned(address, whole).map_err(|what| Trouble::at(lane, address, what))
        })
    }

    /// The element at `plus` bytes behind the addresses.
    #[allow(clippy::too_many_arguments)]
    fn element(
        &self,
        machine: &mut Machine,
        warp: &Warp,
        line: u32,
        addresses: &Lanes,
        plus: u64,
        mask: u32,
        out: &mut Lanes,
    ) -> Result<(), Trouble> {
        let Place {
            space,
            bytes,
            strong,
            ..
        } = self.place;
        let done = match space {
            Space::Global | Space::Const => {
                let memory = &machine.running.memory;
                lanes(mask).try_for_each(|lane| {
                    let address = addresses.0[lane].wrapping_add(plus);
                    let value = memory.load(&mut machine.actor, address, bytes, strong);
                    out.0[lane] = value.map_err(|what| (lane, what))?;
                    Ok(())
                })
            }
            Space::Shared => {
                let who = Who {
                    thread: warp.first_thread,
                    line,
                    strong,
                };
                machine
                    .shared
                    .load_lanes(addresses, plus, bytes, mask, who, out)
            }
            _ => lanes(mask).try_for_each(|lane| {
                let (space, at) = self.place.resolve(addresses.0[lane].wrapping_add(plus));
                let value = read(machine, warp, lane, space, at, bytes, line, strong);
                out.0[lane] = value.map_err(|what| (lane, what))?;
                Ok(())
            }),
        };
        done.map_err(|(lane, what): (usize, Box<What>)| {
            Trouble::at(lane, addresses.0[lane].wrapping_add(plus), what)
        })
    }
}

fn extend(value: u64, bytes: usize) -> u64 {
    let unused = 64 - 8 * bytes;
    ((value << unused) as i64 >> unused) as u64
}

/// One element for one lane.
#[inline]
#[allow(clippy::too_many_arguments)]
pub fn read(
    machine: &mut Machine,
    warp: &Warp,
    lane: usize,
    space: Space,
    address: u64,
    bytes: usize,
    line: u32,
    strong: bool,
) -> Result<u64, Box<What>> {
    match space {
        Space::Global | Space::Const | Space::Generic => {
            machine
                .running
                .memory
                .load(&mut machine.actor, address, bytes, strong)
        }
        Space::Shared => machine.shared.load(
            address,
            bytes,
            Who {
                thread: warp.first_thread + lane as u32,
                line,
                strong,
            },
        ),
        Space::Local => warp.local.load(lane, address, bytes),
        Space::Param => {
            let params = machine.running.params;
            let at = usize::try_from(address).unwrap_or(usize::MAX);
            let Some(found) = at.checked_add(bytes).and_then(|end| params.get(at..end)) else {
                return Err(Box::new(What::OwnBounds {
                    bytes: bytes as u64,
                    size: params.len() as u64,
                    space: "param",
                }));
            };
            let mut value = [0; 8];
            value[..bytes].copy_from_slice(found);
            Ok(u64::from_le_bytes(value))
        }
    }
}

impl Store {
    pub fn run(
        &self,
        machine: &mut Machine,
        warp: &mut Warp,
        view: &View,
        mask: u32,
    ) -> Result<(), Trouble> {
        let addresses = self.place.addresses(warp, view);
        let (bytes, strong, line) = (self.place.bytes, self.place.strong, view.line);
        for lane in lanes(mask) {
            let address = addresses.0[lane];
            if self.from.len() > 1 {
                aligned(address, bytes * self.from.len())
                    .map_err(|what| Trouble::at(lane, address, what))?;
            }
            let (space, address) = self.place.resolve(address);
            for (i, from) in self.from.iter().enumerate() {
                let at = address.wrapping_add((i * bytes) as u64);
                let value = warp.value(view, *from).0[lane];
                match space {
                    Space::Global | Space::Generic => {
                        machine
                            .running
                            .memory
                            .store(&machine.actor, at, bytes, value, strong)
                    }
                    Space::Shared => {
                        let who = Who {
                            thread: warp.first_thread + lane as u32,
                            line,
                            strong,
                        };
                        machine.shared.store(at, bytes, value, who)
                    }
                    Space::Local => warp.local.store(lane, at, bytes, value),
                    Space::Const | Space::Param => Err(Box::new(What::ReadOnly(space.name()))),
                }
                .map_err(|what| Trouble::at(lane, at, what))?;
            }
        }
        Ok(())
    }
}
