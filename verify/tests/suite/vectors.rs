//! The golden vectors: made anew from fixed keys and compared with the files.
//!
//! `FOB_VECTORS=write cargo test -p fob-verify vectors` writes them. A changed
//! vector is a changed format.

use crate::annotate::{Place, annotate, hex, strip};
use crate::fixture::{self, InTree, Secret};
use crate::jws::{self, Jws, base64url};
use fob_verify::code_set::text_nonce;
use fob_verify::sign1::ToBeSigned;
use fob_verify::tree::node;
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::fs;
use std::path::PathBuf;

const PROTOCOL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/protocol.md");

#[test]
fn the_files_are_what_the_code_makes() {
    for (name, content) in files() {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
            .join("vectors")
            .join(&name);
        if std::env::var("FOB_VECTORS").as_deref() == Ok("write") {
            fs::write(&path, &content).unwrap();
        }
        let stored = fs::read_to_string(&path).unwrap_or_default();
        assert_eq!(stored, content, "{name}");
    }
}

#[test]
fn the_annotated_form_holds_every_octet() {
    for (object, place, payload) in [
        (full_key(), Place::Sign1, Place::Key),
        (fixture::trust_list(), Place::Sign1, Place::Trust),
        (fixture::proof(), Place::Sign1, Place::Use),
        (fixture::status_list(), Place::Sign1, Place::Status),
        (fixture::sync(), Place::Sign1, Place::Sync),
        (fixture::ack(), Place::Sign1, Place::Ack),
        (tree_example().assemble(), Place::InTree, Place::Key),
    ] {
        assert_eq!(strip(&annotate(&object, place, payload)), object);
    }
}

/// Every value printed in the protocol page is one of a vector.
#[test]
fn the_protocol_page_prints_these_vectors() {
    let page = fs::read_to_string(PROTOCOL).unwrap();
    let files: HashMap<String, String> = files().into_iter().collect();
    for name in [
        "key-esp256",
        "tree-key",
        "trust-list",
        "use-proof",
        "status-list",
        "sync",
        "ack",
        "code-set",
    ] {
        let dump = &files[&format!("{name}.hex")];
        let body = dump.split_once("\n\n").unwrap().1;
        assert!(page.contains(body), "the dump of {name}");
    }
    for name in [
        "key-esp256",
        "tree-key",
        "trust-list",
        "use-proof",
        "status-list",
        "sync",
        "ack",
        "code-set",
        "command-jws",
        "proof-jws",
    ] {
        let json = &files[&format!("{name}.json")];
        for line in json.lines().filter(|line| line.contains(": \"")) {
            let (member, value) = line.split_once(": \"").unwrap();
            let value = value
                .trim_end_matches(',')
                .trim_end_matches('"')
                .replace("\\\"", "\"");
            let member = member.trim().trim_matches('"');
            if !matches!(member, "description" | "claims" | "object") {
                assert!(page.contains(&value), "{name}: {member}");
            }
        }
    }
}

fn files() -> Vec<(String, String)> {
    let mut files = vec![("keys.json".to_owned(), keys())];
    for (name, about, message, signer, payload) in signed_objects() {
        files.extend(object(name, about, &message, &signer, payload));
    }
    files.extend(tree_key());
    files.push(("tree-es256.json".to_owned(), trees(&fixture::ES256)));
    files.push(("tree-esp256.json".to_owned(), trees(&fixture::ESP256)));
    files.extend(code_set());
    let command = jws_file(COMMAND, &jws::command(), &fixture::OWNER);
    files.push(("command-jws.json".to_owned(), command));
    let proof = jws_file(PROOF, &jws::proof(), &fixture::PHONE);
    files.push(("proof-jws.json".to_owned(), proof));
    files
}

/// Name, description, message and signer of an object, and what its claims
/// are.
type Signed = (&'static str, &'static str, ToBeSigned, Secret, Place);

