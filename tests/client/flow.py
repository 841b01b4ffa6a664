"""Walks the whole contract from outside and prints one line for each check.

    python3 flow.py --url http://127.0.0.1:8650 --dir D [--token fob_…] [--without PART]…

D is the folder of a demo installation: the root's public key `D/root.cbor` and
the demo owner's private key `D/demo-owner.jwk` are read from it, nothing else.
`--token` is a token of the demo fleet with the scopes authorize, read, admin and
revoke; without it, only what two phones and a car can do alone is walked.
`--without` leaves out a part of the contract that the server does not offer:
`tree` (keys signed in a tree), `status` (status lists), `cancel` (DELETE). What
was left out is said at the end.

The command leaves nothing behind that stands in the way of running it again
on the same installation. It ends with `N passed, N failed`, and with a non-zero
exit code if anything failed.
"""

import argparse
import dataclasses
import hashlib
import json
import pathlib
import secrets
import sys
import time
import traceback
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone

import fobclient as fob
from fobclient import FUNCTIONS, Refused

PARTS = ("tree", "status", "cancel")
OWN_FUNCTION = {256: "seat.massage"}
# Wide enough for a clock that was set by hand, narrow enough to mean "now".
NEAR_NOW_S = 120


class Report:
    """Counts and prints checks."""

    def __init__(self):
        self.passed = self.failed = 0

    def check(self, name, good, detail=""):
        if good:
            self.passed += 1
            print(f"ok    {name}")
        else:
            self.failed += 1
            print(f"FAIL  {name}" + (f": {detail}" if detail != "" else ""))
        sys.stdout.flush()
        return bool(good)

    def equal(self, name, found, wanted):
        return self.check(name, same(found, wanted), f"{found!r} instead of {wanted!r}")

    def refused(self, name, answer, wanted):
        """`wanted` maps acceptable codes to their status, such as
        {"not_found": 404}."""
        code = answer.code()
        self.check(
            f"{name}: refused as {' or '.join(wanted)}",
            code in wanted and wanted[code] == answer.status,
            f"{answer.status} {code} {answer.body[:200]!r}",
        )

    def refuses(self, name, call, *args):
        """`call` must raise Refused, and nothing else."""
        try:
            call(*args)
        except Refused:
            return self.check(name, True)
        except Exception as cause:
            return self.check(name, False, f"broke with {cause!r}")
        return self.check(name, False, "accepted")

    @contextmanager
    def section(self, title):
        """A part of the walk. What breaks it is one failure; the next part
        runs all the same."""
        print(f"# {title}")
        try:
            yield
        except Exception as cause:
            where = traceback.extract_tb(cause.__traceback__)[-1]
            self.check(title, False, f"cut short by {cause!r} at {where.name}:{where.lineno}")


def same(found, wanted):
    """Equality in which true is not 1 and 1 is not 1.0."""
    if type(found) is not type(wanted):
        return False
    if isinstance(found, dict):
        return found.keys() == wanted.keys() and all(same(found[k], wanted[k]) for k in found)
    if isinstance(found, (list, tuple)):
        return len(found) == len(wanted) and all(map(same, found, wanted))
    return found == wanted


def text_time(seconds):
    return datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def seconds(text):
    """RFC 3339 in UTC as whole seconds."""
    moment = datetime.fromisoformat(text)
    if moment.utcoffset() != timedelta(0):
        raise Refused(f"{text} is not UTC")
    return int(moment.timestamp())


@dataclasses.dataclass
class Order:
    """What the owner wanted, in the words of the keys it must lead to."""

    vehicle: str
    functions: dict  # code -> name
    start: int
    end: int
    region: list | None = None  # as in the fob claim
    max_uses: dict = dataclasses.field(default_factory=dict)  # name -> count
    signing: str = "each"
    extra: dict = dataclasses.field(default_factory=dict)

    def body(self):
        """The JSON of the command. Functions alternate between their two
        spellings, code and name."""
        body = {
            "vehicle": self.vehicle,
            "functions": [c if c % 2 else n for c, n in self.functions.items()],
            "not_before": text_time(self.start),
            "not_after": text_time(self.end),
            "signing": self.signing,
        }
        if self.region:
            body["region"] = self.region_json()
        if self.max_uses:
            body["max_uses"] = self.max_uses
        return body | self.extra

    def region_json(self):
        if self.region[0] == 0:
            _, lat, lon, radius_m = self.region
            return {"circle": {"lat": lat / 1e7, "lon": lon / 1e7, "radius_m": radius_m}}
        return {"polygon": [[lat / 1e7, lon / 1e7] for lat, lon in self.region[1]]}


class Walk:
    """The state all sections share."""

    def __init__(self, url, folder, token, without=()):
        self.report = Report()
        self.phones = fob.Http(url)
        self.fleet = fob.Http(url, token) if token else None
        self.url = self.phones.url
        folder = pathlib.Path(folder)
        root = fob.cbor_decode((folder / "root.cbor").read_bytes())
        self.root = fob.PublicKey.from_cose(root)
        self.owner = fob.Terminal.from_jwk(json.loads((folder / "demo-owner.jwk").read_text()))
        self.trust = None
        self.trust_bytes = b""
        self.keys = {}  # cti -> VirtualKey, of every bundle seen
        self.raw = {}  # signing -> bytes of one key
        self.run = secrets.token_hex(3)
        self.without = frozenset(without)

    def has(self, part):
        """Whether this part of the contract is walked."""
        return part not in self.without

    def tree(self):
        """How to ask for a tree, where there are trees."""
        return "tree" if self.has("tree") else "each"

    # --- what the phones do --------------------------------------------------

    def command(self, order, path="/v1/authorizations", method="POST", **claims):
        """The owner's command, signed, as the body of a request."""
        body = order.body() if isinstance(order, Order) else order
        kid = "demo/owner-1-phone"
        url = self.url + path
        return self.owner.command(kid, "owner-1", method, url, body, **claims).encode()

    def send_command(self, jws):
        return self.phones.call(
            "POST", "/v1/authorizations", jws, Content_Type="application/jose"
        )

    def redemption(self, code_set, terminal, identity="renter-1", pin=None, **proof):
        body = {
            "code_set": code_set,
            "identity": {"id": identity},
            "proof": terminal.proof(self.url, code_set, **proof),
        }
        return body | ({"pin": pin} if pin is not None else {})

    def redeem(self, code_set, terminal, identity="renter-1", pin=None, **proof):
        body = self.redemption(code_set, terminal, identity, pin, **proof)
        return self.phones.call("POST", "/v1/redemptions", body)

    def preview(self, code_set):
        return self.phones.call("POST", "/v1/code-sets/preview", {"code_set": code_set})

    def status_list(self, uri):
        """The shard at `uri`, verified. Only addresses of this server count."""
        if not uri.startswith(self.url + "/"):
            raise Refused(f"status address {uri} is not this server's")
        answer = self.phones.call("GET", uri.removeprefix(self.url))
        if answer.status != 200:
            raise Refused(f"{uri} answers {answer.status}")
        return answer, fob.StatusList.verify(answer.body, self.trust, uri, time.time())


