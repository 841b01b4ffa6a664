//! Criterion groups named after the stages: book (look-ups), admit, encode, verify, pipeline.
//!
//! `cargo bench --bench stages -- <group>` runs one of them. Figures and what was learned from
//! them are in `docs/performance.md`.
#![allow(
    missing_docs,
    unreachable_pub,
    reason = "a benchmark is read by its groups"
)]
#![allow(
    clippy::unwrap_used,
    reason = "a benchmark that cannot go on should stop"
)]

#[path = "setup/mod.rs"]
mod setup;

use std::hint::black_box;
use std::sync::Arc;

use criterion::measurement::WallTime;
use criterion::{
    BatchSize, BenchmarkGroup, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main,
};
use fob::domain::code_set::CodeSetKey;
use fob::domain::rules::Rate;
use fob::domain::{CodeSet, Identity, IdentityId, Licence, Status};
use fob::engine::Engine;
use fob::hsm::{Signer, verify_signature};
use fob::store::{Applied, Ruling, Rulings, Write};
use fob_verify::key::{self, SignedKey};
use fob_verify::{RustCrypto, trust};

use setup::{CODE_SET_KEY, Issuer, authorization};

/// Look-ups in the book, at a size where it no longer fits a core's cache; `FOB_BOOK` asks for
/// another. What the book weighs, and look-ups beside a writer, is `--bench book`.
fn book(criterion: &mut Criterion) {
    let issuer = Issuer::new();
    let mut group = criterion.benchmark_group("book");
    let size = std::env::var("FOB_BOOK").map_or(200_000, |size| size.parse().unwrap());
    let book = issuer.book_of(size);
    let ids: Vec<_> = (0..size).step_by(97).map(setup::authorization_id).collect();
    let bare = papaya::HashMap::new();
    for id in (0..size).map(setup::authorization_id) {
        bare.pin().insert(id, Arc::new(0_u64));
    }
    let mut at = 0;
    group.bench_function("authorization", |bencher| {
        bencher.iter(|| {
            at = (at + 1) % ids.len();
            black_box(book.authorization(ids[at]))
        });
    });
    group.bench_function("bare papaya get", |bencher| {
        bencher.iter(|| {
            at = (at + 1) % ids.len();
            black_box(bare.pin().get(&ids[at]).cloned())
        });
    });
    let fleet = book.fleet_named("bench").unwrap();
    group.bench_function("vehicle", |bencher| {
        bencher.iter(|| black_box(fleet.vehicle("V-77")))
    });
    group.finish();
}

/// What admission costs beside the proof's signature: the code set, parsed and believed.
fn admit(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("admit");
    let codes = CodeSetKey::new(&CODE_SET_KEY);
    let held = authorization(7, 8);
    let text = codes
        .text(held.fleet, held.id, held.version, &held.functions)
        .unwrap();
    group.bench_function("code set: parse", |bencher| {
        bencher.iter(|| CodeSet::parse(black_box(&text)).unwrap());
    });
    let claimed = CodeSet::parse(&text).unwrap();
    group.bench_function("code set: compare", |bencher| {
        bencher.iter(|| {
            codes.matches(
                black_box(&claimed),
                held.fleet,
                held.version,
                &held.functions,
            )
        });
    });
    rules(&mut group);
    group.bench_function("proof: check", |bencher| {
        let phone = setup::Phone::new();
        let now = setup::now();
        let proof = phone.proof("http://fob.bench", &text, now);
        bencher.iter(|| {
            let nonce = claimed.nonce();
            fob::engine::jws::check_proof(black_box(&proof), "http://fob.bench", nonce, now)
                .unwrap()
        });
    });
    group.finish();
}

/// What a fleet that rules everything adds: every rule about who gets the keys, asked of a book, and
/// five rates.
fn rules(group: &mut BenchmarkGroup<'_, WallTime>) {
    let engine = ruled();
    let fleet = engine.book().fleet_named("bench").unwrap();
    let identity = IdentityId::parse("renter").unwrap();
    let held = authorization(7, 8);
    group.bench_function("rules: all, explained", |bencher| {
        bencher.iter(|| {
            let explained =
                engine.explain_redemption(&fleet, black_box(&held), &identity, None, None);
            assert!(explained.unwrap().passes());
        });
    });
    let rate = Rate {
        count: 1_000_000,
        seconds: 1,
    };
    let meter = engine.meter::<IdentityId>("identity", rate).unwrap();
    group.bench_function("rules: a rate", |bencher| {
        bencher.iter(|| drop(black_box(meter.take(&identity))));
    });
}

