//! Prints CBOR as lines of hex with a comment for each group of octets.

use std::fmt::Write;

/// Where in an object an item stands: decides the names of its labels.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Place {
    Sign1,
    InTree,
    Receipt,
    Header,
    Unprotected,
    Proofs,
    Inclusions,
    Inclusion,
    Key,
    Trust,
    Use,
    Status,
    Sync,
    SyncMap,
    Ack,
    Confirmation,
    CoseKey,
    Fob,
    TrustMap,
    Entries,
    Entry,
    CodeSet,
    Other,
}

use Place::{
    Ack, CodeSet, Confirmation, CoseKey, Entries, Entry, Fob, Header, InTree, Inclusion,
    Inclusions, Key, Other, Proofs, Receipt, Sign1, Status, Sync, SyncMap, Trust, TrustMap,
    Unprotected, Use,
};

const NAMES: &[(Place, i64, &str, Place)] = &[
    (Header, 1, "alg", Other),
    (Header, 4, "kid", Other),
    (Header, 16, "typ", Other),
    (Header, 395, "vds", Other),
    (Unprotected, 396, "vdp", Proofs),
    (Proofs, -1, "inclusion proofs", Inclusions),
    (Key, 1, "iss", Other),
    (Key, 3, "aud", Other),
    (Key, 4, "exp", Other),
    (Key, 5, "nbf", Other),
    (Key, 6, "iat", Other),
    (Key, 7, "cti", Other),
    (Key, 8, "cnf", Confirmation),
    (Key, 9, "scope", Other),
    (Key, 65_535, "status", Other),
    (Key, -70_001, "fob", Fob),
    (Confirmation, 1, "COSE_Key", CoseKey),
    (CoseKey, 1, "kty", Other),
    (CoseKey, 3, "alg", Other),
    (CoseKey, -1, "crv", Other),
    (CoseKey, -2, "x", Other),
    (CoseKey, -3, "y", Other),
    (Fob, 1, "function", Other),
    (Fob, 2, "bundle", Other),
    (Fob, 3, "version", Other),
    (Fob, 4, "vehicle epoch", Other),
    (Fob, 5, "region", Other),
    (Fob, 6, "max uses", Other),
    (Fob, 7, "fleet", Other),
    (Fob, 8, "recurring windows", Other),
    (Trust, 1, "iss", Other),
    (Trust, 4, "exp", Other),
    (Trust, 6, "iat", Other),
    (Trust, -70_002, "trust", TrustMap),
    (TrustMap, 1, "version", Other),
    (TrustMap, 2, "entries", Entries),
    (TrustMap, 3, "next root", CoseKey),
    (Entry, 1, "COSE_Key", CoseKey),
    (Entry, 2, "not before", Other),
    (Entry, 3, "not after", Other),
    (Status, 2, "sub", Other),
    (Status, 4, "exp", Other),
    (Status, 6, "iat", Other),
    (Status, 65_533, "status list", Other),
    (Status, 65_534, "ttl", Other),
    (Sync, 3, "aud", Other),
    (Sync, 4, "exp", Other),
    (Sync, 6, "iat", Other),
    (Sync, -70_003, "sync", SyncMap),
    (SyncMap, 1, "fleet", Other),
    (SyncMap, 2, "vehicle epoch", Other),
    (SyncMap, 3, "trust version", Other),
    (SyncMap, 4, "status lists", Other),
    (Ack, 3, "aud", Other),
    (Ack, 6, "iat", Other),
    (Ack, -70_004, "applied", Other),
    (Use, 7, "cti", Other),
    (Use, 9, "scope", Other),
    (Use, 10, "nonce", Other),
];

/// The annotated form; `payload` says what the claims of a COSE_Sign1 are.
pub(crate) fn annotate(object: &[u8], place: Place, payload: Place) -> String {
    let mut printer = Printer {
        rest: object,
        out: String::new(),
        payload,
    };
    printer.item(place, 0, String::new(), String::new());
    assert!(printer.rest.is_empty());
    printer.out
}

/// The octets of an annotated form.
pub(crate) fn strip(annotated: &str) -> Vec<u8> {
    let code = annotated
        .lines()
        .map(|line| line.split('#').next().unwrap());
    unhex(&code.collect::<String>().replace(' ', ""))
}

pub(crate) fn hex(octets: &[u8]) -> String {
    octets.iter().fold(String::new(), |mut out, octet| {
        write!(out, "{octet:02x}").unwrap();
        out
    })
}

pub(crate) fn unhex(text: &str) -> Vec<u8> {
    let pairs = text.as_bytes().chunks(2);
    pairs
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

struct Printer<'a> {
    rest: &'a [u8],
    out: String,
    payload: Place,
}