# --- The public face and the trust list ----------------------------------------


def walk_public_face(walk):
    report = walk.report
    for path in ("/healthz", "/readyz"):
        report.equal(f"GET {path} answers 200", walk.phones.call("GET", path).status, 200)

    answer = walk.phones.call("GET", "/v1/trust")
    report.equal("the trust list is there", answer.status, 200)
    walk.trust_bytes = answer.body
    walk.trust = fob.TrustList.verify(answer.body, walk.root, time.time())
    report.check("the trust list verifies with the root alone", True)
    report.check("it lists at least one issuer key", walk.trust.windows)
    report.check(
        "one of them may sign now",
        any(start <= time.time() < end for _, start, end in walk.trust.windows.values()),
    )
    report.check("its iat is not in the future", walk.trust.issued <= time.time() + 5)
    etag = answer.headers.get("etag")
    report.check("it has an ETag", etag)
    again = walk.phones.call("GET", "/v1/trust", If_None_Match=etag or "")
    report.equal("the same ETag again answers 304", again.status, 304)

    stranger = new_root(walk.root.alg)
    report.refuses(
        "another root refuses the trust list", fob.TrustList.verify, walk.trust_bytes, stranger
    )
    survivors = flips_accepted(
        walk.trust_bytes, lambda data: fob.TrustList.verify(data, walk.root)
    )
    report.equal("one flipped bit anywhere in the trust list is refused", survivors, [])

    jwks = walk.phones.call("GET", "/.well-known/jwks.json")
    report.equal("the JWK set is there", jwks.status, 200)
    listed = {jwk_of(key) for key, _, _ in walk.trust.windows.values()}
    found = {(k.get("x"), k.get("y")) for k in jwks.json()["keys"]}
    report.check("the JWK set holds keys of the trust list alone", found and found <= listed)
    report.check("and no private part", all("d" not in k for k in jwks.json()["keys"]))


def jwk_of(key):
    """(x, y) of an issuer key in a JWK's spelling."""
    if key.alg == fob.ED25519:
        return fob.b64url(key.public.public_bytes_raw()), None
    numbers = key.public.public_numbers()
    return fob.b64url(numbers.x.to_bytes(32)), fob.b64url(numbers.y.to_bytes(32))


def new_root(alg):
    """A root key of the same kind that signed nothing here."""
    if alg == fob.ED25519:
        return fob.PublicKey.from_cose({3: alg} | fob.Terminal.ed25519().cnf())
    numbers = fob.Terminal.p256().private.public_key().public_numbers()
    x, y = numbers.x.to_bytes(32), numbers.y.to_bytes(32)
    return fob.PublicKey.from_cose({1: 2, 3: alg, -1: 1, -2: x, -3: y})


def flips_accepted(data, verify):
    """Every bit that may be flipped in `data` without `verify` refusing. An
    exception other than Refused is passed on: a car must not crash either."""
    accepted = []
    for bit in range(len(data) * 8):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        try:
            verify(bytes(flipped))
        except Refused:
            continue
        accepted.append(bit)
    return accepted


# --- A bundle, checked claim by claim ----------------------------------------------


def check_authorization(walk, label, answer, order, pin=False):
    """The 201 of an authorization; gives its JSON."""
    report = walk.report
    if not report.equal(f"{label}: authorization answers 201", answer.status, 201):
        raise Refused(f"no authorization: {answer.body[:300]!r}")
    body = answer.json()
    fields = {"authorization", "version", "code_set", "link", "vehicle", "functions"}
    fields |= {"not_before", "not_after", "redeem_by", "state"} | ({"pin"} if pin else set())
    echo = check_echo(report, label, "the answer", body, order)
    report.equal(f"{label}: the answer has its fields", sorted(set(body) - echo), sorted(fields))
    report.equal(f"{label}: id is a UUIDv7", uuid.UUID(body["authorization"]).version, 7)
    report.equal(f"{label}: version is 1", body["version"], 1)
    report.equal(f"{label}: vehicle", body["vehicle"], order.vehicle)
    functions = [{"code": code, "name": name} for code, name in order.functions.items()]
    report.equal(f"{label}: functions", body["functions"], functions)
    window = [seconds(body["not_before"]), seconds(body["not_after"])]
    report.equal(f"{label}: window", window, [order.start, order.end])
    code_set = fob.code_set_decode(body["code_set"])
    report.equal(f"{label}: code set carries the codes", code_set.functions, tuple(order.functions))
    report.equal(
        f"{label}: code set has one spelling", fob.code_set_encode(code_set), body["code_set"]
    )
    report.equal(f"{label}: link", body["link"], f"{walk.url}/k#{body['code_set']}")
    return body


def check_echo(report, label, where, body, order):
    """An answer may repeat what the command asked for, as long as it repeats
    it rightly. Gives the fields of that kind it has."""
    asked = order.body()
    echo = {"region", "max_uses", "recipient"} & set(body)
    for field in sorted(echo):
        found, wanted = body[field], asked.get(field)
        if field == "region":
            found, wanted = region_e7(found), order.region
        report.equal(f"{label}: {where} repeats {field} as asked for", found or None, wanted or None)
    return echo


