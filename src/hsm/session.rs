//! The sessions that sign, floor 2.
//!
//! A [`Link`] is one login's worth of them: an anchor that holds the login and
//! never signs, and lanes that do. A lane is a session with the handles of the
//! keys it has signed with; whoever signs takes a lane out of a lock-free queue
//! and puts it back. When a link is lost it is dropped whole (see `recover`).

use std::mem;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use crossbeam::channel::{Receiver, Sender, bounded};
use cryptoki::object::{Attribute, ObjectHandle};
use cryptoki::session::Session;
use cryptoki::slot::{Slot, TokenInfo};
use cryptoki_sys::{CK_MECHANISM_TYPE, CKM_ECDSA, CKM_EDDSA};

use super::attributes::{KeyAttributes, refuse};
use super::config::{SessionCount, SessionKeyCopy, TokenConfig};
use super::fast::BareCalls;
use super::login::{log_in, open_session};
use super::module::{Instance, Module};
use super::park::stuck;
use super::pin::Pin;
use super::{HsmError, KeyRef, Profile, Signature, keys, token};

/// Keys a lane keeps open: the active epoch, a few that drain, and some to spare.
const OPEN_KEYS_MAX: usize = 8;

/// An anchor session that holds the login, and the lanes that sign.
pub(super) struct Link {
    pub(super) module: &'static Module,
    pub(super) instance: Arc<Instance>,
    pub(super) slot: Slot,
    pub(super) info: TokenInfo,
    /// What is particular about the token.
    pub(super) profile: &'static Profile,
    pub(super) lanes: usize,
    pub(super) bare: Option<BareCalls>,
    pub(super) copies: Copies,
    /// How long a lane is waited for.
    patience: Duration,
    put_back: Sender<Lane>,
    idle: Receiver<Lane>,
    /// Held by whoever takes all lanes: two of these would wait for each other.
    all: Mutex<()>,
    /// Some until dropped, after the lanes: the login lasts as long as there are any.
    anchor: Option<Mutex<Session>>,
}

/// Whether lanes copy keys. `Auto` gives up at the first refusal and stays so.
pub(super) struct Copies {
    mode: SessionKeyCopy,
    /// Written once, by the first lane that is refused a copy; a lane that has
    /// not seen it yet merely tries once more, so no ordering is needed.
    on: AtomicBool,
}

impl Link {
    /// Finds the token, logs in and opens the sessions, one after another, up to
    /// the first failure. The PIN is tried at most once.
    pub(super) fn open(
        module: &'static Module,
        instance: &Arc<Instance>,
        config: &TokenConfig,
        pin: &Pin,
    ) -> Result<Self, HsmError> {
        let _inside = instance.enter();
        let token = token::find(&instance.pkcs11, &config.label, config.serial.as_deref())?;
        let profile = module.profile.of_token(&token.info);
        let wanted = config.sessions.wanted(profile)?;
        let anchor = open_session(instance, profile, token.slot)?;
        log_in(&anchor, &token.info, profile, pin)?;
        let (put_back, idle) = bounded(wanted);
        let mut lanes = 0;
        while lanes < wanted {
            match Lane::open(instance, profile, token.slot) {
                // There is room for every lane, and the queue is ours.
                Ok(lane) => drop(put_back.try_send(lane)),
                Err(error) if lanes > 0 && config.sessions == SessionCount::Auto => {
                    tracing::warn!(%error, lanes, wanted, "the token gives fewer sessions than wanted");
                    break;
                }
                Err(_) if lanes > 0 => {
                    return Err(HsmError::SessionsExhausted {
                        opened: lanes,
                        wanted,
                    });
                }
                Err(error) => return Err(error),
            }
            lanes += 1;
        }
        let bare = module.bare_calls(&anchor);
        let copies = Copies::new(config.session_key_copy, profile);
        Ok(Self {
            module,
            instance: Arc::clone(instance),
            slot: token.slot,
            info: token.info,
            profile,
            lanes,
            bare,
            copies,
            patience: config.call_timeout,
            put_back,
            idle,
            all: Mutex::new(()),
            anchor: Some(Mutex::new(anchor)),
        })
    }

    /// Does `work` with a lane of its own. Waits while all are taken.
    pub(super) fn with_lane<T>(
        &self,
        work: impl FnOnce(&mut Lane) -> Result<T, HsmError>,
    ) -> Result<T, HsmError> {
        let mut taken = self.take_lane()?;
        let _inside = self.instance.enter();
        match &mut taken.lane {
            Some(lane) => work(lane),
            None => Err(HsmError::System { what: "a session" }),
        }
    }