impl Printer<'_> {
    fn take(&mut self, len: usize) -> Vec<u8> {
        let (taken, rest) = self.rest.split_at(len);
        self.rest = rest;
        taken.to_vec()
    }

    fn head(&mut self) -> (u8, u64, String) {
        let first = self.take(1);
        let width = match first[0] & 31 {
            0..=23 => 0,
            more => 1 << (more - 24),
        };
        let argument = self.take(width);
        let value = if width == 0 {
            u64::from(first[0] & 31)
        } else {
            argument.iter().fold(0, |v, o| v << 8 | u64::from(*o))
        };
        (first[0] >> 5, value, hex(&first) + &hex(&argument))
    }

    fn line(&mut self, depth: usize, code: &str, comment: &str) {
        if comment.is_empty() {
            return writeln!(self.out, "{code}").unwrap();
        }
        writeln!(self.out, "{code:<50}# {}{comment}", "  ".repeat(depth)).unwrap();
    }

    /// Prints an item after the hex of its label and the name of it.
    fn item(&mut self, place: Place, depth: usize, code: String, name: String) {
        let (major, value, head) = self.head();
        let code = if code.is_empty() {
            head
        } else {
            code + " " + &head
        };
        let name = if name.is_empty() { name } else { name + " " };
        match major {
            0 => self.line(depth, &code, &format!("{name}{value}")),
            1 => self.line(depth, &code, &format!("{name}-{}", value + 1)),
            2 | 3 => self.string(place, depth, major, value, &code, &name),
            4 => self.array(place, depth, value, &code, &name),
            5 => self.map(place, depth, value, &code, &name),
            6 => {
                self.line(depth, &code, &format!("{name}tag {value}"));
                self.item(place, depth, String::new(), String::new());
            }
            _ => {
                let value = ["false", "true", "null"][usize::try_from(value - 20).unwrap()];
                self.line(depth, &code, &format!("{name}{value}"));
            }
        }
    }

    fn string(&mut self, place: Place, depth: usize, major: u8, len: u64, code: &str, name: &str) {
        let kind = if major == 2 { "bstr" } else { "tstr" };
        if matches!(
            place,
            Header | Key | Trust | Use | Status | Sync | Ack | Inclusion
        ) {
            self.line(depth, code, &format!("{name}bstr of {len} octets, holding"));
            return self.item(place, depth + 1, String::new(), String::new());
        }
        let octets = self.take(len.try_into().unwrap());
        let text = match String::from_utf8(octets.clone()) {
            Ok(text) if major == 3 => format!("{kind} {text:?}"),
            _ => format!("{kind} {len}"),
        };
        if octets.len() <= 16 {
            return self.line(
                depth,
                &format!("{code} {}", hex(&octets)),
                &format!("{name}{text}"),
            );
        }
        self.line(depth, code, &format!("{name}{text}"));
        for chunk in octets.chunks(16) {
            self.line(depth, &format!("  {}", hex(chunk)), "");
        }
    }

    fn array(&mut self, place: Place, depth: usize, items: u64, code: &str, name: &str) {
        self.line(depth, code, &format!("{name}array of {items}"));
        let names: &[(&str, Place)] = match place {
            Sign1 => &[
                ("protected:", Header),
                ("unprotected:", Other),
                ("claims:", self.payload),
                ("signature:", Other),
            ],
            InTree => &[
                ("protected:", Header),
                ("claims:", self.payload),
                ("receipt:", Receipt),
            ],
            Receipt => &[
                ("protected:", Header),
                ("unprotected:", Unprotected),
                ("payload:", Other),
                ("signature:", Other),
            ],
            Inclusion => &[
                ("tree size:", Other),
                ("leaf index:", Other),
                ("path:", Other),
            ],
            CodeSet => &[("id:", Other), ("secret:", Other), ("codes:", Other)],
            _ => &[],
        };
        let default = match place {
            Entries => Entry,
            Inclusions => Inclusion,
            _ => Other,
        };
        for at in 0..items.try_into().unwrap() {
            let (name, place) = names.get(at).copied().unwrap_or(("", default));
            self.item(place, depth + 1, String::new(), name.to_owned());
        }
    }

    fn map(&mut self, place: Place, depth: usize, pairs: u64, code: &str, name: &str) {
        self.line(depth, code, &format!("{name}map of {pairs}"));
        for _ in 0..pairs {
            let (major, value, mut code) = self.head();
            if major == 3 {
                let octets = self.take(value.try_into().unwrap());
                code = format!("{code} {}", hex(&octets));
                let name = format!("{:?}:", String::from_utf8(octets).unwrap());
                self.item(Other, depth + 1, code, name);
                continue;
            }
            let value = i64::try_from(value).unwrap();
            let label = if major == 1 { -1 - value } else { value };
            let known = NAMES.iter().find(|n| n.0 == place && n.1 == label);
            let (_, _, name, inner) = known.unwrap_or_else(|| panic!("label {label}"));
            self.item(*inner, depth + 1, code, format!("{label} {name}:"));
        }
    }
}
