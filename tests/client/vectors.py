"""Opens the golden vectors with the independent client.

    python3 vectors.py ../../verify/vectors

Prints and counts like `flow.py`. The vectors were made by the other
implementation; every one must open here, and every one this client can make
itself must come out the same.
"""

import hashlib
import json
import pathlib
import sys

import fobclient as fob
from keybytes import flips_accepted
from report import Report


def hex_file(path):
    """The octets of an annotated hex file: `#` begins a comment."""
    return bytes.fromhex("".join(line.split("#")[0] for line in path.read_text().splitlines()))


def check_keys(report, keys):
    for key in keys:
        cose = fob.cbor_decode(bytes.fromhex(key["issuer_cose_key"]))
        public = fob.PublicKey.from_cose(cose)
        terminal = terminal_of(key)
        name = key["name"]
        report.equal(f"{name}: thumbprint", public.thumbprint.hex(), key["thumbprint"])
        report.equal(f"{name}: kid", public.kid.hex(), key["kid"])
        held = fob.cbor_encode(terminal.cnf()).hex()
        report.equal(f"{name}: holder's COSE_Key", held, key["holder_cose_key"])
        report.equal(f"{name}: x", fob.b64url_decode(terminal.jwk()["x"]).hex(), key["x"])


def terminal_of(key):
    """A vector's key pair as a terminal, through its JWK."""
    part = {name: fob.b64url(bytes.fromhex(key[name])) for name in ("x", "y")}
    jwk = {"d": fob.b64url(bytes.fromhex(key["private"])), "x": part["x"]}
    if key["y"]:
        return fob.Terminal.from_jwk(jwk | {"kty": "EC", "crv": "P-256", "y": part["y"]})
    return fob.Terminal.from_jwk(jwk | {"kty": "OKP", "crv": "Ed25519"})


def check_object(report, name, folder):
    """The annotated form and the JSON form hold the same, and the parts are
    those of the object. Gives the object."""
    data, parts = (
        hex_file(folder / f"{name}.hex"),
        json.loads((folder / f"{name}.json").read_text()),
    )
    report.equal(f"{name}: both files hold the same", data.hex(), parts["object"])
    protected, _, payload, signature = fob.sign1_open(fob.cbor_decode(data), name)
    signed = fob.to_be_signed(protected, payload)
    found = [protected.hex(), payload.hex(), signature.hex(), signed.hex()]
    wanted = [parts[k] for k in ("protected", "claims", "signature", "to_be_signed")]
    report.equal(f"{name}: its parts", found, wanted)
    digest = hashlib.sha256(signed).hexdigest()
    report.equal(f"{name}: hash of what is signed", digest, parts["to_be_signed_sha256"])
    return data


def check_trees(report, name, folder, trust):
    """Every key of every tree: its hashes are its own, and the trust list opens it."""
    for vector in json.loads((folder / name).read_text()):
        size, index = int(vector["tree_size"]), int(vector["leaf_index"])
        what, data = f"{name}: key {index} of {size}", bytes.fromhex(vector["object"])
        protected, payload, _ = fob.cbor_decode(data)
        report.equal(f"{what}: claims", payload.hex(), vector["claims"])
        entry = fob.cbor_encode(["fob-key", protected, payload])
        leaf = hashlib.sha256(b"\0" + entry).digest()
        report.equal(f"{what}: leaf", leaf.hex(), vector["leaf"])
        path = [bytes.fromhex(step) for step in vector["path"].split()]
        root = fob.merkle_root(leaf, size, index, path)
        report.equal(f"{what}: root", root.hex(), vector["root"])
        report.equal(f"{what}: opens as", fob.key_verify(data, trust).tree_size, size)


def check_tree_key(report, folder, trust):
    """The worked example: each step on the way to the key."""
    data, parts = (
        hex_file(folder / "tree-key.hex"),
        json.loads((folder / "tree-key.json").read_text()),
    )
    report.equal("tree-key: both files hold the same", data.hex(), parts["object"])
    part = {name: bytes.fromhex(value) for name, value in parts.items() if is_hex(value)}
    protected, payload, receipt = fob.cbor_decode(data)
    entry = fob.cbor_encode(["fob-key", protected, payload])
    hashes = [
        hashlib.sha256(b"\0" + entry).digest(),
        hashlib.sha256(b"\1" + part["left_of_it"] + part["leaf"]).digest(),
        hashlib.sha256(b"\1" + part["their_node"] + part["right_of_that"]).digest(),
    ]
    signed = fob.to_be_signed(receipt.value[0], part["root"])
    found = [protected, payload, entry, *hashes, *receipt.value[::3], signed]
    found.append(hashlib.sha256(signed).digest())
    names = "protected claims entry leaf their_node root receipt_protected signature"
    names = [*names.split(), "to_be_signed", "to_be_signed_sha256"]
    wanted = {name: parts[name] for name in names}
    report.equal("tree-key: every step", dict(zip(names, map(bytes.hex, found))), wanted)
    report.equal("tree-key: opens as", fob.key_verify(data, trust).tree_size, 3)


