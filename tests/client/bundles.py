"""The answers to a command and to a redemption, checked field by field and claim
by claim against the order they come from."""

import time
import uuid

import fobclient as fob
from fobclient import Refused
from report import same
from world import seconds

# Wide enough for a clock that was set by hand, narrow enough to mean "now".
NEAR_NOW_S = 120


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
        report.equal(
            f"{label}: {where} repeats {field} as asked for", found or None, wanted or None
        )
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
    report.check(
        f"{label}: preview shows a region where there is one", "region" in body or not order.region
    )
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
    every(
        "header alg is the issuer key's",
        lambda k: k.alg,
        lambda k: walk.trust.windows[k.kid][0].alg,
    )
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
    every(
        "9 scope is the function's name",
        lambda k: k.scope,
        lambda k: order.functions.get(k.function),
    )
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

    entries = [
        (e["id"], e["function"], seconds(e["not_before"]), seconds(e["not_after"]))
        for e in body["keys"]
    ]
    claims = [(str(uuid.UUID(bytes=k.cti)), k.scope, k.nbf, k.exp) for k in keys]
    report.equal(f"{label}: the JSON beside each key says the same", entries, claims)
    report.check(
        f"{label}: every status is valid", all(e["status"] == "valid" for e in body["keys"])
    )
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
    report.equal(
        f"{label}: CBOR on request", (packed.status, kind), (first.status, "application/cbor")
    )
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