def check_preview(walk, label, authorization, order, pin=False):
    report = walk.report
    answer = walk.preview(authorization["code_set"])
    if not report.equal(f"{label}: preview answers 200", answer.status, 200):
        return
    body = answer.json()
    wanted = {
        "vehicle": order.vehicle,
        "functions": authorization["functions"],
        "not_before": authorization["not_before"],
        "not_after": authorization["not_after"],
        "pin_required": pin,
        "redeem_by": authorization["redeem_by"],
    }
    echo = check_echo(report, label, "preview", body, order)
    report.check(f"{label}: preview shows a region where there is one", "region" in body or not order.region)
    told = {name: value for name, value in body.items() if name not in echo}
    report.equal(f"{label}: preview shows what was authorized", told, wanted)


def region_e7(region):
    """A region of the HTTP face as it stands in a key."""
    if not region:
        return None
    if "circle" in region:
        circle = region["circle"]
        at = [round(circle["lat"] * 1e7), round(circle["lon"] * 1e7)]
        return [0, *at, round(circle["radius_m"])]
    return [1, [[round(lat * 1e7), round(lon * 1e7)] for lat, lon in region["polygon"]]]


def check_bundle(walk, label, body, authorization, order, terminal, version=1):
    """Everything the table of claims promises, for each key of one bundle."""
    report = walk.report
    fields = ["authorization", "bundle", "keys", "vehicle", "version"]
    report.equal(f"{label}: the bundle has its fields", sorted(body), fields)
    entry_fields = {"function", "id", "key", "not_after", "not_before", "status"}
    report.check(
        f"{label}: so has every key in it",
        all(set(e) == entry_fields for e in body["keys"]),
        [sorted(e) for e in body["keys"]],
    )
    report.equal(f"{label}: authorization", body["authorization"], authorization["authorization"])
    report.equal(f"{label}: vehicle", body["vehicle"], order.vehicle)
    report.equal(f"{label}: version", body["version"], version)
    bundle = uuid.UUID(body["bundle"])
    report.equal(f"{label}: bundle id is a UUIDv7", bundle.version, 7)

    keys = [fob.key_verify(fob.b64url_decode(e["key"]), walk.trust) for e in body["keys"]]
    report.check(f"{label}: all {len(keys)} keys verify with the trust list alone", keys)
    for entry, key in zip(body["keys"], keys):
        walk.raw.setdefault(key.signing, fob.b64url_decode(entry["key"]))

    def every(name, claim, wanted):
        """`claim` and `wanted`, a value or a function of the key, must agree."""
        for key in keys:
            value = wanted(key) if callable(wanted) else wanted
            if not same(claim(key), value):
                return report.check(
                    f"{label}: {name}", False, f"{key.scope}: {claim(key)!r}, not {value!r}"
                )
        return report.check(f"{label}: {name}", True)

    codes = sorted(k.function for k in keys)
    report.equal(f"{label}: one key for each function", codes, sorted(order.functions))
    every("signed as asked for", lambda k: k.signing, order.signing)
    every("header alg is the issuer key's", lambda k: k.alg, lambda k: walk.trust.windows[k.kid][0].alg)
    every("1 iss is the trust list's", lambda k: k.iss, walk.trust.issuer)
    every("3 aud is the vehicle", lambda k: k.vehicle, order.vehicle)
    every("4 exp", lambda k: k.exp, order.end)
    every("5 nbf", lambda k: k.nbf, order.start)
    every("6 iat is now", lambda k: abs(k.iat - time.time()) <= NEAR_NOW_S, True)
    every("7 cti is of now", lambda k: abs(v7_seconds(k.cti) - time.time()) <= NEAR_NOW_S, True)
    report.check(
        f"{label}: 7 cti is unique", len({k.cti for k in keys} - walk.keys.keys()) == len(keys)
    )
    every("8 cnf is the borrower's own key", lambda k: k.cnf, terminal.cnf())
    every("9 scope is the function's name", lambda k: k.scope, lambda k: order.functions.get(k.function))
    places = [(k.status_uri, k.status_idx) for k in (*walk.keys.values(), *keys)]
    report.equal(f"{label}: 65535 idx is unique", len(places), len(set(places)))
    every("65535 uri is a shard of this server", lambda k: shard_of(walk, k.status_uri), True)
    every("fob 2 bundle id", lambda k: k.bundle, bundle.bytes)
    every("fob 3 version", lambda k: k.version, version)
    every("fob 5 region", lambda k: k.region, order.region)
    every("fob 6 max uses", lambda k: k.max_uses, lambda k: order.max_uses.get(k.scope))
    every("fob 8 no recurring windows", lambda k: k.recurring, None)
    others = [*walk.keys.values(), *keys]
    report.equal(f"{label}: fob 7 fleet id is one for all", len({k.fleet for k in others}), 1)
    epochs = {k.vehicle_epoch for k in others if k.vehicle == order.vehicle}
    report.equal(f"{label}: fob 4 vehicle epoch is one for all", len(epochs), 1)

    entries = [(e["id"], e["function"], seconds(e["not_before"]), seconds(e["not_after"])) for e in body["keys"]]
    claims = [(str(uuid.UUID(bytes=k.cti)), k.scope, k.nbf, k.exp) for k in keys]
    report.equal(f"{label}: the JSON beside each key says the same", entries, claims)
    report.check(f"{label}: every status is valid", all(e["status"] == "valid" for e in body["keys"]))
    for uri in {k.status_uri for k in keys} if walk.has("status") else ():
        answer, shard = walk.status_list(uri)
        report.check(f"{label}: its status list verifies", True)
        report.check(f"{label}: the status list has an ETag", answer.headers.get("etag"))
        states = {shard.at(k.status_idx) for k in keys if k.status_uri == uri}
        report.equal(f"{label}: and has every key as valid", states, {fob.VALID})
    walk.keys |= {k.cti: k for k in keys}
    return keys


