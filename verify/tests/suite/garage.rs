//! A car of the tests: its memory, its lists, and a phone that uses a key.

use crate::annotate::unhex;
use crate::fixture::{
    self, CHALLENGE, ESP256, FLEET, NOW, PHONE, ROOT, STATUS_URI, VEHICLE, entries,
};
use fob_verify::key::Claims;
use fob_verify::region::Position;
use fob_verify::status::{self, Room, Status};
use fob_verify::trust::{self, TrustList};
use fob_verify::use_proof::{self, Use};
use fob_verify::vehicle::{
    Anchor, Car, Challenge, Clock, Lists, Memory, News, Policy, Request, check, take_status,
    take_sync, take_trust,
};
use fob_verify::{Algorithm, Refusal, RustCrypto, Verified};
use std::collections::{BTreeMap, HashMap};
use std::io::Write;

/// What a car remembers; the lists it holds are part of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Notebook {
    pub(crate) vehicle_epoch: u32,
    pub(crate) versions: HashMap<[u8; 16], u32>,
    pub(crate) time: u64,
    pub(crate) uses: HashMap<([u8; 16], u16), u32>,
    pub(crate) synced: Option<(u64, [u8; 32])>,
    pub(crate) trust: Vec<u8>,
    pub(crate) lists: BTreeMap<String, Vec<u8>>,
    pub(crate) broken: bool,
}

impl Memory for Notebook {
    fn vehicle_epoch(&self) -> u32 {
        self.vehicle_epoch
    }

    fn version(&self, bundle: &[u8; 16]) -> u32 {
        self.versions.get(bundle).copied().unwrap_or(0)
    }

    fn time(&self) -> u64 {
        self.time
    }

    fn uses(&self, bundle: &[u8; 16], function: u16) -> u32 {
        self.uses.get(&(*bundle, function)).copied().unwrap_or(0)
    }

    fn synced_at(&self) -> u64 {
        self.synced.map_or(0, |sync| sync.0)
    }

    fn remember(&mut self, news: &News<'_>) -> Result<(), Refusal> {
        if self.broken {
            return Err(Refusal::MemoryFailed);
        }
        self.time = self.time.max(news.time());
        match *news {
            News::Use {
                vehicle_epoch,
                bundle,
                version,
                function,
                ..
            } => {
                self.vehicle_epoch = self.vehicle_epoch.max(vehicle_epoch);
                let highest = self.versions.entry(bundle).or_default();
                *highest = version.max(*highest);
                *self.uses.entry((bundle, function)).or_default() += 1;
            }
            News::Trust { bytes, .. } => self.trust = bytes.to_vec(),
            News::Status { bytes, list } => {
                self.lists.insert(list.uri().to_owned(), bytes.to_vec());
            }
            News::Sync {
                vehicle_epoch,
                issued_at,
                digest,
            } => {
                self.vehicle_epoch = self.vehicle_epoch.max(vehicle_epoch);
                self.synced = Some((issued_at, digest));
            }
        }
        Ok(())
    }
}

/// The lists of a notebook, verified under the trust list of the fixtures: as
/// in a car that verified them when it took them and holds a newer one since.
struct Shelf<'a> {
    lists: &'a BTreeMap<String, Vec<u8>>,
    trust: &'a Verified<TrustList<'a>>,
}

impl Lists for Shelf<'_> {
    fn list(&self, uri: &str) -> Option<Verified<status::StatusList<'_>>> {
        status::verify(self.lists.get(uri)?, self.trust, &RustCrypto).ok()
    }
}

/// A car in its garage: what it remembers, and where and when it is.
#[derive(Clone)]
pub(crate) struct Garage {
    pub(crate) vehicle: &'static str,
    pub(crate) fleet: [u8; 16],
    pub(crate) clock: Clock,
    pub(crate) position: Option<Position>,
    pub(crate) challenge: Vec<u8>,
    pub(crate) policy: Policy<'static>,
    pub(crate) notebook: Notebook,
}

impl Garage {
    /// A car that holds the trust list and the status list of the fixtures.
    pub(crate) fn new() -> Self {
        let notebook = Notebook {
            trust: fixture::trust_list(),
            lists: [(STATUS_URI.to_owned(), fixture::status_list())].into(),
            ..Notebook::default()
        };
        Self {
            vehicle: VEHICLE,
            fleet: FLEET,
            clock: Clock {
                reading: NOW,
                uncertainty_s: 0,
            },
            position: Some(Position::new(525_162_720, 133_777_220).unwrap()),
            challenge: CHALLENGE.to_vec(),
            policy: Policy::STANDARD,
            notebook,
        }
    }

