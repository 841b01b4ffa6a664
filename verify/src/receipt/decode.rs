//! Reading receipts.

use super::{PROTECTED_LEN, RFC9162_SHA256, TYP, label};
use crate::cbor::Reader;
use crate::sign1::{self, TAG};
use crate::tree::{self, HASH_LEN, Hash, PATH_LEN_MAX};
use crate::{Algorithm, KID_LEN, PublicKey, Refusal, SIGNATURE_LEN, Verifier};

/// Octets of a hash on the path: its head and itself.
const STEP_LEN: usize = 2 + HASH_LEN;

/// The longest `[tree_size, leaf_index, path]`, in octets.
const PROOF_LEN_MAX: usize = 1 + 5 + 5 + 2 + PATH_LEN_MAX * STEP_LEN;

/// A well-formed receipt whose signature nobody has checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Receipt<'a> {
    pub(crate) algorithm: Algorithm,
    pub(crate) kid: [u8; KID_LEN],
    protected: &'a [u8],
    size: u64,
    index: u64,
    /// The siblings as they are encoded, [`STEP_LEN`] octets each.
    path: &'a [u8],
    signature: &'a [u8; SIGNATURE_LEN],
}

impl<'a> Receipt<'a> {
    /// The size it gives for its tree. Not signed: see [`crate::receipt`].
    #[must_use]
    pub const fn tree_size(&self) -> u64 {
        self.size
    }

    /// The index it gives for its leaf, from 0. Not signed: see
    /// [`crate::receipt`].
    #[must_use]
    pub const fn leaf_index(&self) -> u64 {
        self.index
    }

    /// The siblings from the leaf up.
    pub fn path(&self) -> impl Iterator<Item = &'a Hash> {
        let steps = self.path.chunks_exact(STEP_LEN);
        steps.filter_map(|step| step.last_chunk())
    }

    /// The root that this leaf leads to by the receipt's path.
    #[must_use]
    pub fn root(&self, leaf: Hash) -> Option<Hash> {
        tree::root_of(leaf, self.size, self.index, self.path())
    }

    /// Reads a receipt: its form, its header, and that the path is as long as
    /// size and index demand.
    pub(crate) fn read(reader: &mut Reader<'a>) -> Result<Self, Refusal> {
        reader.tag(TAG)?;
        reader.array(4, 4)?;
        let protected = reader.bytes(0, sign1::PROTECTED_LEN_MAX)?;
        reader.map_of(1)?;
        reader.label(label::VDP)?;
        reader.map_of(1)?;
        reader.label(label::INCLUSION)?;
        reader.array(1, 1)?;
        let (size, index, path) = read_proof(reader.bytes(0, PROOF_LEN_MAX)?)?;
        reader.null()?;
        let signature = reader.array_of()?;
        let (algorithm, kid) = read_header(protected)?;
        Ok(Self {
            algorithm,
            kid,
            protected,
            size,
            index,
            path,
            signature,
        })
    }

    /// Whether the signature holds over the root that this leaf leads to.
    pub(crate) fn holds(&self, leaf: Hash, key: &PublicKey, verifier: &impl Verifier) -> bool {
        self.root(leaf).is_some_and(|root| {
            sign1::holds(
                self.algorithm,
                key,
                [self.protected, &root],
                self.signature,
                verifier,
            )
        })
    }
}

/// `[tree_size, leaf_index, [+ bstr32]]`.
fn read_proof(proof: &[u8]) -> Result<(u64, u64, &[u8]), Refusal> {
    let mut reader = Reader::new(proof, PROOF_LEN_MAX)?;
    reader.array(3, 3)?;
    let size = reader.uint()?;
    let index = reader.uint()?;
    tree::check_leaf(size, index)?;
    let steps = reader.array(0, usize::MAX)?;
    if steps != tree::path_len(size, index) {
        return Err(Refusal::PathLength);
    }
    let path = reader.rest();
    for _ in 0..steps {
        reader.array_of::<HASH_LEN>()?;
    }
    reader.end()?;
    Ok((size, index, path))
}

fn read_header(protected: &[u8]) -> Result<(Algorithm, [u8; KID_LEN]), Refusal> {
    let mut reader = Reader::new(protected, PROTECTED_LEN)?;
    reader.map_of(4)?;
    let (algorithm, kid) = sign1::read_members(&mut reader, TYP, true)?;
    reader.label(label::VDS)?;
    if reader.uint()? != RFC9162_SHA256 {
        return Err(Refusal::UnknownTree);
    }
    reader.end()?;
    Ok((algorithm, kid.ok_or(Refusal::UnexpectedLabel)?))
}
