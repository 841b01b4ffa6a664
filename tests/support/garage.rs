//! What a car would see: status lists fetched and believed, keys looked up on them; and a car's own
//! key, which signs acknowledgements.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use fob_verify::ack::{self, Ack};
use fob_verify::key::SignedKey;
use fob_verify::status::{self, Room, Status};
use fob_verify::{Algorithm, IssuerKey, RustCrypto, trust};
use serde_json::{Value, json};

use super::{Answer, Issuer, Phone, Server, authorization, now};

/// A demo server with tokens for everything that is tried here.
pub struct Garage {
    pub issuer: Issuer,
    pub server: Server,
    pub owner: Phone,
    /// Scopes `authorize`, `revoke`, `read`, `issue`.
    pub token: String,
    pub admin: String,
}

/// One key as it was handed out.
#[derive(Clone, Debug)]
pub struct Handed {
    pub id: String,
    pub function: String,
    pub version: u32,
    pub uri: String,
    pub index: u32,
    pub vehicle_epoch: u32,
}

impl Garage {
    pub fn new() -> Self {
        Self::with(&[])
    }

    /// Of an issuer made with these arguments too.
    pub fn with(init: &[&str]) -> Self {
        let issuer = Issuer::with(&[&["--demo"], init].concat());
        let server = issuer.serve();
        Self {
            owner: issuer.owner(),
            token: issuer.token("authorize,revoke,read,issue"),
            admin: issuer.token("admin"),
            issuer,
            server,
        }
    }

    /// Kills the server as a crash would, and starts another in its place. What the crash has left
    /// fits together.
    pub fn crash(&mut self) {
        let address = self.server.url.strip_prefix("http://").unwrap().to_owned();
        std::mem::replace(&mut self.server, Server::at(String::new())).kill();
        // A database is to be quiet for a while first.
        if self.issuer.file("fob.db").exists() {
            crate::audit::sound(&self.issuer);
        }
        self.server = self.issuer.serve_at(&address);
    }

    /// Sends JSON with the token.
    pub fn send(&self, method: &str, path: &str, body: &Value) -> Answer {
        self.server.json_as(&self.token, method, path, body)
    }

    /// The same, whose answer must be this status.
    #[track_caller]
    pub fn done(&self, method: &str, path: &str, body: &Value) -> Value {
        let answer = self.send(method, path, body);
        assert!(answer.status < 300, "{method} {path}: {}", answer.text());
        answer.value()
    }

    /// A change at this version.
    pub fn change(&self, id: &str, version: u32, body: &Value) -> Answer {
        let bearer = format!("Bearer {}", self.token);
        let tag = format!("\"{version}\"");
        let headers = [
            ("content-type", "application/json"),
            ("authorization", bearer.as_str()),
            ("if-match", tag.as_str()),
        ];
        let path = format!("/v1/authorizations/{id}");
        self.server
            .send("PATCH", &path, &headers, body.to_string().as_bytes())
    }

    /// An authorization with the token.
    pub fn authorize(&self, vehicle: &str, functions: &[&str]) -> Value {
        let body = authorization(vehicle, functions);
        self.done("POST", "/v1/authorizations", &body)
    }

    /// Authorizes and redeems: both answers.
    pub fn issue(
        &self,
        vehicle: &str,
        functions: &[&str],
        identity: &str,
        phone: &Phone,
    ) -> (Value, Value) {
        let made = self.authorize(vehicle, functions);
        let redeemed = self
            .server
            .redeem(made["code_set"].as_str().unwrap(), identity, phone);
        assert_eq!(redeemed.status, 201, "{}", redeemed.text());
        (made, redeemed.value())
    }

    /// The authorization as it stands.
    pub fn read(&self, id: &str) -> Value {
        self.done("GET", &format!("/v1/authorizations/{id}"), &json!({}))
    }

    /// The bundle as it stands.
    pub fn bundle(&self, id: &str) -> Value {
        self.done("GET", &format!("/v1/bundles/{id}"), &json!({}))
    }

    /// How a status list, fetched and believed as a car would, has this key.
    pub fn status(&self, key: &Handed) -> Status {
        let path = key.uri.strip_prefix(&self.server.url).unwrap();
        let list = self.server.get(path, &[]);
        assert_eq!(list.status, 200, "{}", list.text());
        self.status_on(&list.body, key)
    }

    /// How this list has the key.
    pub fn status_on(&self, list: &[u8], key: &Handed) -> Status {
        self.believing(|trusted| {
            let list = status::verify(list, trusted, &RustCrypto).unwrap();
            list.check_time(now()).unwrap();
            assert_eq!(list.uri(), key.uri);
            list.status(key.index, &mut Room::new()).unwrap()
        })
    }

    /// With the trust list a car would have.
    pub fn believing<T>(
        &self,
        with: impl FnOnce(&fob_verify::Verified<trust::TrustList<'_>>) -> T,
    ) -> T {
        let root = std::fs::read(self.issuer.file("root.cbor")).unwrap();
        let root = IssuerKey::decode(&root).unwrap();
        let list = self.server.get("/v1/trust", &[]).body;
        with(&trust::verify(&list, &[root], now(), &RustCrypto).unwrap())
    }

    /// Sends an ack of this car, later than those before.
    pub fn sync(&self, car: &Phone, vehicle: &str, at: u64, applied: Option<[u8; 32]>) -> Answer {
        let key = car.key();
        let ack = Ack {
            vehicle,
            issued_at: at,
            applied,
        };
        let message = ack::to_be_signed(&ack, Algorithm::Es256, key.public()).unwrap();
        let body = message.assemble(&car.sign(message.message()));
        let headers = [("content-type", "application/cbor")];
        let path = format!("/v1/vehicles/{vehicle}/sync");
        self.server.send("POST", &path, &headers, &body)
    }
}

/// The items of a CBOR array of byte strings.
pub fn parts(body: &[u8]) -> Vec<Vec<u8>> {
    let mut decoder = minicbor::Decoder::new(body);
    let count = decoder.array().unwrap().unwrap();
    let parts = (0..count)
        .map(|_| decoder.bytes().unwrap().to_vec())
        .collect();
    assert_eq!(decoder.position(), body.len());
    parts
}

/// The keys of a bundle, decoded.
pub fn keys(bundle: &Value) -> Vec<Handed> {
    let key = |key: &Value| {
        let bytes = BASE64_URL_SAFE_NO_PAD
            .decode(key["key"].as_str().unwrap())
            .unwrap();
        let signed = SignedKey::decode(&bytes).unwrap();
        let claims = signed.unverified();
        Handed {
            id: key["id"].as_str().unwrap().to_owned(),
            function: claims.function_name.to_owned(),
            version: claims.version,
            uri: claims.status.uri.to_owned(),
            index: claims.status.index,
            vehicle_epoch: claims.vehicle_epoch,
        }
    };
    bundle["keys"].as_array().unwrap().iter().map(key).collect()
}

/// The `status` of each key of a bundle by its function.
pub fn statuses(bundle: &Value) -> BTreeMap<String, String> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let keys = bundle["keys"].as_array().unwrap().iter();
    keys.map(|key| (text(&key["function"]), text(&key["status"])))
        .collect()
}

/// The ids in a list of an answer.
pub fn ids(answer: &Value, list: &str) -> Vec<String> {
    let ids = answer[list].as_array().unwrap().iter();
    let mut ids: Vec<_> = ids.map(|id| id.as_str().unwrap().to_owned()).collect();
    ids.sort_unstable();
    ids
}
