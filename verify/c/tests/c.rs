//! A C program that verifies a key, against the library a car's controller
//! would link: without `std`, built by gcc.

#![allow(clippy::unwrap_used, missing_docs)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

const HERE: &str = env!("CARGO_MANIFEST_DIR");

fn vector(name: &str) -> Value {
    let file = Path::new(HERE).join("../vectors").join(name);
    serde_json::from_slice(&fs::read(file).unwrap()).unwrap()
}

fn unhex(value: &Value) -> Vec<u8> {
    let digits = value.as_str().unwrap().as_bytes().chunks(2);
    let octet = |pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.map(octet).collect()
}

#[track_caller]
fn done(output: &Output) -> String {
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{complaint}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// The library as the profile `car` builds it.
fn library() -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--package", "fob-verify-c", "--locked"]);
    cargo.args(["--no-default-features", "--profile", "car"]);
    cargo.arg("--target-dir").arg(target).current_dir(HERE);
    done(&cargo.output().unwrap());
    target.join("car/libfob_car.a")
}

fn program(folder: &Path) -> PathBuf {
    let program = folder.join("car");
    let mut gcc = Command::new("gcc");
    gcc.args(["-std=c11", "-Wall", "-Wextra", "-Werror", "-O1", "-g"]);
    gcc.arg("-I").arg(Path::new(HERE).join("include"));
    gcc.arg(Path::new(HERE).join("tests/car.c")).arg(library());
    // Nothing of the standard library: the linker would name what is missing.
    gcc.arg("-Wl,--gc-sections").arg("-o").arg(&program);
    done(&gcc.output().unwrap());
    program
}

#[test]
fn a_car_in_c_verifies_a_key() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, octets: Vec<u8>| {
        let path = folder.path().join(name);
        fs::write(&path, octets).unwrap();
        path
    };
    let keys = vector("keys.json");
    let root = keys
        .as_array()
        .unwrap()
        .iter()
        .find(|k| k["name"] == "root");
    let mut arguments = vec![write("root", unhex(&root.unwrap()["issuer_cose_key"]))];
    for name in [
        "trust-list",
        "status-list",
        "sync",
        "key-esp256",
        "use-proof",
    ] {
        let object = unhex(&vector(&format!("{name}.json"))["object"]);
        arguments.push(write(name, object));
    }
    let mut car = Command::new(program(folder.path()));
    let said = done(&car.args(&arguments).output().unwrap());
    let expected = "\
a car without a trust list: truncated
the first trust list: ok
the same trust list: trust_list_not_newer
a car without a status list: status_missing
the address of the status list: ok
a status list of another address: wrong_status_list
the status list: ok
a sync that names a list more: status_missing
another challenge: proof_mismatch
a short challenge: out_of_bounds
no position: position_unknown
a key cut short: truncated
a forged key: bad_signature
a key that has expired: expired
a list that is not fresh: status_list_stale
a broken memory: memory_failed
no room: bad argument
used: 0, function 0
the key: ok
used: 1, function 1, epoch 3, version 1
the key after a change: version_superseded
";
    assert_eq!(said, expected);
}