def v7_seconds(cti):
    return int.from_bytes(cti[:6]) / 1000


def shard_of(walk, uri):
    prefix = walk.url + "/v1/status/"
    shard = uri.removeprefix(prefix)
    return uri.startswith(prefix) and bool(shard) and not set(shard) & set("/?#")


def check_repeats(walk, label, first, body, code_set, terminal, identity, pin=None):
    """The same redemption again, in every way it may be asked for."""
    report = walk.report
    content = first.json()
    same_proof = walk.phones.call("POST", "/v1/redemptions", body)
    report.check(
        f"{label}: the same request again, byte-identical",
        same_proof.status in (200, 201) and same_proof.body == first.body,
        f"{same_proof.status} {same_proof.body[:200]!r}",
    )
    new_proof = walk.redeem(code_set, terminal, identity, pin)
    report.check(
        f"{label}: again with a fresh proof, byte-identical",
        new_proof.status in (200, 201) and new_proof.body == first.body,
        f"{new_proof.status} {new_proof.body[:200]!r}",
    )
    again = walk.redemption(code_set, terminal, identity, pin)
    packed = walk.phones.call("POST", "/v1/redemptions", again, Accept="application/cbor")
    kind = packed.headers.get("content-type")
    report.equal(f"{label}: CBOR on request", (packed.status, kind), (first.status, "application/cbor"))
    unpacked = fob.cbor_decode(packed.body)
    for entry in unpacked["keys"]:
        entry["key"] = fob.b64url(fob.bstr(entry["key"], None, "key"))
    report.equal(f"{label}: CBOR and JSON say the same", unpacked, content)

    path = f"/v1/bundles/{content['bundle']}"
    proof = terminal.proof(walk.url, content["bundle"])
    fetched = walk.phones.call("GET", path, Fob_Proof=proof)
    report.equal(f"{label}: GET bundle with Fob-Proof", fetched.status, 200)
    report.equal(f"{label}: gives the same bundle", fetched.json(), content)
    report.refused(
        f"{label}: GET bundle without credentials",
        walk.phones.call("GET", path),
        {"unauthenticated": 401},
    )
    stranger = fob.Terminal.p256().proof(walk.url, content["bundle"])
    report.refused(
        f"{label}: GET bundle with another key's proof",
        walk.phones.call("GET", path, Fob_Proof=stranger),
        {"terminal_mismatch": 403, "forbidden": 403, "not_found": 404},
    )
    misplaced = terminal.proof(walk.url, code_set)
    report.refused(
        f"{label}: GET bundle with a proof over something else",
        walk.phones.call("GET", path, Fob_Proof=misplaced),
        {"proof_invalid": 422, "unauthenticated": 401},
    )


# --- Phone to phone, then to the car ------------------------------------------------


def walk_phone_to_phone(walk, label, order, terminal):
    """Owner signs, borrower redeems, the car opens."""
    report = walk.report
    command = walk.command(order)
    answer = walk.send_command(command)
    authorization = check_authorization(walk, label, answer, order)
    check_preview(walk, label, authorization, order)

    code_set = authorization["code_set"]
    body = walk.redemption(code_set, terminal)
    first = walk.phones.call("POST", "/v1/redemptions", body)
    if not report.equal(f"{label}: redemption answers 201", first.status, 201):
        raise Refused(f"no bundle: {first.body[:300]!r}")
    keys = check_bundle(walk, label, first.json(), authorization, order, terminal)
    check_repeats(walk, label, first, body, code_set, terminal, "renter-1")
    report.refused(
        f"{label}: a rival terminal comes too late",
        walk.redeem(code_set, fob.Terminal.p256()),
        {"code_set_redeemed": 409},
    )
    check_car(walk, label, first.json(), keys, order, terminal)

    again = walk.send_command(command)
    report.equal(f"{label}: the same signed command, same status", again.status, answer.status)
    volatile = {"state"}  # redeemed by now
    report.equal(
        f"{label}: the same signed command, same answer",
        {k: v for k, v in again.json().items() if k not in volatile},
        {k: v for k, v in authorization.items() if k not in volatile},
    )


def check_car(walk, label, bundle, keys, order, terminal):
    """A car that knows root, own id and fleet opens with every key."""
    report, now = walk.report, int(time.time())
    car = fob.Car(walk.root, order.vehicle, keys[0].fleet, walk.has("status"))
    car.learn_trust(walk.trust_bytes, now)
    for uri in {k.status_uri for k in keys} if walk.has("status") else ():
        car.learn_status(walk.phones.call("GET", uri.removeprefix(walk.url)).body, uri, now)
    here = inside(order.region)

    def use(position, by=terminal, nonce=None, at=now, car=car, which=0):
        challenge = car.challenge()
        data = fob.b64url_decode(bundle["keys"][which]["key"])
        proof = by.use(keys[which].cti, keys[which].scope, nonce or challenge)
        return car.accept(data, proof, challenge, at, *position)

    if order.region:
        report.refuses(f"{label}: the car refuses outside the region", use, far_off(here))
    report.refuses(f"{label}: the car refuses before the window", lambda: use(here, at=order.start - 1))
    report.refuses(f"{label}: the car refuses after the window", lambda: use(here, at=order.end))
    report.refuses(f"{label}: the car refuses another phone", lambda: use(here, by=fob.Terminal.p256()))
    report.refuses(f"{label}: the car refuses an old challenge", lambda: use(here, nonce=bytes(16)))
    opened = [use(here, which=at) for at in range(len(keys))]
    report.equal(f"{label}: the car accepts every key", sorted(opened), sorted(order.functions.values()))
    for at, key in enumerate(keys):
        if key.max_uses:
            for _ in range(key.max_uses - 1):
                use(here, which=at)
            report.refuses(f"{label}: the car counts the uses of {key.scope}", lambda: use(here, which=at))
    other = fob.Car(walk.root, "DEMO-0099", keys[0].fleet, walk.has("status"))
    other.trust, other.statuses = car.trust, car.statuses
    report.refuses(f"{label}: another car refuses", lambda: use(here, car=other))