fn signed_objects() -> [Signed; 8] {
    use fixture::{CAR, ED25519, ES256, ESP256, PHONE, ROOT};
    let key = fixture::key_message;
    let full = key(&ESP256, &fixture::full_claims());
    let fiji = key(&ES256, &fixture::fiji_claims());
    let plain = key(&ED25519, &fixture::plain_claims());
    let (trust, proof) = (fixture::trust_message(), fixture::proof_message());
    let (status, sync) = (fixture::status_message(), fixture::sync_message());
    [
        ("key-esp256", KEY_FULL, full, ESP256, Place::Key),
        ("key-es256", KEY_FIJI, fiji, ES256, Place::Key),
        ("key-ed25519", KEY_PLAIN, plain, ED25519, Place::Key),
        ("trust-list", TRUST, trust, ROOT, Place::Trust),
        ("use-proof", USE, proof, PHONE, Place::Use),
        ("status-list", STATUS, status, ESP256, Place::Status),
        ("sync", SYNC, sync, ESP256, Place::Sync),
        ("ack", ACK, fixture::ack_message(), CAR, Place::Ack),
    ]
}

const KEY_FULL: &str = "A virtual key with every claim, ESP256, P-256 holder.";
const KEY_FIJI: &str = "A virtual key with a polygon across the antimeridian, ES256.";
const KEY_PLAIN: &str = "A virtual key with no claim that may be left out, Ed25519 throughout.";
const IN_TREE: &str = "The key of key-esp256, the second of three in a tree.";
const TRUST: &str = "A trust list of three issuer keys that names the next root.";
const USE: &str = "A use proof for the key in key-esp256.";
const STATUS: &str = "A status list of 131072 entries: 100 and 131071 revoked, 4712 suspended.";
const SYNC: &str = "A sync that names the status list in status-list and another.";
const ACK: &str = "A car's ack of the sync in sync.";
const CODES: &str = "A code set of three functions, its secret, its PIN and its nonce.";
const COMMAND: &str = "An owner terminal's command.";
const PROOF: &str = "A borrower terminal's proof for the code set in code-set.";

fn full_key() -> Vec<u8> {
    fixture::key(&fixture::ESP256, &fixture::full_claims())
}

fn keys() -> String {
    let keys = fixture::SECRETS.iter().map(|secret| {
        let public = secret.public();
        let mut cose_key = vec![];
        secret.issuer().encode(&mut cose_key);
        let mut holder = vec![];
        secret.holder().encode(&mut holder);
        json(&[
            ("name", secret.name),
            ("algorithm", secret.algorithm.name()),
            ("private", &hex(&secret.octets)),
            ("x", &hex(public.x())),
            ("y", &public.y().map_or(String::new(), |y| hex(y))),
            ("issuer_cose_key", &hex(&cose_key)),
            ("holder_cose_key", &hex(&holder)),
            ("thumbprint", &hex(&public.thumbprint())),
            ("kid", &hex(&secret.issuer().kid())),
        ])
    });
    let keys: Vec<String> = keys.collect();
    format!("[\n{}\n]\n", keys.join(",\n"))
}

/// An object as JSON and as annotated hex.
fn object(
    name: &str,
    about: &str,
    message: &ToBeSigned,
    signer: &Secret,
    payload: Place,
) -> [(String, String); 2] {
    let signature = signer.sign(message.message());
    let object = message.assemble(&signature);
    let json = json(&[
        ("description", about),
        ("signed_by", signer.name),
        ("protected", &hex(message.protected())),
        ("claims", &hex(message.claims())),
        ("to_be_signed", &hex(message.message())),
        (
            "to_be_signed_sha256",
            &hex(&Sha256::digest(message.message())),
        ),
        ("signature", &hex(&signature)),
        ("object", &hex(&object)),
    ]);
    let dump = annotate(&object, Place::Sign1, payload);
    [
        (format!("{name}.json"), json + "\n"),
        (format!("{name}.hex"), format!("# {about}\n\n{dump}")),
    ]
}

fn tree_example() -> InTree {
    fixture::in_tree(&fixture::ESP256, 3, 1)
}

