//! The story's end: the owner takes back what was lent, the car connects and says so, and the
//! issuing key is replaced while everything goes on.

use anyhow::ensure;
use fob_verify::Refusal;
use serde_json::{Value, json};

use super::cast::{VEHICLE, bare, count, text};
use super::stage::{Stage, Step};
use super::story::{LENT_S, START, Scene, UNLOCK};
use crate::cli::sign::lending;

/// Tells it; `founded` is what was said of the issuer.
pub(super) fn tell(scene: &mut Scene, stage: &mut Stage, founded: &Value) -> anyhow::Result<()> {
    stage.step("The owner takes it back", |step| scene.take_back(step))?;
    stage.step("The car connects, and says that it knows", |step| {
        scene.sync(step)
    })?;
    stage.step("The issuing key is replaced", |step| {
        scene.rotate(step, founded)
    })?;
    stage.step("Keys of the new key open the same car", |step| {
        scene.lend_again(step, founded)
    })?;
    stage.step("The end", |step| scene.close(step))
}

impl Scene {
    fn path(&self) -> anyhow::Result<String> {
        let id = text(&self.authorization, "authorization")?;
        Ok(format!("/v1/authorizations/{id}"))
    }

    fn take_back(&self, step: &mut Step) -> anyhow::Result<()> {
        let path = self.path()?;
        step.sent(format!("DELETE {path}, signed by the owner's phone"));
        let ended = self
            .way
            .command(&self.owner, ("DELETE", &path), &json!({}))?;
        let ended = ended.of(200)?;
        ensure!(ended["state"] == "terminating", "it is {}", ended["state"]);
        step.answer(format!(
            "200, terminating: {} keys of both versions revoked; what the car knows is another matter",
            count(&ended, "revoked")
        ));
        Ok(())
    }

    fn sync(&self, step: &mut Step) -> anyhow::Result<()> {
        step.sent(format!(
            "POST /v1/vehicles/{VEHICLE}/sync, twice: what the car has applied, signed with its key"
        ));
        let applied = self.car.sync(&self.way)?;
        step.answer(format!(
            "200, a sync, trust list {} and {} status list",
            applied.trust_version, applied.lists
        ));
        let bundle = bare(self.newest()?);
        self.stays_shut(step, &bundle, (UNLOCK, Refusal::Revoked))?;
        let token = self.token("read")?;
        let bearer = format!("Bearer {token}");
        let path = self.path()?;
        let read = self
            .way
            .call(("GET", &path), &[("authorization", &bearer)], "")?;
        let read = read.of(200)?;
        ensure!(read["state"] == "terminated", "it is {}", read["state"]);
        step.answer("the fleet's back end reads it: terminated");
        Ok(())
    }

    fn rotate(&self, step: &mut Step, founded: &Value) -> anyhow::Result<()> {
        step.sent("fob epoch rotate --now, while the server runs");
        self.house.run(&["epoch", "rotate", "--now"])?;
        let epochs = self.house.run(&["epoch", "list"])?;
        let state = |name: &str| {
            let all = epochs.as_array().into_iter().flatten();
            let mut of = all.filter(|epoch| epoch["state"] == name);
            of.find_map(|epoch| epoch["id"].as_str())
                .unwrap_or_default()
        };
        let (new, old) = (state("active"), state("retired"));
        ensure!(
            old == text(founded, "epoch")? && !new.is_empty() && new != old,
            "the epochs are {epochs}"
        );
        step.answer(format!(
            "{new} signs from now on, {old} no more; the root has signed a trust list with both"
        ));
        Ok(())
    }

    fn lend_again(&mut self, step: &mut Step, founded: &Value) -> anyhow::Result<()> {
        let call = ("POST", "/v1/authorizations");
        let command = lending(VEHICLE, &[UNLOCK, START], LENT_S);
        let made = self.way.command(&self.owner, call, &command)?.of(201)?;
        let bundle = self.way.redeem(&self.phone, text(&made, "code_set")?)?;
        let bundle = bundle.of(201)?;
        step.sent("an authorization and a redemption, as before");
        let signer = signer_of(&bundle)?;
        ensure!(
            signer != text(founded, "epoch")?,
            "the old key has signed it"
        );
        step.answer(format!("201, keys signed by {signer}"));
        self.stays_shut(step, &bundle, (UNLOCK, Refusal::UnknownIssuer))?;
        step.note("nobody has told the car of this key; the phone carries the new trust list:");
        let stapled = self.way.stapled(&self.phone, text(&bundle, "bundle")?)?;
        self.opens(step, &stapled, UNLOCK)?;
        self.opens(step, &bundle, START)?;
        Ok(())
    }

    fn close(&mut self, step: &mut Step) -> anyhow::Result<()> {
        self.house.close()?;
        step.answer("the server has ended");
        if self.house.stays() {
            step.note(format!(
                "the issuer stays in {0}: fob serve --dir {0}",
                self.house.dir().display()
            ));
        } else {
            step.note("the issuer is removed with its folder; --dir D would keep one in D");
        }
        Ok(())
    }

    /// A bearer token of the fleet's back end.
    fn token(&self, scopes: &str) -> anyhow::Result<String> {
        let made = self.house.run(&[
            "token",
            "create",
            "--fleet",
            "demo",
            "--scopes",
            scopes,
            "--expires",
            "1h",
        ])?;
        Ok(text(&made, "token")?.to_owned())
    }
}

/// The epoch that signed a bundle's first key.
fn signer_of(bundle: &Value) -> anyhow::Result<String> {
    let keys = crate::cli::verify::keys(bundle.to_string().as_bytes())?;
    let key = keys.first().map_or(&[][..], Vec::as_slice);
    let key = fob_verify::key::SignedKey::decode(key).map_err(|why| anyhow::anyhow!("{why}"))?;
    Ok(crate::domain::EpochId(*key.kid()).to_string())
}