def inside(region):
    """A point in `region`: the circle's middle, or the polygon's centroid."""
    if region is None:
        return 0, 0
    if region[0] == 0:
        return region[1], region[2]
    lats, lons = zip(*region[1])
    return sum(lats) // len(lats), sum(lons) // len(lons)


def far_off(position):
    lat, lon = position
    return lat + (100_000_000 if lat < 0 else -100_000_000), lon


# --- What the phones may not do ----------------------------------------------------


def walk_refused_commands(walk, order):
    report = walk.report
    sent = walk.command(order)
    report.equal("a command to begin with", walk.send_command(sent).status, 201)
    unauthenticated = {"unauthenticated": 401}
    claims = json.loads(fob.b64url_decode(sent.decode().split(".")[1]))
    now = int(time.time())
    changed = dataclasses.replace(order, end=order.end - 60)
    report.refused(
        "a second command under a jti already used",
        walk.send_command(walk.command(changed, jti=claims["jti"])),
        {"command_replayed": 409},
    )
    for name, override in {
        "a command to another method": {"htm": "PATCH"},
        "a command to another address": {"htu": walk.url + "/v1/authorizations/x"},
        "a command to another server": {"aud": "http://fob.invalid"},
        "a command of another identity": {"iss": "renter-1"},
        "a command that lives for longer than 300 s": {"exp": now + 3600},
        "a command that has expired": {"iat": now - 900, "exp": now - 600},
    }.items():
        refusal = walk.send_command(walk.command(order, **override))
        report.refused(name, refusal, unauthenticated)
    stranger = fob.Terminal.p256()
    url = walk.url + "/v1/authorizations"
    for name, kid, by in (
        ("a command signed by another key", "demo/owner-1-phone", stranger),
        ("a command of an unknown terminal", "demo/nobody", stranger),
        ("a command of an unknown fleet", "nowhere/owner-1-phone", walk.owner),
    ):
        jws = by.command(kid, "owner-1", "POST", url, order.body()).encode()
        report.refused(name, walk.send_command(jws), unauthenticated)
    header, _, signature = sent.decode().split(".")
    claims["command"]["not_after"] = text_time(order.end + 3600)
    forged = ".".join((header, fob.b64url(json.dumps(claims).encode()), signature))
    report.refused("a command changed after signing", walk.send_command(forged.encode()), unauthenticated)
    foreign = dataclasses.replace(order, vehicle="DEMO-0011")
    report.refused(
        "a command for a vehicle the owner does not own",
        walk.send_command(walk.command(foreign)),
        {"forbidden": 403, "unknown_vehicle": 404},
    )
    upside_down = dataclasses.replace(order, start=order.end, end=order.start)
    report.refused(
        "a window that ends before it begins",
        walk.send_command(walk.command(upside_down)),
        {"malformed": 400},
    )


def walk_refused_redemptions(walk, order):
    report = walk.report
    answer = walk.send_command(walk.command(order))
    text = answer.json()["code_set"]
    code_set, terminal = fob.code_set_decode(text), fob.Terminal.p256()

    spare = fob.cbor_encode([code_set.id, code_set.secret, list(code_set.functions)]) + b"\0"
    unsorted = dataclasses.replace(code_set, functions=code_set.functions[::-1])
    indefinite = b"\x9f" + spare[1:-1] + b"\xff"
    malformed = {
        "empty": "",
        "in lower case": text.lower(),
        "with a hyphen": text[:8] + "-" + text[8:],
        "with padding": text + "=",
        "with white space": text + "\n",
        "with a letter outside the alphabet": text[:-1] + "U",
        "with O for 0": "FOB1" + text[4:].replace("0", "O", 1) if "0" in text[4:] else "FOB1O",
        "with another prefix": "FOB2" + text[4:],
        "cut short": text[:-2],
        "with bits left over": text[:-1] + next_digit(text[-1]),
        "with a byte after it": "FOB1" + fob.base32_encode(spare),
        "with functions in descending order": fob.code_set_encode(unsorted),
        "of indefinite length": "FOB1" + fob.base32_encode(indefinite),
    }
    for name, wrong in malformed.items():
        wanted = {"code_set_malformed": 400}
        report.refused(f"preview of a code set {name}", walk.preview(wrong), wanted)
        report.refused(f"redemption of a code set {name}", walk.redeem(wrong, terminal), wanted)

    guesses = {
        "a wrong secret": dataclasses.replace(code_set, secret=secrets.token_bytes(16)),
        "an unknown id": dataclasses.replace(code_set, id=uuid7()),
        "other codes": dataclasses.replace(code_set, functions=code_set.functions[:-1]),
    }
    bodies = set()
    for name, guess in guesses.items():
        guess = fob.code_set_encode(guess)
        unknown = {"code_set_unknown": 404}
        refusal = walk.preview(guess)
        bodies.add(refusal.body)
        report.refused(f"preview with {name}", refusal, unknown)
        report.refused(f"redemption with {name}", walk.redeem(guess, terminal), unknown)
    report.equal("all of these get the same answer", len(bodies), 1)

    now = int(time.time())
    with_d = terminal.jwk() | {"d": fob.b64url(terminal.private.private_numbers().private_value.to_bytes(32))}
    proofs = {
        "over another nonce": {"nonce": fob.b64url(hashlib.sha256(b"other").digest())},
        "without a nonce": {"nonce": None},
        "to another server": {"aud": "http://fob.invalid"},
        "that is too old": {"now": now - 330},
        "from the future": {"now": now + 120},
        "of another typ": {"header": {"typ": "JWT"}},
        "with alg none": {"header": {"alg": "none"}},
        "with the private key in it": {"header": {"jwk": with_d}},
        "with another key in the header": {"header": {"jwk": fob.Terminal.p256().jwk()}},
    }
    for name, override in proofs.items():
        refusal = walk.redeem(text, terminal, **override)
        report.refused(f"a proof {name}", refusal, {"proof_invalid": 422})
    report.refused(
        "an identity nobody knows", walk.redeem(text, terminal, "nobody"), {"unknown_identity": 404}
    )
    unread = walk.phones.call("POST", "/v1/redemptions", b"{", Content_Type="application/json")
    report.refused("a body that is not JSON", unread, {"malformed": 400})
    report.equal(
        "after all of these the code set is still good",
        walk.redeem(text, terminal).status,
        201,
    )


