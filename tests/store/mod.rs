//! The store's contract. [`conformance`] is run by every store; what only one of them has is in a
//! file of its name.

mod conformance;
mod damage;
mod doubt;
mod full_disk;
mod nodes;
mod postgres;
mod sample;
mod shared;
mod sqlite;
