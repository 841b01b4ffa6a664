"""The outside view of Fob: what a phone and a car need, and nothing of the server's.

Written from the protocol's description alone. Where the server and this file
disagree, one of them has misread the contract; that is what the file is for.

From top to bottom: CBOR, code sets, the keys of terminals and the JWS they
sign, issuer keys and COSE_Sign1, trust list, virtual keys, status lists, the
use proof, a car that puts them together, and a small HTTP client.

Deliberately absent: retries, caching, persistence, and any tolerance. Whatever
is not exactly as described raises `Refused`.
"""

import base64
import hashlib
import http.client
import json
import math
import os
import struct
import time
import urllib.parse
import uuid
import zlib
from dataclasses import dataclass, field

import cbor2
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.asymmetric.utils import (
    decode_dss_signature,
    encode_dss_signature,
)

ES256, ESP256, ED25519 = -7, -9, -19

FUNCTIONS = {
    1: "doors.unlock",
    2: "doors.lock",
    3: "engine.start",
    4: "trunk.open",
    5: "windows.control",
    6: "climate.control",
    7: "locate.signal",
    8: "charge_port.open",
}

TYP_KEY = "application/fob-key+cwt"
TYP_RECEIPT = "application/fob-receipt+cose"
TYP_TRUST = "application/fob-trust+cwt"
TYP_STATUS = "application/statuslist+cwt"
TYP_USE = "application/fob-use+cwt"

# No signed object of the protocol comes near this; a status shard of 2^17
# two-bit entries is 32 KiB before it is compressed.
OBJECT_LEN_MAX = 1 << 20
SHARD_BYTES_MAX = (1 << 17) * 2 // 8


class Refused(Exception):
    """The bytes are not what the protocol allows; the text says why."""


# --- Deterministic CBOR (RFC 8949, section 4.2.1) ---------------------------


def cbor_encode(value):
    """The one deterministic encoding of `value`.

    Covers what the protocol uses: integers, byte and text strings, arrays,
    maps, tags, booleans and null. Anything else is refused.
    """
    kind = type(value)
    if value is None:
        return b"\xf6"
    if kind is bool:
        return b"\xf5" if value else b"\xf4"
    if kind is int:
        return _head(0, value) if value >= 0 else _head(1, -1 - value)
    if kind is bytes:
        return _head(2, len(value)) + value
    if kind is str:
        text = value.encode()
        return _head(3, len(text)) + text
    if kind in (list, tuple):
        return _head(4, len(value)) + b"".join(map(cbor_encode, value))
    if kind is dict:
        pairs = sorted((cbor_encode(k), cbor_encode(v)) for k, v in value.items())
        return _head(5, len(pairs)) + b"".join(k + v for k, v in pairs)
    if kind is cbor2.CBORTag:
        return _head(6, value.tag) + cbor_encode(value.value)
    raise Refused(f"no place for a {kind.__name__} in this protocol")


def _head(major, n):
    if n < 24:
        return bytes([major << 5 | n])
    for info, size, letter in ((24, 1, "B"), (25, 2, "H"), (26, 4, "I"), (27, 8, "Q")):
        if n < 1 << (8 * size):
            return bytes([major << 5 | info]) + struct.pack(">" + letter, n)
    raise Refused("integer wider than 64 bits")


def cbor_decode(data):
    """Decodes `data` and refuses any encoding but the deterministic one.

    Encoding the result again must give the same bytes. That one comparison
    catches long heads, indefinite lengths, unsorted or duplicate map keys and
    trailing bytes.
    """
    if type(data) is not bytes or len(data) > OBJECT_LEN_MAX:
        raise Refused("not a byte string of acceptable length")
    try:
        value = plain(cbor2.loads(data, max_depth=16))
    except Exception as cause:  # the decoder's errors are of many types
        raise Refused(f"not CBOR: {cause}") from cause
    if cbor_encode(value) != data:
        raise Refused("not deterministic CBOR")
    return value