    /// Lets the car do something; a refusal must leave no trace.
    fn ask<T>(
        &mut self,
        what: impl FnOnce(&Car<'_, Shelf<'_>, RustCrypto>, &mut Notebook) -> Result<T, Refusal>,
    ) -> Result<T, Refusal> {
        let mut notebook = self.notebook.clone();
        let roots = [ROOT.issuer(), fixture::NEXT_ROOT.issuer()];
        let trust = trust::verify(&self.notebook.trust, &roots, 0, &RustCrypto).unwrap();
        let first = fixture::trust_list();
        let first = trust::verify(&first, &roots, 0, &RustCrypto).unwrap();
        let shelf = Shelf {
            lists: &self.notebook.lists,
            trust: &first,
        };
        let car = Car {
            vehicle: self.vehicle,
            fleet: self.fleet,
            trust: &trust,
            lists: &shelf,
            policy: self.policy,
            clock: self.clock,
            verifier: RustCrypto,
        };
        let answer = what(&car, &mut notebook);
        assert!(answer.is_ok() || notebook == self.notebook);
        self.notebook = notebook;
        answer
    }

    /// Shows the car a key and a proof.
    pub(crate) fn show(&mut self, key: &[u8], proof: &[u8]) -> Result<u16, Refusal> {
        let request = Request {
            key,
            proof,
            challenge: Challenge::new(&self.challenge).unwrap(),
            position: self.position,
        };
        let mut room = Box::new(Room::new());
        self.ask(|car, notebook| {
            check(request, car, &mut room, notebook).map(|admitted| admitted.function())
        })
    }

    /// A phone uses a key with these claims.
    pub(crate) fn use_key(&mut self, claims: &Claims<'_>) -> Result<u16, Refusal> {
        self.show(&fixture::key(&ESP256, claims), &proof_of(claims))
    }

    pub(crate) fn take_trust(&mut self, bytes: &[u8]) -> Result<(), Refusal> {
        let clock = self.clock;
        self.ask(|car, notebook| {
            let anchor = Anchor::List(car.trust);
            take_trust(bytes, &anchor, clock, &RustCrypto, notebook).map(|_| ())
        })
    }

    pub(crate) fn take_status(&mut self, bytes: &[u8], uri: &str) -> Result<(), Refusal> {
        self.ask(|car, notebook| take_status(bytes, uri, car, notebook).map(|_| ()))
    }

    pub(crate) fn take_sync(&mut self, bytes: &[u8]) -> Result<(), Refusal> {
        self.ask(|car, notebook| take_sync(bytes, car, notebook).map(|_| ()))
    }
}

/// The proof for the challenge of the fixtures.
pub(crate) fn proof_of(claims: &Claims<'_>) -> Vec<u8> {
    let claims = Use {
        key_id: claims.key_id,
        function_name: claims.function_name,
        nonce: &CHALLENGE,
    };
    PHONE.finish(&use_proof::to_be_signed(Algorithm::Es256, &claims).unwrap())
}

/// The status list of the fixtures' address, made at `issued_at`, with these
/// entries.
pub(crate) fn status_list(issued_at: u64, entries: &[(u32, Status)]) -> Vec<u8> {
    let stream = compressed(entries);
    let draft = status::Draft {
        issued_at,
        expires: issued_at + 7 * 86_400,
        ..fixture::status_draft(&stream)
    };
    let message = status::to_be_signed(&draft, ESP256.algorithm, &ESP256.issuer().kid());
    ESP256.finish(&message.unwrap())
}

/// A list of the largest size with these entries, compressed.
pub(crate) fn compressed(entries: &[(u32, Status)]) -> Vec<u8> {
    let mut octets = vec![0; status::LIST_LEN_MAX];
    for (index, status) in entries {
        assert!(status::set(&mut octets, *index, *status));
    }
    let level = flate2::Compression::best();
    let mut encoder = flate2::write::ZlibEncoder::new(vec![], level);
    encoder.write_all(&octets).unwrap();
    encoder.finish().unwrap()
}

/// The trust list of the fixtures as another version, with the first so many
/// of its issuers left out.
pub(crate) fn trust_list(version: u32, without: usize) -> Vec<u8> {
    let entries = entries();
    let draft = trust::Draft {
        version,
        ..fixture::draft(&entries[without..])
    };
    ROOT.finish(&trust::to_be_signed(&draft, &ROOT.issuer()).unwrap())
}

/// The list of the fixtures, as it is compressed there.
pub(crate) fn fixture_stream() -> Vec<u8> {
    unhex(fixture::COMPRESSED)
}