def next_digit(char):
    """The last character with its lowest bit turned, which is beyond the
    bytes in a text whose bits do not come out even."""
    return fob.CROCKFORD[fob.CROCKFORD.index(char) ^ 1]


def uuid7():
    """An id of the right form that no server made."""
    raw = bytearray(int(time.time() * 1000).to_bytes(6) + secrets.token_bytes(10))
    raw[6], raw[8] = raw[6] & 0x0F | 0x70, raw[8] & 0x3F | 0x80
    return bytes(raw)


def walk_same_moment(walk, order):
    """What several phones get that ask at once, each on a connection of its
    own: the same borrower joins, of rivals exactly one wins."""
    report, crew = walk.report, 6

    def at_once(bodies):
        def send(body):
            return fob.Http(walk.url).call("POST", "/v1/redemptions", body)

        with ThreadPoolExecutor(len(bodies)) as pool:
            return list(pool.map(send, bodies))

    def new_code_set():
        return walk.send_command(walk.command(order)).json()["code_set"]

    code_set, terminal = new_code_set(), fob.Terminal.p256()
    answers = at_once([walk.redemption(code_set, terminal) for _ in range(crew)])
    report.equal("one borrower, six times at once, is answered each time", {a.status for a in answers} <= {200, 201}, True)
    report.equal("and with the same bytes", len({a.body for a in answers}), 1)

    code_set = new_code_set()
    answers = at_once([walk.redemption(code_set, fob.Terminal.p256()) for _ in range(crew)])
    winners = [a for a in answers if a.status == 201]
    report.equal("of six rivals at once one wins", len(winners), 1)
    codes = {a.code() for a in answers if a.status != 201}
    report.equal("and the others come too late", codes, {"code_set_redeemed"})

    order = dataclasses.replace(order, end=order.end + 1)
    command = walk.command(order)

    def send_command(_):
        http = fob.Http(walk.url)
        return http.call("POST", "/v1/authorizations", command, Content_Type="application/jose")

    with ThreadPoolExecutor(crew) as pool:
        answers = list(pool.map(send_command, range(crew)))
    report.equal("one command, six times at once, is answered each time", {a.status for a in answers}, {201})
    ids = {a.json()["authorization"] for a in answers}
    report.equal("and makes one authorization", len(ids), 1)


# --- What a car must refuse in the bytes themselves ----------------------------------


def walk_key_bytes(walk):
    report, trust = walk.report, walk.trust
    for signing, data in walk.raw.items():
        key = fob.key_verify(data, trust)
        # COSE receipts sign the root, not the tree's size (RFC 9942). A flip
        # that turns it into a size with the same path is harmless as long as
        # the claims come out the same, so only other changes count.
        harmless = 0

        def verify(flipped):
            nonlocal harmless
            found = fob.key_verify(flipped, trust)
            if found.tree_size != key.tree_size:
                if dataclasses.replace(found, tree_size=key.tree_size) == key:
                    harmless += 1
                    raise Refused("not counted")

        survivors = flips_accepted(data, verify)
        report.equal(
            f"one flipped bit anywhere in a key signed {signing} is refused"
            + (f" (but for {harmless} in the size of its tree)" if harmless else ""),
            survivors,
            [],
        )
        cut = [n for n in range(len(data)) if not refuses(fob.key_verify, data[:n], trust)]
        report.equal(f"a key signed {signing}, cut anywhere, is refused", cut, [])
        report.refuses(f"a byte after a key signed {signing}", fob.key_verify, data + b"\0", trust)
        unlisted = {kid: entry for kid, entry in trust.windows.items() if kid != key.kid}
        report.refuses(
            f"a key signed {signing} by an issuer not listed",
            fob.key_verify,
            data,
            dataclasses.replace(trust, windows=unlisted),
        )
        issuer, _, end = trust.windows[key.kid]
        late = {key.kid: (issuer, key.iat + 1, end + 1)}
        report.refuses(
            f"a key signed {signing} before its issuer's window",
            fob.key_verify,
            data,
            dataclasses.replace(trust, windows=late),
        )
        impostor = new_root(issuer.alg)
        report.refuses(
            f"a key signed {signing} under an impostor's key",
            fob.key_verify,
            data,
            dataclasses.replace(trust, windows={key.kid: (impostor, 0, end)}),
        )
        check_rewrites(report, signing, data, trust)


def refuses(call, *args):
    try:
        call(*args)
    except Refused:
        return True
    return False


def check_rewrites(report, signing, data, trust):
    """Other encodings of the same key."""
    item = fob.cbor_decode(data)
    parts = list(item.value if signing == "each" else item)
    bare = b"".join(map(fob.cbor_encode, parts))
    count = len(parts)
    rewrites = {
        "in an indefinite array": b"\x9f" + bare + b"\xff",
        "with a long array head": bytes([0x98, count]) + bare,
    }
    if signing == "each":
        rewrites = {name: b"\xd2" + value for name, value in rewrites.items()}
        rewrites["without its tag"] = fob.cbor_encode(parts)
        rewrites["with a long tag"] = b"\xd8\x12" + fob.cbor_encode(parts)
    for name, rewritten in rewrites.items():
        report.refuses(f"a key signed {signing}, {name}", fob.key_verify, rewritten, trust)


# --- With a fleet's token -------------------------------------------------------------


