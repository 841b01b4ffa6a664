//! How the objects of acts begin that name a person, or what is theirs: floor 2, `store/encoding`.
//! An erasure finds them by it.

/// An identity.
pub(in crate::store) const IDENTITY: &str = "identity ";

/// A terminal.
pub(in crate::store) const TERMINAL: &str = "terminal ";
