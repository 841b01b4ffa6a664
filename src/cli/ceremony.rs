//! The root at hand: this process opens the root's token, has it sign what a step needs, and
//! closes it again. The step itself is decided and taken by whoever holds the directory.

use anyhow::{Context, bail, ensure};
use fob_verify::Algorithm;

use super::desk::{Answer, Command};
use super::operate::ask;
use super::place;
use super::steps::{Ask, Taken, Told};
use crate::config::Config;
use crate::domain::record::{CkaId, KeyNote, PublicKey, Who};
use crate::domain::{EpochId, RootKey, Step};
use crate::engine::ceremony::{Draft, Signed};
use crate::hsm::{KeyRef, Token};

/// Takes a step, with the root where it needs it.
pub(super) fn take(config: &Config, step: Step, who: Who) -> anyhow::Result<Taken> {
    // Before anything is generated for nothing.
    let mut root = match &step {
        Step::Prepare { .. } | Step::Revoke { .. } | Step::NameRoot | Step::SucceedRoot => {
            Some(place::root_token(config)?)
        }
        _ => None,
    };
    let next_root = match (&step, &root) {
        (Step::NameRoot, Some(token)) => Some(Box::new(next_root(config, token)?)),
        _ => None,
    };
    let root_at_hand = root.is_some() || config.root_pin_file.exists();
    let take = Ask::Take {
        step,
        who,
        root_at_hand,
        next_root,
    };
    let draft = match told(config, take)? {
        Told::Taken(taken) => return Ok(taken),
        Told::Draft(draft) => draft,
        _ => bail!("the server answers another question"),
    };
    let token = match root.take() {
        Some(token) => token,
        None => place::root_token(config)?,
    };
    let root = draft.root().cloned();
    let signed = sign(&token, *draft)?;
    match told(config, Ask::Conclude(Box::new(signed)))? {
        Told::Taken(taken) => {
            if let Some(root) = &root {
                place::write_root(config, root)?;
            }
            Ok(taken)
        }
        _ => bail!("the server answers another question"),
    }
}

/// Asks about epochs.
pub(super) fn told(config: &Config, question: Ask) -> anyhow::Result<Told> {
    match ask(config, Command::Epoch { ask: question })? {
        Answer::Epoch(told) => Ok(told),
        _ => bail!("the server answers another question"),
    }
}

fn sign(token: &Token, mut draft: Draft) -> anyhow::Result<Signed> {
    let root = draft.root().context("the draft names no root")?.clone();
    let PublicKey(public) = root.key;
    let key = key_ref(root.cka_id, public.algorithm());
    let found = token.public_key(&key).with_context(|| {
        let serial = &root.token;
        format!("the root's key is in the token of serial {serial}; does [root] name it?")
    })?;
    ensure!(
        found.public() == public.public(),
        "the key in the root's token is not the root's"
    );
    // What this token says of its keys, nobody else can write into the record.
    let identity = token.identity()?;
    let named = draft.record.after.next_root.clone();
    for one in [root].into_iter().chain(named) {
        let PublicKey(public) = one.key;
        let attributes = token.key_attributes(&key_ref(one.cka_id, public.algorithm()));
        draft.record.keys.push(KeyNote {
            kid: EpochId(public.kid()),
            token: one.token,
            attributes: serde_json::to_value(attributes.ok())?,
        });
    }
    draft.record.tokens.push(identity.into());
    Ok(draft.sign(token, &key, &public)?)
}

/// The key pair of the next root: one that an unfinished step has left in the root's token, or a
/// new one.
fn next_root(config: &Config, token: &Token) -> anyhow::Result<RootKey> {
    let present = std::fs::read(config.dir.join(place::ROOT_FILE))?;
    let present = fob_verify::IssuerKey::decode(&present)
        .map_err(|why| anyhow::anyhow!("{}: {why}", place::ROOT_FILE))?;
    let (kid, algorithm) = (EpochId(present.kid()), present.algorithm());
    let label = format!("fob-root after {kid}");
    let left = token.keys()?;
    let left = left.iter().find(|key| key.label == label);
    let (id, key) = match left.and_then(|key| CkaId::parse(&key.id)) {
        Some(id) => (id, token.public_key(&key_ref(id, algorithm))?),
        None => {
            let made = token.generate_key_pair(algorithm, &label)?;
            (CkaId(made.key.id), made.public)
        }
    };
    Ok(RootKey {
        key: PublicKey(key),
        cka_id: id,
        token: token.identity()?.serial,
    })
}

fn key_ref(CkaId(id): CkaId, algorithm: Algorithm) -> KeyRef {
    KeyRef { id, algorithm }
}