class FleetObjects:
    """The vehicle, identity and terminal that this run adds to the fleet."""

    def __init__(self, walk):
        self.walk = walk
        self.vehicle = f"CLIENT-{walk.run}"
        self.identity = f"client-{walk.run}"
        self.phone = f"client-{walk.run}-phone"
        self.terminal = fob.Terminal.p256()
        self.functions = FUNCTIONS | OWN_FUNCTION

    def register(self):
        own = [{"code": code, "name": name} for code, name in OWN_FUNCTION.items()]
        for path, body in (
            (f"vehicles/{self.vehicle}", {"model": "client", "functions": [*FUNCTIONS.values(), *own]}),
            (f"identities/{self.identity}", {"licences": [{"class": "B", "expires": "2099-01-01T00:00:00Z"}]}),
            (f"terminals/{self.phone}", {"identity": self.identity, "jwk": self.terminal.jwk()}),
        ):
            for again in ("", " again"):
                answer = self.walk.fleet.call("PUT", f"/v1/{path}", body)
                name = path.split("/")[0]
                self.walk.report.check(
                    f"PUT {name}{again}",
                    answer.status in (200, 201, 204),
                    f"{answer.status} {answer.body[:300]!r}",
                )

    def order(self, **more):
        now = int(time.time())
        return Order(self.vehicle, self.functions, now, now + 7200, **more)


def walk_bound_and_pinned(walk, objects):
    """An authorization for one identity on one terminal, with a PIN."""
    report, label = walk.report, "bound"
    redeem_by = int(time.time()) + 1800
    order = objects.order(
        max_uses={"seat.massage": 5, "engine.start": 2},
        signing=walk.tree(),
        extra={
            "recipient": {"identity": objects.identity, "terminal": objects.phone},
            "pin": True,
            "redeem_by": text_time(redeem_by),
        },
    )
    answer = walk.fleet.call("POST", "/v1/authorizations", order.body())
    authorization = check_authorization(walk, label, answer, order, pin=True)
    report.equal(f"{label}: redeem_by", seconds(authorization["redeem_by"]), redeem_by)
    pin = authorization["pin"]
    report.check(f"{label}: the PIN is six digits", len(pin) == 6 and set(pin) <= set("0123456789"))
    check_preview(walk, label, authorization, order, pin=True)

    code_set, phone, identity = authorization["code_set"], objects.terminal, objects.identity
    wrong = f"{(int(pin) + 1) % 1_000_000:06}"
    report.refused(f"{label}: no PIN", walk.redeem(code_set, phone, identity), {"pin_required": 403})
    report.refused(f"{label}: a wrong PIN", walk.redeem(code_set, phone, identity, wrong), {"pin_wrong": 403})
    report.refused(
        f"{label}: another terminal",
        walk.redeem(code_set, fob.Terminal.p256(), identity, pin),
        {"terminal_mismatch": 403},
    )
    report.refused(
        f"{label}: another identity",
        walk.redeem(code_set, phone, "renter-2", pin),
        {"recipient_mismatch": 403},
    )
    body = walk.redemption(code_set, phone, identity, pin)
    first = walk.phones.call("POST", "/v1/redemptions", body)
    if not report.equal(f"{label}: redemption answers 201", first.status, 201):
        raise Refused(f"no bundle: {first.body[:300]!r}")
    keys = check_bundle(walk, label, first.json(), authorization, order, phone)
    check_repeats(walk, label, first, body, code_set, phone, identity, pin)
    check_car(walk, label, first.json(), keys, order, phone)
    by_token = walk.fleet.call("GET", f"/v1/bundles/{first.json()['bundle']}")
    report.equal(f"{label}: GET bundle with the token", by_token.status, 200)
    report.equal(f"{label}: gives the same bundle", by_token.json(), first.json())
    read = walk.fleet.call("GET", f"/v1/authorizations/{authorization['authorization']}")
    report.equal(f"{label}: GET authorization", read.status, 200)
    report.equal(
        f"{label}: it is this one", read.json().get("authorization"), authorization["authorization"]
    )


def walk_pin_lock(walk, objects):
    report = walk.report
    body = objects.order(extra={"pin": True}).body()
    authorization = walk.fleet.call("POST", "/v1/authorizations", body).json()
    code_set, pin = authorization["code_set"], authorization["pin"]
    wrong = f"{(int(pin) + 1) % 1_000_000:06}"
    args = code_set, objects.terminal, objects.identity
    codes = [walk.redeem(*args, wrong).code() for _ in range(5)]
    report.check(
        "five wrong PINs are each refused",
        codes[:4] == ["pin_wrong"] * 4 and codes[4] in ("pin_wrong", "pin_locked"),
        codes,
    )
    report.refused("then even the right PIN is locked out", walk.redeem(*args, pin), {"pin_locked": 403})


def walk_idempotency(walk, objects):
    report = walk.report
    body, key = objects.order().body(), str(uuid.uuid4())
    first = walk.fleet.call("POST", "/v1/authorizations", body, Idempotency_Key=key)
    again = walk.fleet.call("POST", "/v1/authorizations", body, Idempotency_Key=key)
    report.equal("the same Idempotency-Key, same status", again.status, first.status)
    report.equal("the same Idempotency-Key, same answer", again.json(), first.json())
    other = walk.fleet.call("POST", "/v1/authorizations", body, Idempotency_Key=str(uuid.uuid4()))
    report.check(
        "another Idempotency-Key, another authorization",
        other.json()["authorization"] != first.json()["authorization"],
    )


def walk_paging(walk):
    report, vehicle = walk.report, f"CLIENT-{walk.run}-pages"
    walk.fleet.call("PUT", f"/v1/vehicles/{vehicle}", {"model": "client", "functions": [1, 2]})
    now = int(time.time())
    order = Order(vehicle, {1: FUNCTIONS[1], 2: FUNCTIONS[2]}, now, now + 3600)
    made = [
        walk.fleet.call("POST", "/v1/authorizations", order.body()).json()["authorization"]
        for _ in range(5)
    ]
    listed, after, pages = [], "", 0
    while pages < 5:
        path = f"/v1/authorizations?vehicle={vehicle}&limit=2" + (f"&after={after}" if after else "")
        answer = walk.fleet.call("GET", path)
        if not report.equal(f"page {pages + 1} answers 200", answer.status, 200):
            return
        page = answer.json()
        report.check(f"page {pages + 1} holds at most two", len(page["items"]) <= 2)
        listed += [item["authorization"] for item in page["items"]]
        after, pages = page.get("next"), pages + 1
        if not after:
            break
    report.equal("the pages hold all, each once", sorted(listed), sorted(made))
    report.check("five in twos are three pages, at most one empty", pages in (3, 4), pages)