/// The worked example: every value on the way to a key in a tree.
fn tree_key() -> [(String, String); 2] {
    let key = tree_example();
    let object = key.assemble();
    let [left, right] = [key.path[0], key.path[1]];
    let entry = [
        b"\x83\x67fob-key\x58\x26",
        &key.protected[..],
        b"\x59\x01\x05",
    ];
    let entry = [&entry.concat()[..], &key.claims].concat();
    let json = json(&[
        ("description", IN_TREE),
        ("signed_by", fixture::ESP256.name),
        ("tree_size", &key.size.to_string()),
        ("leaf_index", &key.index.to_string()),
        ("protected", &hex(&key.protected)),
        ("claims", &hex(&key.claims)),
        ("entry", &hex(&entry)),
        ("leaf", &hex(&key.leaf)),
        ("left_of_it", &hex(&left)),
        ("their_node", &hex(&node(&left, &key.leaf))),
        ("right_of_that", &hex(&right)),
        ("root", &hex(&key.root)),
        ("receipt_protected", &hex(&key.receipt_protected)),
        ("to_be_signed", &hex(&key.to_be_signed)),
        (
            "to_be_signed_sha256",
            &hex(&Sha256::digest(&key.to_be_signed)),
        ),
        ("signature", &hex(&key.signature)),
        ("object", &hex(&object)),
    ]);
    let dump = annotate(&object, Place::InTree, Place::Key);
    [
        ("tree-key.json".to_owned(), json + "\n"),
        ("tree-key.hex".to_owned(), format!("# {IN_TREE}\n\n{dump}")),
    ]
}

/// Every key of trees of several sizes, signed by one issuer.
fn trees(signer: &Secret) -> String {
    let places = fixture::TREE_SIZES
        .into_iter()
        .flat_map(|size| (0..size).map(move |index| (size, index)));
    let keys = places.map(|(size, index)| {
        let key = fixture::in_tree(signer, size, index);
        let path: Vec<String> = key.path.iter().map(|hash| hex(hash)).collect();
        json(&[
            ("signed_by", signer.name),
            ("tree_size", &size.to_string()),
            ("leaf_index", &index.to_string()),
            ("claims", &hex(&key.claims)),
            ("leaf", &hex(&key.leaf)),
            ("path", &path.join(" ")),
            ("root", &hex(&key.root)),
            ("signature", &hex(&key.signature)),
            ("object", &hex(&key.assemble())),
        ])
    });
    format!("[\n{}\n]\n", keys.collect::<Vec<_>>().join(",\n"))
}

fn code_set() -> [(String, String); 2] {
    let set = fixture::code_set();
    let text = set.encode();
    let input = fixture::secret_input();
    let pin_input = [b"pin", &input[..]].concat();
    let pin_mac = fixture::hmac(&fixture::CODE_SET_KEY, &pin_input);
    let pin = u64::from_be_bytes(*pin_mac.first_chunk().unwrap()) % 1_000_000;
    let mut cbor = vec![0x83, 0x50];
    cbor.extend(set.id());
    cbor.push(0x50);
    cbor.extend(set.secret());
    cbor.extend([0x83, 1, 2, 3]);
    let json = json(&[
        ("description", CODES),
        ("code_set_key", &hex(&fixture::CODE_SET_KEY)),
        ("fleet_id", &hex(&fixture::FLEET)),
        ("code_set_id", &hex(set.id())),
        ("secret_hmac_input", &hex(&input)),
        (
            "secret_hmac",
            &hex(&fixture::hmac(&fixture::CODE_SET_KEY, &input)),
        ),
        ("secret", &hex(set.secret())),
        ("pin_hmac_input", &hex(&pin_input)),
        ("pin_hmac", &hex(&pin_mac)),
        ("pin", &format!("{pin:06}")),
        ("cbor", &hex(&cbor)),
        ("text", &text),
        ("text_sha256", &hex(&text_nonce(&text))),
        ("nonce", &base64url(&text_nonce(&text))),
    ]);
    let dump = annotate(&cbor, Place::CodeSet, Place::Other);
    [
        ("code-set.json".to_owned(), json + "\n"),
        ("code-set.hex".to_owned(), format!("# {CODES}\n\n{dump}")),
    ]
}

fn jws_file(about: &str, jws: &Jws, signer: &Secret) -> String {
    let input = jws.signing_input.as_bytes();
    json(&[
        ("description", about),
        ("signed_by", signer.name),
        ("header", &jws.header),
        ("payload", &jws.payload),
        ("signing_input", &jws.signing_input),
        ("signing_input_sha256", &hex(&Sha256::digest(input))),
        ("signature", &jws.signature),
        ("compact", &jws.compact),
    ]) + "\n"
}

/// A JSON object of strings, a member on each line.
fn json(members: &[(&str, &str)]) -> String {
    let lines = members.iter().map(|(name, value)| {
        let value = value.replace('\\', "\\\\").replace('"', "\\\"");
        format!("  \"{name}\": \"{value}\"")
    });
    format!("{{\n{}\n}}", lines.collect::<Vec<_>>().join(",\n"))
}
