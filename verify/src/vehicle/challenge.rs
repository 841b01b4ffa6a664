//! The car's challenge.

use crate::Refusal;
use crate::use_proof::{NONCE_LEN_MAX, NONCE_LEN_MIN};

/// A challenge: octets nobody can foresee, good for one answer.
///
/// It can neither be copied nor cloned and [`check`](super::check) takes it by
/// value, so an attempt uses it up, whatever becomes of it. A car also lets a
/// challenge go that was not answered within a few seconds.
#[derive(Debug)]
pub struct Challenge {
    octets: [u8; NONCE_LEN_MAX],
    len: usize,
}

impl Challenge {
    /// A challenge of 16–64 octets from the car's random generator.
    ///
    /// # Errors
    /// [`Refusal::OutOfBounds`] for another length.
    pub fn new(random: &[u8]) -> Result<Self, Refusal> {
        let mut octets = [0; NONCE_LEN_MAX];
        let room = octets.get_mut(..random.len());
        match room {
            Some(room) if random.len() >= NONCE_LEN_MIN => room.copy_from_slice(random),
            _ => return Err(Refusal::OutOfBounds),
        }
        Ok(Self {
            octets,
            len: random.len(),
        })
    }

    /// The octets the phone signs: `nonce` of its use proof.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.octets.get(..self.len).unwrap_or(&[])
    }
}
