//! The mark of a checked thing.

use core::ops::Deref;

/// A value whose signature held under a key the verifier trusts.
///
/// Only this crate makes one, so a function that takes a `Verified<T>` cannot
/// be handed a claim that nobody checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verified<T>(T);

impl<T> Verified<T> {
    /// Marks a value. The caller has just checked its signature.
    pub(crate) const fn mark(value: T) -> Self {
        Self(value)
    }

    /// The value without its mark.
    pub fn into_inner(self) -> T {
        self.0
    }
}

impl<T> Deref for Verified<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}