def plain(value):
    """The decoder freezes what stands inside a tag; this gives lists and maps
    everywhere."""
    if type(value) is cbor2.CBORTag:
        return cbor2.CBORTag(value.tag, plain(value.value))
    if type(value) in (list, tuple):
        return [plain(item) for item in value]
    if type(value) in (dict, cbor2.frozendict):
        return {k: plain(v) for k, v in value.items()}
    return value


def exact_map(value, required, optional=(), what="map"):
    """`value` as a map that has all `required` labels and otherwise only
    `optional` ones. Labels are compared with their types: true is not 1."""
    if type(value) is not dict:
        raise Refused(f"{what}: not a map")
    kinds = {type(label) for label in (*required, *optional)}
    for label in value:
        if type(label) not in kinds or label not in (*required, *optional):
            raise Refused(f"{what}: unknown label {label!r}")
    for label in required:
        if label not in value:
            raise Refused(f"{what}: label {label!r} is missing")
    return value


def exact_list(value, length, what):
    if type(value) is not list or len(value) != length:
        raise Refused(f"{what}: not an array of {length}")
    return value


def uint(value, what, most=(1 << 64) - 1):
    if type(value) is not int or not 0 <= value <= most:
        raise Refused(f"{what}: not an unsigned integer up to {most}")
    return value


def sint(value, what, least, most):
    if type(value) is not int or not least <= value <= most:
        raise Refused(f"{what}: not an integer between {least} and {most}")
    return value


def bstr(value, length, what):
    if type(value) is not bytes or (length is not None and len(value) != length):
        raise Refused(f"{what}: not a byte string of {length}")
    return value


def tstr(value, what):
    if type(value) is not str or not value:
        raise Refused(f"{what}: not a text")
    return value


# --- Code sets -------------------------------------------------------------

CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


@dataclass(frozen=True)
class CodeSet:
    """What the owner hands on: its id, its secret, the function codes."""

    id: bytes
    secret: bytes
    functions: tuple


def base32_decode(text):
    """Crockford's alphabet in RFC 4648 bit order, with none of its leniency."""
    bits, count, out = 0, 0, bytearray()
    for char in text:
        digit = CROCKFORD.find(char)
        if digit < 0:
            raise Refused(f"{char!r} is not in the alphabet")
        bits, count = bits << 5 | digit, count + 5
        if count >= 8:
            count -= 8
            out.append(bits >> count)
            bits &= (1 << count) - 1
    if bits or count >= 5:
        raise Refused("left-over bits")
    return bytes(out)


def base32_encode(data):
    bits = int.from_bytes(data)
    pad = -len(data) * 8 % 5
    bits <<= pad
    return "".join(CROCKFORD[bits >> at & 31] for at in range(len(data) * 8 + pad - 5, -1, -5))


def code_set_decode(text):
    if not text.startswith("FOB1"):
        raise Refused("a code set begins with FOB1")
    items = exact_list(cbor_decode(base32_decode(text[4:])), 3, "code set")
    codes = items[2]
    if type(codes) is not list or not codes:
        raise Refused("code set: no functions")
    for code in codes:
        uint(code, "function code", 0xFFFF)
    if any(a >= b for a, b in zip(codes, codes[1:])):
        raise Refused("code set: functions do not ascend")
    return CodeSet(
        bstr(items[0], 16, "code set id"),
        bstr(items[1], 16, "code set secret"),
        tuple(codes),
    )


def code_set_encode(code_set):
    items = [code_set.id, code_set.secret, list(code_set.functions)]
    return "FOB1" + base32_encode(cbor_encode(items))


# --- Terminals: key pairs and what they sign as JWS --------------------------