def is_hex(text):
    return len(text) % 2 == 0 and all(digit in "0123456789abcdef" for digit in text)


def check_code_set(report, folder):
    vector = json.loads((folder / "code-set.json").read_text())
    code_set = fob.code_set_decode(vector["text"])
    report.equal("code set: id", code_set.id.hex(), vector["code_set_id"])
    report.equal("code set: secret", code_set.secret.hex(), vector["secret"])
    report.equal("code set: spelled the same", fob.code_set_encode(code_set), vector["text"])
    report.equal("code set: annotated", hex_file(folder / "code-set.hex").hex(), vector["cbor"])
    nonce = fob.b64url(hashlib.sha256(vector["text"].encode()).digest())
    report.equal("code set: nonce", nonce, vector["nonce"])


def check_status_list(report, folder, trust):
    """Every entry is what the vector's description says."""
    data = check_object(report, "status-list", folder)
    uri = fob.cbor_decode(fob.cbor_decode(data).value[2])[2]
    held = fob.StatusList.verify(data, trust, uri)
    found = {at: held.at(at) for at in range(1 << 17) if held.at(at)}
    report.equal("status-list: its entries", found, {100: 1, 4712: 2, 131071: 1})


def check_jws(report, name, folder, keys):
    """The signature holds over the header and payload the vector shows."""
    vector = json.loads((folder / f"{name}.json").read_text())
    signed = ".".join(fob.b64url(vector[part].encode()) for part in ("header", "payload"))
    signature = bytes.fromhex(vector["signature"])
    compact = f"{signed}.{fob.b64url(signature)}"
    report.equal(f"{name}: compact form", compact, vector["compact"])
    signer = terminal_of(next(k for k in keys if k["name"] == vector["signed_by"]))
    fob.verify_raw(signer.private.public_key(), signed.encode(), signature)
    report.check(f"{name}: the signature holds", True)


def walk(report, folder):
    keys = json.loads((folder / "keys.json").read_text())
    with report.section("keys"):
        check_keys(report, keys)
    with report.section("trust list and virtual keys"):
        root = next(k for k in keys if k["name"] == "root")
        root = fob.PublicKey.from_cose(fob.cbor_decode(bytes.fromhex(root["issuer_cose_key"])))
        trust = fob.TrustList.verify(check_object(report, "trust-list", folder), root)
        report.check("trust-list: opens with the root", True)
        opened = {}
        for path in sorted(folder.glob("key-*.hex")):
            data = check_object(report, path.stem, folder)
            opened[path.stem] = fob.key_verify(data, trust)
            report.check(f"{path.stem}: opens with the trust list", True)
            survivors = flips_accepted(data, lambda flipped: fob.key_verify(flipped, trust))
            report.equal(f"{path.stem}: one flipped bit anywhere is refused", survivors, [])
    with report.section("keys signed in a tree"):
        check_tree_key(report, folder, trust)
        for name in ("tree-es256.json", "tree-esp256.json"):
            check_trees(report, name, folder, trust)
    with report.section("use proof"):
        use = check_object(report, "use-proof", folder)
        payload = fob.cbor_decode(fob.cbor_decode(use).value[2])
        fob.use_verify(use, opened["key-esp256"], payload[10])
        report.check("use-proof: proves the key it is for", True)
    with report.section("status list, sync and ack"):
        check_status_list(report, folder, trust)
        for name in ("sync", "ack"):
            check_object(report, name, folder)
    with report.section("code set"):
        check_code_set(report, folder)
    with report.section("JWS"):
        for name in ("command-jws", "proof-jws"):
            check_jws(report, name, folder, keys)


def main():
    report = Report()
    walk(report, pathlib.Path(sys.argv[1]))
    print(f"{report.passed} passed, {report.failed} failed")
    return 1 if report.failed else 0


if __name__ == "__main__":
    sys.exit(main())
