"""Checks keys signed in a tree with `scitt-cose`, a verifier of COSE Receipts
by others that has never seen this format.

    python3 receipts.py --key ISSUER [KEYS]

KEYS holds a key's octets, or one key in base64url on each line; without it
they are read from standard input. ISSUER is the issuer's public key: a
COSE_Key, or a JWK or JWKS in JSON. `scitt-cose` knows ES256 (-7) and
not ESP256 (-9), which is the same signature under another name: only keys
signed with ES256 can be checked here.

Of each key the receipt must verify, and must not once something in it has
been changed. Prints and counts like `flow.py`.
"""

import argparse
import json
import pathlib
import sys

import cbor2
import fobclient as fob
from cryptography.hazmat.primitives import serialization
from fobclient import Refused
from report import Report
from scitt_cose import verify_receipt

PROOFS, INCLUSION = 396, -1


def issuers(data):
    """The public keys in a COSE_Key, a JWK or a JWKS, as PEM."""
    if not data.lstrip().startswith(b"{"):
        return [pem(fob.PublicKey.from_cose(fob.cbor_decode(data)).public)]
    found = json.loads(data)
    listed = found.get("keys", [found])
    keys = [jwk for jwk in listed if jwk.get("kty") == "EC"]
    return [pem(jwk_public(jwk)) for jwk in keys]


def jwk_public(jwk):
    return fob.load_public(fob.b64url_decode(jwk["x"]) + fob.b64url_decode(jwk["y"]))


def pem(public):
    return public.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def keys(data):
    """One key's octets, or base64url line by line."""
    try:
        lines = data.decode("ascii").split()
    except UnicodeDecodeError:
        return [data]
    return [fob.b64url_decode(line) for line in lines]


class Tree:
    """A key signed in a tree, taken apart so that its parts can be changed."""

    def __init__(self, data):
        item = fob.cbor_decode(data)
        if type(item) is not list or len(item) != 3:
            raise Refused("not a key signed in a tree")
        self.protected, self.claims, receipt = item
        self.header, bare, _, self.signature = receipt.value
        self.size, self.index, self.path = fob.cbor_decode(bare[PROOFS][INCLUSION][0])

    def changed(self, **parts):
        other = Tree.__new__(Tree)
        vars(other).update(vars(self) | parts)
        return other

    def receipt(self):
        proof = cbor2.dumps([self.size, self.index, self.path])
        bare = {PROOFS: {INCLUSION: [proof]}}
        return cbor2.dumps(cbor2.CBORTag(18, [self.header, bare, None, self.signature]))

    def entry(self):
        return cbor2.dumps(["fob-key", self.protected, self.claims])

    def sides(self, size=None, index=None):
        """On which side each hash of the path stands: all that size and index
        say (RFC 9162, section 2.1.3.1). None for a leaf not in its tree."""
        size = self.size if size is None else size
        index = self.index if index is None else index
        if not 0 <= index < size:
            return None
        found = ""
        while size > 1:
            if index & 1:
                found += "L"
            elif index + 1 < size:
                found += "R"
            index, size = index >> 1, (size + 1) >> 1
        return found

    def holds(self, issuer):
        """Whether `scitt-cose` says so."""
        result = verify_receipt(
            self.receipt(), leaf_entry_hex=self.entry().hex(), log_public_key_pem=issuer
        )
        return result.ok


def flip(data, at=-1):
    changed = bytearray(data)
    changed[at] ^= 1
    return bytes(changed)


def check_key(report, name, data, known):
    key = Tree(data)
    report.equal(f"{name}: these are its octets", rebuilt(key), data)
    issuer = next((issuer for issuer in known if key.holds(issuer)), None)
    if not report.check(f"{name}: the receipt verifies", issuer is not None):
        return
    for step, _ in enumerate(key.path):
        path = list(key.path)
        path[step] = flip(path[step], step)
        refused(report, f"{name}: hash {step} of the path changed", key.changed(path=path), issuer)
    refused(report, f"{name}: a hash lost", key.changed(path=key.path[:-1]), issuer)
    refused(report, f"{name}: a hash more", key.changed(path=[*key.path, bytes(32)]), issuer)
    others = [key.index ^ 1, key.index + 1, key.index - 1, key.size]
    for index in sorted({index for index in others if index >= 0}):
        refused(report, f"{name}: said to be leaf {index}", key.changed(index=index), issuer)
    check_sizes(report, name, key, issuer)
    signature = flip(key.signature)
    refused(report, f"{name}: the signature changed", key.changed(signature=signature), issuer)
    refused(report, f"{name}: the header changed", key.changed(header=flip(key.header)), issuer)
    refused(report, f"{name}: a claim changed", key.changed(claims=flip(key.claims)), issuer)
    refused(report, f"{name}: its header changed", key.changed(protected=flip(key.protected)), issuer)


def check_sizes(report, name, key, issuer):
    """Another size is refused where it moves a hash to the other side or asks
    for a longer or shorter path; elsewhere it says the same, and is accepted."""
    sizes = {1, 2, key.size // 2, key.size - 1, key.size + 1, 2 * key.size, 2 * key.size + 1}
    for size in sorted(sizes - {key.size}):
        same = size > 1 and key.sides(size=size) == key.sides()
        found = key.changed(size=size).holds(issuer)
        says = "which says the same" if same else "refused"
        report.equal(f"{name}: said to be in a tree of {size}, {says}", found, same)


def rebuilt(key):
    """The key from its parts: deterministic, so octet by octet the same."""
    return b"\x83" + cbor2.dumps(key.protected) + cbor2.dumps(key.claims) + key.receipt()


def refused(report, name, key, issuer):
    report.check(f"{name}, refused", not key.holds(issuer))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--key", type=pathlib.Path, required=True, metavar="ISSUER")
    parser.add_argument("keys", type=pathlib.Path, nargs="?")
    options = parser.parse_args()
    data = options.keys.read_bytes() if options.keys else sys.stdin.buffer.read()
    known, report = issuers(options.key.read_bytes()), Report()
    for number, key in enumerate(keys(data), 1):
        with report.section(f"key {number}"):
            check_key(report, f"key {number}", key, known)
    report.check("there was a key", report.passed > 0)
    print(f"{report.passed} passed, {report.failed} failed")
    return 1 if report.failed else 0


if __name__ == "__main__":
    sys.exit(main())