def b64url(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def b64url_decode(text):
    """Base64url without padding; refuses any second spelling of the same bytes."""
    try:
        data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except ValueError as cause:
        raise Refused(f"not base64url: {cause}") from cause
    if b64url(data) != text:
        raise Refused("not canonical base64url")
    return data


class Terminal:
    """A phone: a P-256 or Ed25519 key pair and the objects it signs."""

    def __init__(self, private):
        self.private = private
        self.is_p256 = isinstance(private, ec.EllipticCurvePrivateKey)

    @classmethod
    def p256(cls):
        return cls(ec.generate_private_key(ec.SECP256R1()))

    @classmethod
    def ed25519(cls):
        return cls(ed25519.Ed25519PrivateKey.generate())

    @classmethod
    def from_jwk(cls, jwk):
        d = b64url_decode(jwk["d"])
        if jwk["kty"] == "OKP" and jwk["crv"] == "Ed25519":
            terminal = cls(ed25519.Ed25519PrivateKey.from_private_bytes(d))
        elif jwk["kty"] == "EC" and jwk["crv"] == "P-256":
            terminal = cls(ec.derive_private_key(int.from_bytes(d), ec.SECP256R1()))
        else:
            raise Refused("neither a P-256 nor an Ed25519 JWK")
        for member, value in terminal.jwk().items():
            if jwk.get(member) != value:
                raise Refused(f"the JWK's {member} does not belong to its d")
        return terminal

    def _xy(self):
        """The public key as (x, y); y is None for Ed25519."""
        public = self.private.public_key()
        if not self.is_p256:
            return public.public_bytes_raw(), None
        numbers = public.public_numbers()
        return numbers.x.to_bytes(32), numbers.y.to_bytes(32)

    def jwk(self):
        """The public key as a JWK, without d."""
        x, y = self._xy()
        if y is None:
            return {"kty": "OKP", "crv": "Ed25519", "x": b64url(x)}
        return {"kty": "EC", "crv": "P-256", "x": b64url(x), "y": b64url(y)}

    def cnf(self):
        """The public key as it must stand in the cnf claim: compressed y."""
        x, y = self._xy()
        if y is None:
            return {1: 1, -1: 6, -2: x}
        return {1: 2, -1: 1, -2: x, -3: bool(y[-1] & 1)}

    def sign(self, message):
        """A raw signature: r then s for P-256, RFC 8032's for Ed25519."""
        if not self.is_p256:
            return self.private.sign(message)
        r, s = decode_dss_signature(self.private.sign(message, ec.ECDSA(hashes.SHA256())))
        return r.to_bytes(32) + s.to_bytes(32)

    def jws(self, header, claims):
        """A compact JWS over `claims`."""
        header = {"alg": "ES256" if self.is_p256 else "EdDSA"} | header
        signed = ".".join(
            b64url(json.dumps(part, separators=(",", ":")).encode()) for part in (header, claims)
        )
        return signed + "." + b64url(self.sign(signed.encode()))

    def command(self, kid, identity, method, url, command, now=None, **claims):
        """An owner's signed command for `method` on `url`. `claims` overrides
        single claims."""
        now = int(time.time()) if now is None else now
        parts = urllib.parse.urlsplit(url)
        return self.jws(
            {"typ": "fob-command+jwt", "kid": kid},
            {
                "iss": identity,
                "aud": f"{parts.scheme}://{parts.netloc}",
                "iat": now,
                "exp": now + 300,
                "jti": str(uuid.uuid4()),
                "htm": method,
                "htu": url,
                "command": command,
            }
            | claims,
        )

    def proof(self, url, nonce_over, now=None, header=None, **claims):
        """A borrower's proof of its key to the server at `url`, bound to the
        text `nonce_over`: the code set's, or a bundle's id. `header` and
        `claims` override members."""
        return self.jws(
            {"typ": "openid4vci-proof+jwt", "jwk": self.jwk()} | (header or {}),
            {
                "aud": url,
                "iat": int(time.time()) if now is None else now,
                "nonce": b64url(hashlib.sha256(nonce_over.encode()).digest()),
            }
            | claims,
        )

    def use(self, cti, scope, nonce):
        """The use proof over a car's challenge."""
        alg = ESP256 if self.is_p256 else ED25519
        protected = cbor_encode({1: alg, 16: TYP_USE})
        payload = cbor_encode({7: cti, 9: scope, 10: nonce})
        signature = self.sign(to_be_signed(protected, payload))
        return cbor_encode(cbor2.CBORTag(18, [protected, {}, payload, signature]))


# --- COSE keys and COSE_Sign1 ------------------------------------------------


@dataclass(frozen=True)
class PublicKey:
    """A COSE_Key of the issuer's side, with its algorithm and key id."""

    alg: int
    public: object
    thumbprint: bytes

    @property
    def kid(self):
        return self.thumbprint[:8]

    @classmethod
    def from_cose(cls, key):
        if type(key) is not dict or type(key.get(1)) is not int:
            raise Refused("COSE_Key: no key type")
        if key[1] == 2:
            exact_map(key, (1, 3, -1, -2, -3), what="COSE_Key")
            algs, curve = (ES256, ESP256), 1
            point = bstr(key[-2], 32, "x") + bstr(key[-3], 32, "y")
        elif key[1] == 1:
            exact_map(key, (1, 3, -1, -2), what="COSE_Key")
            algs, curve = (ED25519,), 6
            point = bstr(key[-2], 32, "x")
        else:
            raise Refused("COSE_Key: unknown key type")
        if type(key[3]) is not int or key[3] not in algs or key[-1] != curve:
            raise Refused("COSE_Key: algorithm not allowed with this key")
        # RFC 9679: the hash covers the required members alone, so not alg.
        members = {label: value for label, value in key.items() if label != 3}
        thumbprint = hashlib.sha256(cbor_encode(members)).digest()
        return cls(key[3], load_public(point), thumbprint)

    def verify(self, message, signature):
        verify_raw(self.public, message, signature)


def load_public(point):
    try:
        if len(point) == 32:
            return ed25519.Ed25519PublicKey.from_public_bytes(point)
        return ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), b"\x04" + point)
    except ValueError as cause:
        raise Refused(f"not a public key: {cause}") from cause