/// An engine whose fleet rules everything there is.
fn ruled() -> Engine {
    let engine = Issuer::new().engine();
    let rate = r#"{"count":1000000,"seconds":1}"#;
    let text = format!(
        r#"{{"licences":[{{"functions":[1,2,3],"classes":["B"]}}],"keys_per_day":1000000000,
        "limits":{{"token":{rate},"identity":{rate},"terminal":{rate},"vehicle":{rate}}},
        "brake":{{"fleet":{rate},"vehicle":{rate}}},"early_grace_s":60,
        "context":{{"step_up_from":100,"refuse_from":200,"rules":[
            {{"points":10,"terminal_newer_than_days":7}},
            {{"points":10,"proved_longer_ago_than_days":30}},
            {{"points":10,"hours":[{{"days":["mon","sun"],"from":"22:00","until":"06:00"}}]}},
            {{"points":10,"redemptions":{{"count":100,"seconds":86400}}}},
            {{"points":10,"inside":["10.0.0.0/8","172.16.0.0/12","192.168.0.0/16"]}},
            {{"points":10,"outside":["192.0.2.0/24","2001:db8::/32"]}}]}}}}"#
    );
    let writes = vec![
        Write::Identity(Identity {
            fleet: setup::FLEET,
            id: IdentityId::parse("renter").unwrap(),
            status: Status::Active,
            hold: None,
            proved: Some(setup::now()),
            licences: vec![Licence {
                class: "B".into(),
                expires: setup::now() + 1_000_000,
            }],
        }),
        Write::Rule(Box::new(Rulings {
            fleet: setup::FLEET,
            at: setup::now(),
            by: "bench".into(),
            why: None,
            what: Ruling::Rules(1, text.into()),
        })),
    ];
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let applied = runtime.block_on(engine.write(writes)).unwrap();
    assert_eq!(applied, [Applied::Done, Applied::Done]);
    engine
}

/// Spelling out one key, and putting the signature to it.
fn encode(criterion: &mut Criterion) {
    let issuer = Issuer::new();
    let mut group = criterion.benchmark_group("encode");
    let bundle = issuer.bundle(8);
    let protected = key::protected_header(bundle.algorithm, &bundle.epoch.0);
    group.throughput(Throughput::Elements(1));
    group.bench_function("to be signed", |bencher| {
        let mut out = Vec::with_capacity(512);
        bencher.iter(|| {
            out.clear();
            key::to_be_signed(
                &mut out,
                &protected,
                black_box(&bundle.claims(&bundle.subjects[0], &bundle.keys[0])),
            )
            .unwrap()
        });
    });
    let signed = issuer.signed(bundle);
    group.throughput(Throughput::Elements(8));
    group.bench_function("bundle of 8 rebuilt", |bencher| {
        bencher.iter(|| fob::engine::rebuild::keys(black_box(&signed)).unwrap());
    });
    group.finish();
}

/// The check: as a car makes it, and as the server samples its own signatures.
fn verify(criterion: &mut Criterion) {
    let issuer = Issuer::new();
    let mut group = criterion.benchmark_group("verify");
    let signed = issuer.signed(issuer.bundle(1));
    let bytes = fob::engine::rebuild::keys(&signed).unwrap().remove(0);
    let trusted = trust::verify(&issuer.trust, &[issuer.root], setup::now(), &RustCrypto).unwrap();
    group.bench_function("decode", |bencher| {
        bencher.iter(|| SignedKey::decode(black_box(&bytes)).unwrap());
    });
    group.bench_function("key in a car", |bencher| {
        bencher.iter(|| {
            SignedKey::decode(black_box(&bytes))
                .unwrap()
                .verify(&trusted, &RustCrypto)
                .unwrap()
        });
    });
    group.bench_function("sample on the server", |bencher| {
        let message = issuer.message(&signed.bundle);
        let signature = issuer.signatures(&signed.bundle)[0];
        bencher.iter(|| verify_signature(&issuer.epoch.key, black_box(&message), &signature));
    });
    group.finish();
}

/// The HSM by itself, and whole redemptions through the engine.
fn pipeline(criterion: &mut Criterion) {
    let issuer = Issuer::new();
    let mut group = criterion.benchmark_group("pipeline");
    group.sample_size(20);
    for count in [8_usize, 512, 4096] {
        let messages = vec![[7_u8; 350].as_slice(); count];
        group.throughput(Throughput::Elements(count as u64));
        group.bench_with_input(
            BenchmarkId::new("sign_all", count),
            &messages,
            |bencher, messages| {
                bencher.iter(|| issuer.token.sign_all(&issuer.key, messages).unwrap());
            },
        );
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    for bundles in [1_usize, 512] {
        group.throughput(Throughput::Elements(bundles as u64 * 8));
        group.bench_function(BenchmarkId::new("bundles of 8", bundles), |bencher| {
            let engine = issuer.engine();
            let mut next = 0;
            bencher.iter_batched(
                || {
                    next += bundles as u64;
                    issuer.authorize(&engine, next - bundles as u64..next)
                },
                |code_sets| runtime.block_on(issuer.redeem(&engine, &code_sets)),
                BatchSize::PerIteration,
            );
        });
    }
    group.finish();
}

criterion_group!(stages, book, admit, encode, verify, pipeline);
criterion_main!(stages);
