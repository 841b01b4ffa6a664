//! The story, up to the change. Each step asks for what must come of it.

use anyhow::{Context, ensure};
use aws_lc_rs::signature::EcdsaKeyPair;
use fob_verify::Refusal;
use serde_json::{Value, json};

use super::cast::{BORROWER, Car, OWNER, VEHICLE, Way, bare, count, owner, text};
use super::endings;
use super::house::House;
use super::stage::{Stage, Step, short};
use crate::cli::jwk;
use crate::cli::sign::{Owner, lending};
use crate::domain::FleetId;
use crate::domain::function::BUILT_IN;

/// For how long the car is lent, in seconds.
pub(super) const LENT_S: u64 = 7200;

pub(super) const UNLOCK: &str = "doors.unlock";
pub(super) const START: &str = "engine.start";
pub(super) const TRUNK: &str = "trunk.open";

/// What there is once the server runs.
pub(super) struct Scene {
    pub(super) house: House,
    pub(super) way: Way,
    pub(super) owner: Owner,
    /// The borrower's phone.
    pub(super) phone: EcdsaKeyPair,
    pub(super) car: Car,
    /// What the owner was answered last.
    pub(super) authorization: Value,
    /// The bundle as the phone has it, by the versions it got, lists beside it.
    pub(super) bundles: Vec<Value>,
}

/// Tells it.
pub(super) fn tell(house: House, mut stage: Stage) -> anyhow::Result<()> {
    let mut house = house;
    let mut founded = Value::Null;
    stage.step("An issuer is founded", |step| {
        founded = found(&house, step)?;
        Ok(())
    })?;
    let mut url = String::new();
    stage.step("It serves", |step| {
        url = house.serve()?;
        step.sent("fob serve --listen 127.0.0.1:0");
        step.answer(format!("it listens on {url}"));
        Ok(())
    })?;
    let (way, owner) = (Way::new(url)?, owner(&house)?);
    let mut made = None;
    stage.step("A car leaves the factory", |step| {
        made = Some(build_car(&house, &way, step)?);
        Ok(())
    })?;
    let mut scene = Scene {
        car: made.context("a car")?,
        house,
        way,
        owner,
        phone: jwk::generate()?,
        authorization: Value::Null,
        bundles: Vec::new(),
    };
    stage.step("The owner lends two functions", |step| scene.lend(step))?;
    stage.step("The borrower redeems the code set, once", |step| {
        scene.redeem(step)
    })?;
    stage.step("The car opens, without any network", |step| {
        scene.open(step)
    })?;
    stage.step("The owner changes what was lent", |step| scene.change(step))?;
    stage.step("The phone brings the news, and the car obeys", |step| {
        scene.bring_news(step)
    })?;
    endings::tell(&mut scene, &mut stage, &founded)
}

/// The issuer; what `fob init` says of it.
fn found(house: &House, step: &mut Step) -> anyhow::Result<Value> {
    step.sent("fob init --demo");
    let made = house.run(&["init", "--demo"])?;
    step.answer(format!(
        "root key {} and issuing key {}, each in a token of SoftHSM; neither can leave it",
        text(&made, "root_kid")?,
        text(&made, "epoch")?
    ));
    step.note(format!("{OWNER} owns {VEHICLE} and has a registered phone"));
    Ok(made)
}

fn build_car(house: &House, way: &Way, step: &mut Step) -> anyhow::Result<Car> {
    let fleets = house.run(&["fleet", "list"])?;
    let mut all = fleets.as_array().into_iter().flatten();
    let demo = all.find(|fleet| fleet["name"] == "demo");
    let fleet = text(demo.context("the demo fleet")?, "id")?.to_owned();
    let id = FleetId::parse(&fleet).context("the fleet's id")?;
    let (car, key) = Car::new(house, id)?;
    step.car(format!(
        "provisioned with three things: root.cbor, {VEHICLE}, fleet {fleet}"
    ));
    let token = house.run(&[
        "token",
        "create",
        "--fleet",
        "demo",
        "--scopes",
        "admin",
        "--expires",
        "1h",
    ])?;
    let names: Vec<&str> = BUILT_IN.iter().map(|(_, name)| *name).collect();
    let body = json!({ "model": "Demo", "owner": OWNER, "functions": names, "jwk": key });
    let bearer = format!("Bearer {}", text(&token, "token")?);
    let headers = [
        ("content-type", "application/json"),
        ("authorization", bearer.as_str()),
    ];
    let path = format!("/v1/vehicles/{VEHICLE}");
    step.sent(format!(
        "PUT {path} with the public half of the car's own key"
    ));
    let answer = way.call(("PUT", &path), &headers, body.to_string())?;
    answer.of(204)?;
    step.answer("204: from now on its acknowledgements are believed");
    Ok(car)
}

impl Scene {
    /// The bundle as the phone got it last.
    pub(super) fn newest(&self) -> anyhow::Result<&Value> {
        self.bundles.last().context("a bundle")
    }

    /// The car must open this function.
    pub(super) fn opens(
        &self,
        step: &mut Step,
        bundle: &Value,
        function: &str,
    ) -> anyhow::Result<()> {
        match self.car.asked(&self.phone, bundle, function)? {
            Ok(_) => step.car(format!("{function}: done")),
            Err(why) => anyhow::bail!("the car refuses {function}: {}", why.code()),
        }
        Ok(())
    }

    /// The car must refuse it, for this reason.
    pub(super) fn stays_shut(
        &self,
        step: &mut Step,
        bundle: &Value,
        (function, why): (&str, Refusal),
    ) -> anyhow::Result<()> {
        let answer = self.car.asked(&self.phone, bundle, function)?;
        refused(step, function, answer, why)
    }

