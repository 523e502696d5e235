//! Products of `wgmma` under way in a warp, and the registers that nobody may touch until they are waited for.

use super::order::Who;
use super::warp::Machine;
use crate::fault::What;
use crate::ptx::types::Type;

/// Columns of D, columns of A, and the elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    pub n: usize,
    pub k: usize,
    pub element: Type,
}

/// Registers that an instruction names.
#[derive(Default)]
pub struct Mention(pub Box<[u32]>);

/// One under way.
pub struct Product {
    group: u32,
    /// Registers of D, in order, and of A.
    to: Vec<u32>,
    inputs: Vec<u32>,
    shape: Shape,
    /// Words of shared memory.
    words: Vec<u32>,
    line: u32,
}

impl Product {
    pub fn new(to: Vec<u32>, inputs: Vec<u32>, shape: Shape, words: Vec<u32>, line: u32) -> Self {
        Self {
            group: 0,
            to,
            inputs,
            shape,
            words,
            line,
        }
    }
}

/// Those of a warp, oldest first.
#[derive(Default)]
pub struct Products {
    list: Vec<Product>,
    committed: u32,
    /// By register: a product under way uses it; it was used since the last `wgmma.fence`.
    busy: Vec<bool>,
    used: Vec<bool>,
    fenced: bool,
    /// Of all that the warp has issued.
    pub fingerprint: u64,
}

fn mark(list: &mut Vec<bool>, register: u32) {
    let at = register as usize;
    if list.len() <= at {
        list.resize(at + 1, false);
    }
    list[at] = true;
}

fn marked(list: &[bool], register: u32) -> bool {
    list.get(register as usize) == Some(&true)
}

impl Products {
    /// Any other instruction uses these registers; `first` is the function's.
    #[inline]
    pub fn note_use(&mut self, mention: &Mention, first: usize) -> Result<(), What> {
        for &register in &mention.0 {
            let register = first as u32 + register;
            if marked(&self.busy, register) {
                return Err(self.too_early(register));
            }
            mark(&mut self.used, register);
        }
        Ok(())
    }

    #[cold]
    fn too_early(&self, register: u32) -> What {
        let user =
            (self.list.iter()).find(|p| p.to.contains(&register) || p.inputs.contains(&register));
        let (line, role) = user.map_or((0, "result"), |p| {
            if p.to.contains(&register) {
                (p.line, "result")
            } else {
                (p.line, "input")
            }
        });
        What::Wgmma(format!(
            "a register of the {role} of the product issued at PTX line {line} is used before it was waited for"
        ))
    }

    /// Whether a product may use these registers now.
    pub fn check_issue(&self, to: &[u32], inputs: &[u32], shape: Shape) -> Result<(), What> {
        if !self.fenced {
            return Err(What::Wgmma(
                "no `wgmma.fence` before the first product".into(),
            ));
        }
        if to.iter().chain(inputs).any(|&r| marked(&self.used, r)) {
            return Err(What::Wgmma(
                "a register was used by other instructions since the last `wgmma.fence`".into(),
            ));
        }
        for product in &self.list {
            let same = product.to == to && product.shape == shape;
            let overlap = |list: &[u32]| list.iter().any(|r| product.to.contains(r));
            if (!same && overlap(to))
                || overlap(inputs)
                || product.inputs.iter().any(|r| to.contains(r))
            {
                return Err(What::Wgmma(format!(
                    "its registers overlap those of the product of PTX line {}, which is under way and has another shape",
                    product.line
                )));
            }
        }
        Ok(())
    }

    pub fn issue(&mut self, product: Product, fingerprint: u64) {
        for &register in product.to.iter().chain(&product.inputs) {
            mark(&mut self.busy, register);
        }
        self.sign(fingerprint);
        self.list.push(Product {
            group: self.committed,
            ..product
        });
    }

    fn sign(&mut self, what: u64) {
        self.fingerprint =
            (self.fingerprint.rotate_left(5) ^ what).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    /// What was done with registers before comes before later products.
    pub fn fence(&mut self, line: u32) {
        self.fenced = true;
        self.used.clear();
        self.sign(line.into());
    }

    pub fn commit(&mut self, line: u32) {
        self.committed += 1;
        self.sign(line.into());
    }

    /// All but the last `groups` groups are done.
    pub fn wait(&mut self, groups: u32, line: u32, machine: &mut Machine, first_thread: u32) {
        let committed = self.committed;
        self.list.retain(|product| {
            let done = product.group + groups < committed;
            if done {
                let who = Who {
                    thread: first_thread,
                    line: product.line,
                    strong: false,
                };
                machine.shared.let_go(&product.words, who);
            }
            !done
        });
        self.busy.clear();
        for product in &self.list {
            for &register in product.to.iter().chain(&product.inputs) {
                mark(&mut self.busy, register);
            }
        }
        self.sign(line.into());
    }

    /// The line of a product that nobody waited for.
    pub fn left_over(&self) -> Option<u32> {
        self.list.first().map(|product| product.line)
    }
}