def walk_fleet_refusals(walk, objects):
    report, post = walk.report, walk.fleet.call
    path = "/v1/authorizations"
    body = objects.order().body()
    cases = (
        ("an unknown vehicle", {"vehicle": "NOBODY-1"}, {"unknown_vehicle": 404}),
        ("an unknown function", {"functions": ["teleport"]}, {"unknown_function": 404}),
        ("an unknown recipient", {"recipient": {"identity": "nobody"}}, {"unknown_identity": 404}),
        ("no functions", {"functions": []}, {"malformed": 400}),
        ("a field nobody knows", {"surprise": 1}, {"malformed": 400}),
        ("a circle without a radius", {"region": {"circle": {"lat": 0, "lon": 0}}}, {"malformed": 400}),
        ("a polygon of two corners", {"region": {"polygon": [[0, 0], [1, 1]]}}, {"malformed": 400}),
        ("a latitude of 91", {"region": {"circle": {"lat": 91, "lon": 0, "radius_m": 5}}}, {"malformed": 400}),
    )
    for name, change, wanted in cases:
        report.refused(f"an authorization with {name}", post("POST", path, body | change), wanted)
    report.refused(
        "an own function on a vehicle without it",
        post("POST", path, body | {"vehicle": "DEMO-0020"}),
        {"function_not_on_vehicle": 422},
    )
    report.refused("no token", walk.phones.call("POST", path, body), {"unauthenticated": 401})
    report.refused(
        "a token nobody gave out",
        walk.phones.call("POST", path, body, Authorization="Bearer fob_" + "A" * 43),
        {"unauthenticated": 401},
    )
    report.refused(
        "another media type",
        post("POST", path, b"vehicle=1", Content_Type="application/x-www-form-urlencoded"),
        {"malformed": 415},
    )
    report.refused("a bundle nobody made", post("GET", f"/v1/bundles/{uuid.uuid4()}"), {"not_found": 404})


def walk_too_late(walk, objects):
    report = walk.report
    soon = int(time.time()) + 2
    body = objects.order(extra={"redeem_by": text_time(soon)}).body()
    late = walk.fleet.call("POST", "/v1/authorizations", body).json()
    args = objects.terminal, objects.identity
    if walk.has("cancel"):
        body = objects.order().body()
        gone = walk.fleet.call("POST", "/v1/authorizations", body).json()
        deleted = walk.fleet.call("DELETE", f"/v1/authorizations/{gone['authorization']}")
        report.check(
            "DELETE authorization",
            deleted.status in (200, 202, 204),
            f"{deleted.status} {deleted.body[:200]!r}",
        )
        refusal = walk.redeem(gone["code_set"], *args)
        report.refused("a cancelled code set", refusal, {"code_set_cancelled": 410})
    time.sleep(max(0, soon + 1 - time.time()))
    report.refused("a code set after redeem_by", walk.redeem(late["code_set"], *args), {"code_set_expired": 410})


# --- The command ------------------------------------------------------------------------


def walk_all(walk):
    report, now = walk.report, int(time.time())
    circle = [0, -338_688_197, 1_512_092_955, 2500]
    polygon = [1, [[481_371_234, 115_753_000], [481_400_000, 115_900_001], [481_000_007, 115_950_000]]]
    by_circle = Order("DEMO-0001", FUNCTIONS, now, now + 3600, circle, {"engine.start": 3})
    by_polygon = Order("DEMO-0002", FUNCTIONS, now, now + 3600, polygon, signing=walk.tree())
    with report.section("public face and trust list"):
        walk_public_face(walk)
    with report.section("phone to phone, borrower on P-256"):
        walk_phone_to_phone(walk, "P-256", by_circle, fob.Terminal.p256())
    with report.section("phone to phone, borrower on Ed25519"):
        walk_phone_to_phone(walk, "Ed25519", by_polygon, fob.Terminal.ed25519())
    with report.section("commands that are refused"):
        walk_refused_commands(walk, by_circle)
    with report.section("redemptions that are refused"):
        walk_refused_redemptions(walk, Order("DEMO-0003", FUNCTIONS, now, now + 3600))
    with report.section("at the same moment"):
        walk_same_moment(walk, Order("DEMO-0004", FUNCTIONS, now, now + 3600))
    if walk.fleet:
        objects = FleetObjects(walk)
        with report.section("the fleet's registry"):
            objects.register()
        with report.section("bound to identity and terminal, with a PIN"):
            walk_bound_and_pinned(walk, objects)
        with report.section("five wrong PINs"):
            walk_pin_lock(walk, objects)
        with report.section("Idempotency-Key"):
            walk_idempotency(walk, objects)
        with report.section("paging"):
            walk_paging(walk)
        with report.section("what a fleet may not do"):
            walk_fleet_refusals(walk, objects)
        with report.section("cancelled and too late"):
            walk_too_late(walk, objects)
    with report.section("key bytes a car must refuse"):
        report.equal("every way of signing was seen", sorted(walk.raw), sorted({"each", walk.tree()}))
        walk_key_bytes(walk)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--url", required=True, help="the server's public address")
    parser.add_argument("--dir", required=True, help="the folder of the demo installation")
    parser.add_argument("--token", help="a token of the demo fleet")
    parser.add_argument("--without", action="append", default=[], choices=PARTS, help="leave out a part")
    args = parser.parse_args()
    walk = Walk(args.url, args.dir, args.token, args.without)
    walk_all(walk)
    left_out = [*args.without, *([] if args.token else ["everything that needs a token"])]
    if left_out:
        print(f"left out: {', '.join(left_out)}")
    print(f"{walk.report.passed} passed, {walk.report.failed} failed")
    return 1 if walk.report.failed else 0


if __name__ == "__main__":
    sys.exit(main())
