//! What the card is.

/// A card as programs see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Card {
    pub name: String,
    pub sm_count: u32,
    /// Major, minor.
    pub compute_capability: (u32, u32),
    pub total_bytes: u64,
    /// What other processes hold.
    pub used_bytes: u64,
    /// Static shared memory that a block may use.
    pub shared_per_block: u32,
    /// What it may use after asking (`cuFuncSetAttribute`).
    pub shared_per_block_optin: u32,
}
