//! The spectator of a search for the fastest candidates.

/// Hears of the progress of a search, and may end work that takes long.
pub trait Watch {
    /// A search of this many problems begins.
    fn begin(&self, problems: usize);

    /// The search comes to its problem number `index`, which has this name.
    fn reach(&self, index: usize, name: &str);

    fn end(&self);

    /// Whether the work under way is to end soon, with nothing to show for it.
    fn is_interrupted(&self) -> bool;
}

/// A spectator that does not look.
pub struct Unwatched;

impl Watch for Unwatched {
    fn begin(&self, _: usize) {}

    fn reach(&self, _: usize, _: &str) {}

    fn end(&self) {}

    fn is_interrupted(&self) -> bool {
        false
    }
}