    fn lend(&mut self, step: &mut Step) -> anyhow::Result<()> {
        let command = lending(VEHICLE, &[UNLOCK, START], LENT_S);
        step.sent(format!(
            "POST /v1/authorizations, signed by the owner's phone: {UNLOCK} and {START} for two hours"
        ));
        let call = ("POST", "/v1/authorizations");
        let answer = self.way.command(&self.owner, call, &command)?;
        self.authorization = answer.of(201)?;
        let code_set = text(&self.authorization, "code_set")?;
        step.answer(format!("201, a code set to hand on: {}", short(code_set)));
        Ok(())
    }

    fn redeem(&mut self, step: &mut Step) -> anyhow::Result<()> {
        let code_set = text(&self.authorization, "code_set")?;
        step.sent(format!(
            "POST /v1/redemptions: the code set, {BORROWER}, and a proof of the phone's key"
        ));
        let first = self.way.redeem(&self.phone, code_set)?;
        let again = self.way.redeem(&self.phone, code_set)?;
        ensure!(
            again.status == first.status && again.body == first.body,
            "the same request was answered with another bundle"
        );
        let bundle = first.of(201)?;
        ensure!(
            count(&bundle, "keys") == 2,
            "there is no key for each function"
        );
        let key = text(&bundle["keys"][0], "key")?;
        step.answer(format!("201, a key for each function: {}", short(key)));
        step.answer("the same request again: the same bytes");
        let rival = self.way.redeem(&jwk::generate()?, code_set)?;
        rival.refused(409, "code_set_redeemed")?;
        step.answer("another phone with the same code set: 409 code_set_redeemed");
        Ok(())
    }

    fn open(&mut self, step: &mut Step) -> anyhow::Result<()> {
        let code_set = text(&self.authorization, "code_set")?;
        let bundle = self.way.redeem(&self.phone, code_set)?.of(201)?;
        let id = text(&bundle, "bundle")?;
        step.sent(format!(
            "GET /v1/bundles/{id}?staple=true, by the phone, while it has a network"
        ));
        let stapled = self.way.stapled(&self.phone, id)?;
        step.answer(format!(
            "200, the keys, and beside them the trust list and {} status list",
            count(&stapled, "status_lists")
        ));
        step.note("the phone goes down into the garage; from here on only it and the car talk");
        self.opens(step, &stapled, UNLOCK)?;
        self.opens(step, &stapled, START)?;
        let replayed = self
            .car
            .asked_with_an_old_proof(&self.phone, &stapled, UNLOCK)?;
        refused(
            step,
            "a proof it was given before",
            replayed,
            Refusal::ProofMismatch,
        )?;
        let thief = jwk::generate()?;
        let stolen = self.car.asked(&thief, &stapled, UNLOCK)?;
        refused(
            step,
            "the same key on another phone",
            stolen,
            Refusal::BadProof,
        )?;
        self.bundles.push(stapled);
        Ok(())
    }

    fn change(&mut self, step: &mut Step) -> anyhow::Result<()> {
        let id = text(&self.authorization, "authorization")?;
        let path = format!("/v1/authorizations/{id}");
        step.sent(format!(
            "PATCH {path} at version 1: {UNLOCK} and {TRUNK}, no more {START}"
        ));
        let patch = json!({ "version": 1, "functions": [UNLOCK, TRUNK] });
        let changed = self.way.command(&self.owner, ("PATCH", &path), &patch)?;
        let changed = changed.of(200)?;
        ensure!(changed["version"] == 2, "it is not at version 2");
        let certain = &changed["certain_by"];
        step.answer(format!(
            "200, version 2: {} key revoked, {} issued to the same phone",
            count(&changed, "revoked"),
            count(&changed, "issued")
        ));
        step.answer(format!(
            "certain at the car's next contact, and by {} whatever happens",
            text(certain, "latest")?
        ));
        ensure!(certain["when"] == "next_contact", "it says {certain}");
        let old = bare(self.newest()?);
        step.note("the car has met nobody since, and cannot know:");
        self.opens(step, &old, START)?;
        Ok(())
    }

    fn bring_news(&mut self, step: &mut Step) -> anyhow::Result<()> {
        let old = bare(self.newest()?);
        let id = text(&old, "bundle")?;
        let news = self.way.stapled(&self.phone, id)?;
        ensure!(news["bundle"] == old["bundle"], "the bundle has another id");
        step.sent("GET the bundle once more: the same id, version 2, fresh lists beside it");
        self.opens(step, &news, TRUNK)?;
        step.note("the added function works at once; the old version never again:");
        self.stays_shut(step, &old, (START, Refusal::VersionSuperseded))?;
        self.stays_shut(step, &old, (UNLOCK, Refusal::VersionSuperseded))?;
        self.opens(step, &bare(&news), UNLOCK)?;
        self.bundles.push(news);
        Ok(())
    }
}

/// What must be this refusal of the car.
pub(super) fn refused(
    step: &mut Step,
    what: &str,
    answer: Result<u16, Refusal>,
    why: Refusal,
) -> anyhow::Result<()> {
    match answer {
        Ok(_) => anyhow::bail!("the car agrees to {what}"),
        Err(said) => {
            ensure!(
                said == why,
                "{what}: refused as {} and not as {}",
                said.code(),
                why.code()
            );
            step.car(format!("{what}: no, {}", said.text()));
            Ok(())
        }
    }
}