def verify_raw(public, message, signature):
    bstr(signature, 64, "signature")
    try:
        if isinstance(public, ed25519.Ed25519PublicKey):
            public.verify(signature, message)
        else:
            r, s = int.from_bytes(signature[:32]), int.from_bytes(signature[32:])
            public.verify(encode_dss_signature(r, s), message, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature as cause:
        raise Refused("the signature does not verify") from cause


def to_be_signed(protected, payload):
    return cbor_encode(["Signature1", protected, b"", payload])


def sign1_open(item, what):
    """The four parts of a tagged COSE_Sign1, or a refusal."""
    if type(item) is not cbor2.CBORTag or item.tag != 18:
        raise Refused(f"{what}: not a tagged COSE_Sign1")
    return exact_list(item.value, 4, what)


def header_open(protected, typ, more=()):
    """The exact protected header of a `typ`, as (header, alg, kid)."""
    header = exact_map(
        cbor_decode(bstr(protected, None, "protected header")), (1, 4, 16, *more), what="header"
    )
    if type(header[1]) is not int or header[1] not in (ES256, ESP256, ED25519):
        raise Refused(f"algorithm {header[1]!r} is not allowed")
    if header[16] != typ:
        raise Refused(f"typ is {header[16]!r}, not {typ!r}")
    return header, header[1], bstr(header[4], 8, "kid")


def signer_check(alg, key):
    if alg != key.alg:
        raise Refused("the header's algorithm is not the key's")
    return key


# --- Trust list --------------------------------------------------------------


@dataclass(frozen=True)
class TrustList:
    """A verified trust list: who may sign, and when."""

    issuer: str
    version: int
    issued: int
    expires: int
    windows: dict = field(repr=False)  # kid -> (PublicKey, not_before, not_after)
    next_root: PublicKey | None = None

    @classmethod
    def verify(cls, data, root, now=None):
        """Opens `data` with `root`, a PublicKey; at time `now` if given."""
        protected, bare, payload, signature = sign1_open(cbor_decode(data), "trust list")
        exact_map(bare, (), what="unprotected header")
        _, alg, kid = header_open(protected, TYP_TRUST)
        if kid != root.kid:
            raise Refused("the trust list is not signed by this root")
        signer_check(alg, root).verify(to_be_signed(protected, payload), signature)
        claims = exact_map(cbor_decode(payload), (1, 4, 6, -70002), what="trust claims")
        body = exact_map(claims[-70002], (1, 2), (3,), what="trust body")
        windows = {}
        if type(body[2]) is not list:
            raise Refused("trust list: no array of keys")
        for entry in body[2]:
            exact_map(entry, (1, 2, 3), what="trust entry")
            key = PublicKey.from_cose(entry[1])
            if key.kid in windows:
                raise Refused("trust list: the same key id twice")
            start, end = uint(entry[2], "not_before"), uint(entry[3], "not_after")
            windows[key.kid] = (key, start, end)
        trust = cls(
            tstr(claims[1], "iss"),
            uint(body[1], "version"),
            uint(claims[6], "iat"),
            uint(claims[4], "exp"),
            windows,
            PublicKey.from_cose(body[3]) if 3 in body else None,
        )
        if now is not None and now >= trust.expires:
            raise Refused("the trust list has expired")
        return trust

    def issuer_key(self, alg, kid):
        """The listed key `kid`; its window is checked against iat later."""
        if kid not in self.windows:
            raise Refused("the issuer is not listed")
        return signer_check(alg, self.windows[kid][0])

    def window_check(self, kid, iat):
        _, start, end = self.windows[kid]
        if not start <= iat < end:
            raise Refused("issued outside the issuer's window")


# --- Virtual keys --------------------------------------------------------------


@dataclass(frozen=True)
class VirtualKey:
    """A verified key: its claims by their names, and how it was signed."""

    signing: str  # "each" or "tree"
    alg: int
    kid: bytes
    iss: str
    vehicle: str
    exp: int
    nbf: int
    iat: int
    cti: bytes
    cnf: dict
    scope: str
    status_idx: int
    status_uri: str
    function: int
    bundle: bytes
    version: int
    vehicle_epoch: int
    region: list | None
    max_uses: int | None
    fleet: bytes
    recurring: list | None
    tree_size: int | None = None


def key_verify(data, trust):
    """Opens one virtual key with nothing but a trust list."""
    item = cbor_decode(data)
    if type(item) is cbor2.CBORTag:
        signing, size = "each", None
        protected, bare, payload, signature = sign1_open(item, "key")
        exact_map(bare, (), what="unprotected header")
        _, alg, kid = header_open(protected, TYP_KEY)
        trust.issuer_key(alg, kid).verify(
            to_be_signed(protected, bstr(payload, None, "claims")), signature
        )
    else:
        signing = "tree"
        protected, payload, receipt = exact_list(item, 3, "key in a tree")
        _, alg, kid = header_open(protected, TYP_KEY)
        size = receipt_verify(protected, bstr(payload, None, "claims"), receipt, trust)
    key = claims_open(cbor_decode(payload), signing, alg, kid, size)
    if key.iss != trust.issuer:
        raise Refused("the issuer's name is not the trust list's")
    trust.window_check(kid, key.iat)
    return key


def receipt_verify(protected, payload, receipt, trust):
    """Recomputes the root from the key's own bytes and checks the signature on
    it. Gives the size the tree claims to have."""
    outer, bare, detached, signature = sign1_open(receipt, "receipt")
    header, alg, kid = header_open(outer, TYP_RECEIPT, more=(395,))
    if type(header[395]) is not int or header[395] != 1:
        raise Refused("receipt: unknown tree algorithm")
    key_header = cbor_decode(protected)
    if (alg, kid) != (key_header[1], key_header[4]):
        raise Refused("receipt and key name different issuers")
    if detached is not None:
        raise Refused("receipt: the payload must be detached")
    exact_map(bare, (396,), what="receipt")
    proofs = exact_map(bare[396], (-1,), what="receipt proofs")[-1]
    path = cbor_decode(exact_list(proofs, 1, "inclusion proofs")[0])
    size, index, hashes_up = exact_list(path, 3, "inclusion proof")
    uint(size, "tree size"), uint(index, "leaf index")
    if size < 2 or type(hashes_up) is not list or not 1 <= len(hashes_up) <= 64:
        raise Refused("receipt: a tree of one leaf has none")
    leaf = hashlib.sha256(b"\0" + cbor_encode(["fob-key", protected, payload])).digest()
    root = merkle_root(leaf, size, index, hashes_up)
    trust.issuer_key(alg, kid).verify(to_be_signed(outer, root), signature)
    return size


def merkle_root(leaf, size, index, path):
    """RFC 9162, section 2.1.3.2."""
    if index >= size:
        raise Refused("receipt: leaf outside the tree")
    at, last, node = index, size - 1, leaf
    for sibling in path:
        bstr(sibling, 32, "path hash")
        if last == 0:
            raise Refused("receipt: the path is too long")
        if at & 1 or at == last:
            node = hashlib.sha256(b"\1" + sibling + node).digest()
            while not at & 1 and at:
                at, last = at >> 1, last >> 1
        else:
            node = hashlib.sha256(b"\1" + node + sibling).digest()
        at, last = at >> 1, last >> 1
    if last != 0:
        raise Refused("receipt: the path is too short")
    return node


def claims_open(claims, signing, alg, kid, tree_size):
    """Checks that every claim is there, has its exact type, and nothing else is."""
    exact_map(claims, (1, 3, 4, 5, 6, 7, 8, 9, 65535, -70001), what="claims")
    status = exact_map(claims[65535], ("status_list",), what="status")
    entry = exact_map(status["status_list"], ("idx", "uri"), what="status_list")
    fob = exact_map(claims[-70001], (1, 2, 3, 4, 7), (5, 6, 8), what="fob")
    cti = bstr(claims[7], 16, "cti")
    if cti[6] >> 4 != 7 or cti[8] >> 6 != 2:
        raise Refused("cti is not a UUIDv7")
    exp, nbf = uint(claims[4], "exp"), uint(claims[5], "nbf")
    if nbf >= exp:
        raise Refused("the window is empty")
    return VirtualKey(
        signing=signing,
        alg=alg,
        kid=kid,
        iss=tstr(claims[1], "iss"),
        vehicle=tstr(claims[3], "aud"),
        exp=exp,
        nbf=nbf,
        iat=uint(claims[6], "iat"),
        cti=cti,
        cnf=cnf_open(claims[8]),
        scope=tstr(claims[9], "scope"),
        status_idx=uint(entry["idx"], "status idx"),
        status_uri=tstr(entry["uri"], "status uri"),
        function=uint(fob[1], "function code", 0xFFFF),
        bundle=bstr(fob[2], 16, "bundle id"),
        version=uint(fob[3], "version"),
        vehicle_epoch=uint(fob[4], "vehicle epoch"),
        region=region_open(fob[5]) if 5 in fob else None,
        max_uses=uint(fob[6], "max uses") if 6 in fob else None,
        fleet=bstr(fob[7], 16, "fleet id"),
        recurring=recurring_open(fob[8]) if 8 in fob else None,
        tree_size=tree_size,
    )


def cnf_open(cnf):
    key = exact_map(cnf, (1,), what="cnf")[1]
    if type(key) is dict and key.get(1) == 2:
        exact_map(key, (1, -1, -2, -3), what="cnf key")
        if type(key[-3]) is not bool or key[-1] != 1:
            raise Refused("cnf: P-256 with a compressed y is asked for")
    else:
        exact_map(key, (1, -1, -2), what="cnf key")
        if key[1] != 1 or key[-1] != 6:
            raise Refused("cnf: neither P-256 nor Ed25519")
    bstr(key[-2], 32, "cnf x")
    return key


def cnf_public(key):
    """The public key of a cnf claim, for checking a use proof."""
    if key[1] == 1:
        return load_public(key[-2])
    try:
        encoded = (b"\x03" if key[-3] else b"\x02") + key[-2]
        return ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), encoded)
    except ValueError as cause:
        raise Refused(f"cnf: {cause}") from cause


