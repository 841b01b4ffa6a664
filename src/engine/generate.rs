//! Key pairs for epochs: generated in the issuing tokens, or found there where a step that had them
//! made was not finished; and tried before anything is signed with them.

use fob_verify::{Algorithm, IssuerKey};

use super::Failure;
use super::rotate::{ACTIVE_S, Desk, refusal};
use crate::domain::record::{CkaId, TokenNote};
use crate::domain::{Epoch, EpochId, EpochState, Window};
use crate::hsm::{HsmError, KeyAttributes, KeyKind, KeyRef, Signature, TokenKey, verify_signature};

/// Messages an epoch signs before it becomes active.
const TRIAL_LEN: usize = 16;

/// Signatures that a step in the life of epochs takes of one epoch's key at most, which nobody
/// counts: a trial when the key pair is made, and a trial batch and the step's record when it is
/// decided and, where the root signs between, once more when it is concluded.
pub(super) const SIGNED_IN_STEP_MAX: u64 = 2 * TRIAL_LEN as u64 + 2;

impl Desk<'_> {
    /// Key pairs in the issuing tokens that were made for this issuer and are no epoch's: a step
    /// that needed them was not finished.
    ///
    /// # Errors
    /// The HSM's.
    pub fn spare_keys(&self) -> Result<Vec<(String, CkaId)>, HsmError> {
        let mut spare = Vec::new();
        for token in self.custody.tokens()? {
            let keys = self.custody.private_keys(&token.serial)?;
            let unused = keys.iter().filter_map(|key| self.spare_id(key));
            spare.extend(unused.map(|id| (token.serial.clone(), id)));
        }
        Ok(spare)
    }

    /// The id of a key that was made for this issuer and is no epoch's.
    fn spare_id(&self, key: &TokenKey) -> Option<CkaId> {
        let ours = Some(key).filter(|key| key.label == self.label());
        let id = ours.and_then(|key| CkaId::parse(&key.id))?;
        let epochs = self.book.epochs();
        epochs
            .iter()
            .all(|epoch| epoch.cka_id != id.0)
            .then_some(id)
    }

    /// The label of new key pairs: who looks into a token with other tools finds whose they are.
    fn label(&self) -> String {
        let founder = self.book.standing().founder;
        format!("fob-epoch {}", founder.unwrap_or(EpochId([0; 8])))
    }

    pub(super) fn make_active(&self, serial: &str) -> Result<Vec<Epoch>, Failure> {
        if !self.root_at_hand {
            return Err(refusal(
                "no prepared epoch is ready, and the root that could list a new one is not at hand",
            )
            .into());
        }
        let schedule = &self.settings.schedule;
        let open_s = schedule.rotate_every_s.unwrap_or(ACTIVE_S) + schedule.overlap_s;
        let window = Window {
            not_before: self.now,
            not_after: self.now.saturating_add(open_s),
        };
        self.make(serial, &[window], EpochState::Active)
    }

    /// Epochs with these windows, each on a key pair that was left over or is generated now.
    pub(super) fn make(
        &self,
        serial: &str,
        windows: &[Window],
        state: EpochState,
    ) -> Result<Vec<Epoch>, Failure> {
        let algorithm = self.algorithm(serial);
        let mut spare = self.usable_spares(serial, algorithm)?.into_iter();
        let mut made = Vec::new();
        for window in windows {
            let (key, public) = match spare.next() {
                Some(key) => (key, self.inspect(serial, &key)?.0),
                None => {
                    let made = self.custody.generate(serial, algorithm, &self.label());
                    let made = made.map_err(fault)?;
                    (made.key, made.public)
                }
            };
            made.push(Epoch {
                id: EpochId(public.kid()),
                key: public,
                cka_id: key.id,
                token_serial: serial.to_owned(),
                window: *window,
                state,
                created_at: self.now,
                activated_at: (state == EpochState::Active).then_some(self.now),
            });
        }
        Ok(made)
    }

    fn usable_spares(&self, serial: &str, algorithm: Algorithm) -> Result<Vec<KeyRef>, Failure> {
        let kind = if algorithm.is_p256() {
            KeyKind::P256
        } else {
            KeyKind::Ed25519
        };
        let keys = self.custody.private_keys(serial).map_err(fault)?;
        let usable = |key: &&TokenKey| key.kind == kind && key.attributes.offence().is_none();
        let spare = keys.iter().filter(usable);
        Ok(spare
            .filter_map(|key| self.spare_id(key))
            .map(|id| KeyRef {
                id: id.0,
                algorithm,
            })
            .collect())
    }

    /// New epochs sign as those before them do.
    fn algorithm(&self, serial: &str) -> Algorithm {
        let epochs = self.book.epochs();
        let newest = |of: &dyn Fn(&Epoch) -> bool| {
            let fitting = epochs.iter().filter(|epoch| of(epoch));
            fitting.max_by_key(|epoch| epoch.created_at).cloned()
        };
        newest(&|epoch| epoch.token_serial == serial)
            .or_else(|| newest(&|_| true))
            .map_or(Algorithm::Esp256, |epoch| epoch.key.algorithm())
    }

    pub(super) fn tokens(&self) -> Result<Vec<TokenNote>, Failure> {
        let tokens = self.custody.tokens().map_err(fault)?;
        Ok(tokens.into_iter().map(TokenNote::from).collect())
    }

    /// Has each epoch that is to sign, now or later, sign a trial batch, and checks that its key is
    /// the token's and cannot leave it.
    pub(super) fn check_keys(&self, epochs: &[Epoch]) -> Result<(), Failure> {
        let signs = |epoch: &&Epoch| {
            let state = epoch.state;
            state == EpochState::Active || state == EpochState::Prepared
        };
        for epoch in epochs.iter().filter(signs) {
            let (public, _) = self.inspect(&epoch.token_serial, &key_ref(epoch))?;
            if public.public() != epoch.key.public() {
                let why = format!("the token's key is not the one of epoch {}", epoch.id);
                return Err(Failure::Fault(why));
            }
            self.trial(epoch)?;
        }
        Ok(())
    }

    fn trial(&self, epoch: &Epoch) -> Result<(), Failure> {
        let messages: Vec<_> = (0..TRIAL_LEN)
            .map(|n| format!("fob: trial signature {n} of {}", epoch.id))
            .collect();
        let slices: Vec<_> = messages.iter().map(String::as_bytes).collect();
        let signer = self.custody.signer(&epoch.token_serial).map_err(fault)?;
        let signatures = signer.sign_all(&key_ref(epoch), &slices).map_err(fault)?;
        let holds = |(message, signature): (&&[u8], &Signature)| {
            verify_signature(&epoch.key, message, signature)
        };
        if signatures.len() == slices.len() && slices.iter().zip(&signatures).all(holds) {
            return Ok(());
        }
        let why = format!("what the key of epoch {} signs does not verify", epoch.id);
        Err(Failure::Fault(why))
    }

    pub(super) fn inspect(
        &self,
        serial: &str,
        key: &KeyRef,
    ) -> Result<(IssuerKey, KeyAttributes), Failure> {
        self.custody.inspect(serial, key).map_err(fault)
    }
}

pub(super) fn fault(error: HsmError) -> Failure {
    Failure::Fault(format!("the HSM: {error}"))
}

pub(super) fn key_ref(epoch: &Epoch) -> KeyRef {
    KeyRef {
        id: epoch.cka_id,
        algorithm: epoch.key.algorithm(),
    }
}