    /// One more lane beside those of the queue, for measuring.
    pub(super) fn extra_lane(&self) -> Result<Lane, HsmError> {
        Lane::open(&self.instance, self.profile, self.slot)
    }

    /// A session that may change the token. The login holds for it too.
    pub(super) fn admin_session(&self) -> Result<Session, HsmError> {
        Ok(self.instance.pkcs11.open_rw_session(self.slot)?)
    }

    /// Asks the token whether the login still holds.
    pub(super) fn check_alive(&self) -> Result<(), HsmError> {
        let Some(anchor) = &self.anchor else {
            return Err(HsmError::System { what: "a session" });
        };
        keys::require_login(&anchor.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Lanes that nobody has taken.
    pub(super) fn idle_lanes(&self) -> usize {
        self.idle.len()
    }

    /// Does `work` with every lane. Waits until nobody else holds one, and passes over those that
    /// do not come back: whatever they keep is of no use to anybody.
    pub(super) fn with_every_lane(
        &self,
        mut work: impl FnMut(&Self, &mut Lane) -> Result<(), HsmError>,
    ) -> Result<(), HsmError> {
        let _all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        let mut taken: Vec<_> = (0..self.lanes)
            .map_while(|_| self.take_lane().ok())
            .collect();
        if taken.is_empty() {
            return Err(stuck(self.info.label(), self.patience));
        }
        let mut lanes = taken.iter_mut().filter_map(|taken| taken.lane.as_mut());
        lanes.try_for_each(|lane| work(self, lane))
    }

    fn take_lane(&self) -> Result<TakenLane<'_>, HsmError> {
        // The other end of the queue lives in `self`, so it is connected.
        match self.idle.recv_timeout(self.patience) {
            Ok(lane) => Ok(TakenLane {
                link: self,
                lane: Some(lane),
            }),
            Err(_) => Err(stuck(self.info.label(), self.patience)),
        }
    }
}

impl Drop for Link {
    /// Sessions of an instance that is finalised are gone, and their numbers may
    /// be those of others: they are let go of, not closed.
    fn drop(&mut self) {
        let gone = self.instance.is_finalized();
        for lane in self.idle.try_iter() {
            if gone {
                mem::forget(lane);
            }
        }
        let anchor = self.anchor.take();
        if gone {
            mem::forget(anchor);
        }
    }
}

impl Copies {
    fn new(mode: SessionKeyCopy, profile: &Profile) -> Self {
        let on = match mode {
            SessionKeyCopy::On => true,
            SessionKeyCopy::Off => false,
            SessionKeyCopy::Auto => profile.copies_pay,
        };
        Self {
            mode,
            on: AtomicBool::new(on),
        }
    }

    pub(super) fn on(&self) -> bool {
        self.on.load(Ordering::Relaxed)
    }

    /// After a refusal: an error if copies are demanded, the token's own key otherwise.
    fn refused(&self, error: HsmError) -> Result<(), HsmError> {
        if error.lost() || matches!(error, HsmError::AttributeRefused { .. }) {
            return Err(error);
        }
        if self.mode == SessionKeyCopy::On {
            return Err(HsmError::CopyRefused {
                code: error.to_string(),
            });
        }
        tracing::warn!(%error, "the token makes no session copies; signing with its own key objects");
        self.on.store(false, Ordering::Relaxed);
        Ok(())
    }
}

/// One session that signs, and the keys it has open.
pub(super) struct Lane {
    session: Session,
    /// Oldest first, at most [`OPEN_KEYS_MAX`].
    open: Vec<OpenKey>,
}

/// A key as this lane signs with it. The handle dies with the session.
#[derive(Clone, Copy)]
struct OpenKey {
    key: KeyRef,
    handle: ObjectHandle,
    copy: bool,
}

impl Lane {
    fn open(instance: &Instance, profile: &Profile, slot: Slot) -> Result<Self, HsmError> {
        Ok(Self {
            session: open_session(instance, profile, slot)?,
            open: Vec::with_capacity(OPEN_KEYS_MAX),
        })
    }

    /// Signs each message.
    pub(super) fn sign_each<'a>(
        &mut self,
        link: &Link,
        key: &KeyRef,
        messages: impl ExactSizeIterator<Item = &'a [u8]>,
    ) -> Result<Vec<Signature>, HsmError> {
        let handle = self.open_key(link, key)?;
        let mut signatures = vec![[0; 64]; messages.len()];
        for (message, signature) in messages.zip(&mut signatures) {
            if key.algorithm.is_p256() {
                let hash = digest(&SHA256, message);
                self.sign_patiently(link, key, handle, hash.as_ref(), signature)?;
            } else {
                self.sign_patiently(link, key, handle, message, signature)?;
            }
        }
        Ok(signatures)
    }