def region_open(region):
    if type(region) is not list or not region or type(region[0]) is not int:
        raise Refused("region: not an array")
    if region[0] == 0:
        _, lat, lon, radius_m = exact_list(region, 4, "circle")
        corners = [[lat, lon]]
        if uint(radius_m, "radius") == 0:
            raise Refused("circle: no radius")
    elif region[0] == 1:
        corners = exact_list(region, 2, "polygon")[1]
        if type(corners) is not list or not 3 <= len(corners) <= 16:
            raise Refused("polygon: 3 to 16 corners")
    else:
        raise Refused("region: unknown kind")
    for corner in corners:
        lat, lon = exact_list(corner, 2, "corner")
        sint(lat, "lat_e7", -900_000_000, 900_000_000)
        sint(lon, "lon_e7", -1_800_000_000, 1_800_000_000)
    return region


def recurring_open(windows):
    if type(windows) is not list or not windows:
        raise Refused("recurring windows: not a filled array")
    for window in windows:
        mask, start, end, offset = exact_list(window, 4, "recurring window")
        uint(mask, "weekday mask", 0x7F), uint(start, "start_min", 1440)
        uint(end, "end_min", 1440), sint(offset, "utc_offset_min", -1440, 1440)
    return windows


# --- Status lists --------------------------------------------------------------

VALID, REVOKED, SUSPENDED = 0, 1, 2


@dataclass(frozen=True)
class StatusList:
    """A verified shard of two-bit states."""

    uri: str
    issued: int
    expires: int
    ttl: int
    bits: bytes = field(repr=False)

    @classmethod
    def verify(cls, data, trust, uri, now=None):
        protected, bare, payload, signature = sign1_open(cbor_decode(data), "status list")
        exact_map(bare, (), what="unprotected header")
        _, alg, kid = header_open(protected, TYP_STATUS)
        trust.issuer_key(alg, kid).verify(
            to_be_signed(protected, bstr(payload, None, "claims")), signature
        )
        claims = exact_map(cbor_decode(payload), (2, 4, 6, 65533, 65534), what="status claims")
        body = exact_map(claims[65533], ("bits", "lst"), what="status body")
        if claims[2] != uri:
            raise Refused("the status list is another address's")
        if type(body["bits"]) is not int or body["bits"] != 2:
            raise Refused("status list: not two bits an entry")
        inflate = zlib.decompressobj()
        try:
            bits = inflate.decompress(bstr(body["lst"], None, "lst"), SHARD_BYTES_MAX + 1)
        except zlib.error as cause:
            raise Refused(f"status list: {cause}") from cause
        if len(bits) > SHARD_BYTES_MAX or not inflate.eof or inflate.unused_data:
            raise Refused("status list: longer than a shard, or cut, or followed by more")
        status = cls(
            uri,
            uint(claims[6], "iat"),
            uint(claims[4], "exp"),
            uint(claims[65534], "ttl"),
            bits,
        )
        trust.window_check(kid, status.issued)
        if now is not None and now >= status.expires:
            raise Refused("the status list has expired")
        return status

    def at(self, idx):
        if idx >= len(self.bits) * 4:
            raise Refused("status index out of range")
        return self.bits[idx // 4] >> 2 * (idx % 4) & 3


# --- A car -----------------------------------------------------------------------


class Car:
    """A vehicle as provisioned: root, own id, fleet id. Keeps what it has seen."""

    def __init__(self, root, vehicle, fleet, needs_status=True):
        self.root, self.vehicle, self.fleet = root, vehicle, fleet
        self.needs_status = needs_status
        self.trust = None
        self.statuses = {}
        self.versions = {}
        self.uses = {}
        self.epoch_floor = 0

    def learn_trust(self, data, now):
        trust = TrustList.verify(data, self.root, now)
        if self.trust and trust.version <= self.trust.version:
            raise Refused("not a higher trust version")
        self.trust = trust

    def learn_status(self, data, uri, now):
        status = StatusList.verify(data, self.trust, uri, now)
        held = self.statuses.get(uri)
        if not held or status.issued > held.issued:
            self.statuses[uri] = status

    def challenge(self):
        return os.urandom(16)

    def accept(self, data, use, nonce, now, lat_e7, lon_e7):
        """All checks in the protocol's order; remembers only when all passed."""
        key = key_verify(data, self.trust)
        if not key.nbf <= now < key.exp:
            raise Refused("outside its time")
        if (key.vehicle, key.fleet) != (self.vehicle, self.fleet):
            raise Refused("for another vehicle or fleet")
        if key.vehicle_epoch < self.epoch_floor:
            raise Refused("from before the vehicle's reset")
        if key.version < self.versions.get(key.bundle, 0):
            raise Refused("replaced by a newer version")
        held = self.statuses.get(key.status_uri)
        if held.at(key.status_idx) != VALID if held else self.needs_status:
            raise Refused("not known to be valid")
        if key.region and not region_holds(key.region, lat_e7, lon_e7):
            raise Refused("outside its region")
        used = self.uses.get((key.bundle, key.function), 0)
        if key.max_uses is not None and used >= key.max_uses:
            raise Refused("used up")
        use_verify(use, key, nonce)
        self.epoch_floor = max(self.epoch_floor, key.vehicle_epoch)
        self.versions[key.bundle] = key.version
        self.uses[key.bundle, key.function] = used + 1
        return key.scope


def use_verify(data, key, nonce):
    """The holder's proof: signed by the cnf key, over this car's challenge."""
    protected, bare, payload, signature = sign1_open(cbor_decode(data), "use proof")
    exact_map(bare, (), what="unprotected header")
    header = exact_map(cbor_decode(bstr(protected, None, "header")), (1, 16), what="header")
    algs = (ES256, ESP256) if key.cnf[1] == 2 else (ED25519,)
    if type(header[1]) is not int or header[1] not in algs or header[16] != TYP_USE:
        raise Refused("use proof: wrong header")
    claims = exact_map(cbor_decode(payload), (7, 9, 10), what="use proof")
    if (claims[7], claims[9], claims[10]) != (key.cti, key.scope, nonce):
        raise Refused("use proof: of another key or challenge")
    verify_raw(cnf_public(key.cnf), to_be_signed(protected, payload), signature)


def region_holds(region, lat_e7, lon_e7):
    """Whether a position lies in a region. Polygons across the antimeridian are
    beyond this car."""
    if region[0] == 0:
        return distance_m(region[1], region[2], lat_e7, lon_e7) <= region[3]
    inside, corners = False, region[1]
    for (lat_a, lon_a), (lat_b, lon_b) in zip(corners, corners[-1:] + corners[:-1]):
        if (lat_a > lat_e7) != (lat_b > lat_e7):
            crossing = lon_a + (lon_b - lon_a) * (lat_e7 - lat_a) / (lat_b - lat_a)
            inside ^= lon_e7 < crossing
    return inside


def distance_m(lat_a, lon_a, lat_b, lon_b):
    lat_a, lon_a, lat_b, lon_b = (math.radians(v / 1e7) for v in (lat_a, lon_a, lat_b, lon_b))
    h = (
        math.sin((lat_b - lat_a) / 2) ** 2
        + math.cos(lat_a) * math.cos(lat_b) * math.sin((lon_b - lon_a) / 2) ** 2
    )
    return 2 * 6_371_000 * math.asin(math.sqrt(h))


# --- HTTP ------------------------------------------------------------------------


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict  # names in lower case
    body: bytes = field(repr=False)

    def json(self):
        return json.loads(self.body)

    def code(self):
        """The refusal's code, if this is a well-formed problem document."""
        if self.headers.get("content-type", "").split(";")[0] != "application/problem+json":
            return None
        problem = self.json()
        code = problem.get("code")
        whole = (
            problem.get("type") == f"urn:fob:refusal:{code}"
            and problem.get("status") == self.status
            and isinstance(problem.get("title"), str)
        )
        return code if whole else f"(incomplete problem document: {problem})"


class Http:
    """One keep-alive connection to one server."""

    def __init__(self, url, token=None):
        self.url = url.rstrip("/")
        self.token = token
        parts = urllib.parse.urlsplit(self.url)
        kind = (
            http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        )
        self.connection = kind(parts.netloc, timeout=30)

    def call(self, method, path, body=None, **headers):
        """`body` goes out as JSON, or as it is when it is bytes. Underscores in
        the names of `headers` become hyphens. With a token, it goes along."""
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
            headers.setdefault("Content_Type", "application/json")
        if self.token:
            headers.setdefault("Authorization", f"Bearer {self.token}")
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        self.connection.request(method, path, body, names)
        answer = self.connection.getresponse()
        return Answer(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