    /// Signs, and once more where that is what helps. A call that failed has
    /// ended its operation, so the second begins anew.
    fn sign_patiently(
        &self,
        link: &Link,
        key: &KeyRef,
        handle: ObjectHandle,
        data: &[u8],
        signature: &mut Signature,
    ) -> Result<(), HsmError> {
        match self.sign_raw(link.bare, key, handle, data, signature) {
            Err(HsmError::Failed {
                transient: true, ..
            }) => self.sign_raw(link.bare, key, handle, data, signature),
            done => done,
        }
    }

    /// Signs bytes as they are, hashing nothing: what a ceiling is measured with.
    pub(super) fn sign_raw(
        &self,
        bare: Option<BareCalls>,
        key: &KeyRef,
        handle: ObjectHandle,
        data: &[u8],
        signature: &mut Signature,
    ) -> Result<(), HsmError> {
        let filled = match bare {
            Some(bare) => bare.sign(&self.session, mechanism(key), handle, data, signature)?,
            None => keys::sign_guarded(&self.session, key.algorithm, handle, data, signature)?,
        };
        if filled != signature.len() {
            return Err(HsmError::SignatureInvalid {
                reason: "it is not 64 bytes long",
            });
        }
        Ok(())
    }

    /// The handle to sign with in this lane: found, checked and copied the first time.
    pub(super) fn open_key(&mut self, link: &Link, key: &KeyRef) -> Result<ObjectHandle, HsmError> {
        if let Some(open) = self.open.iter().find(|open| open.key == *key) {
            return Ok(open.handle);
        }
        let _objects = link.instance.lock_objects();
        let found = keys::open_private(&self.session, link.profile, key)?;
        let (handle, copy) = self.copy(link, key, found)?;
        if self.open.len() == OPEN_KEYS_MAX {
            let oldest = self.open.remove(0);
            self.discard(oldest);
        }
        self.open.push(OpenKey {
            key: *key,
            handle,
            copy,
        });
        Ok(handle)
    }

    /// A copy of the key in this session where that is wanted, else the key itself.
    fn copy(
        &self,
        link: &Link,
        key: &KeyRef,
        found: ObjectHandle,
    ) -> Result<(ObjectHandle, bool), HsmError> {
        if !link.copies.on() {
            return Ok((found, false));
        }
        match self.copy_checked(link, key, found) {
            Ok(copy) => Ok((copy, true)),
            Err(error) => link.copies.refused(error).map(|()| (found, false)),
        }
    }

    fn copy_checked(
        &self,
        link: &Link,
        key: &KeyRef,
        found: ObjectHandle,
    ) -> Result<ObjectHandle, HsmError> {
        let copy = self
            .session
            .copy_object(found, &[Attribute::Token(false)])?;
        let checked = KeyAttributes::read(&self.session, link.profile, copy)
            .and_then(|read| refuse(&key.id, read.copy_offence()));
        if let Err(error) = checked {
            self.discard(OpenKey {
                key: *key,
                handle: copy,
                copy: true,
            });
            return Err(error);
        }
        Ok(copy)
    }

    /// Drops `key` from this lane, copy included. The object lock must be held.
    pub(super) fn forget(&mut self, key: &KeyRef) {
        while let Some(at) = self.open.iter().position(|open| open.key == *key) {
            let open = self.open.remove(at);
            self.discard(open);
        }
    }

    fn discard(&self, open: OpenKey) {
        if open.copy
            && let Err(error) = self.session.destroy_object(open.handle)
        {
            tracing::debug!(key = open.key.id_hex(), %error, "a session copy stays until its session closes");
        }
    }
}

fn mechanism(key: &KeyRef) -> CK_MECHANISM_TYPE {
    if key.algorithm.is_p256() {
        CKM_ECDSA
    } else {
        CKM_EDDSA
    }
}

/// Puts its lane back into the queue when dropped, panics included: a lane that
/// got lost would leave somebody waiting for it.
struct TakenLane<'a> {
    link: &'a Link,
    /// Some until dropped.
    lane: Option<Lane>,
}

impl Drop for TakenLane<'_> {
    fn drop(&mut self) {
        if let Some(lane) = self.lane.take() {
            // There is room for every lane, and both ends of the queue live in the link.
            drop(self.link.put_back.try_send(lane));
        }
    }
}
