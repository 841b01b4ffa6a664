"""What a fleet's back end does with its token."""

import time
import uuid

import fobclient as fob
from bundles import check_authorization, check_bundle, check_preview, check_repeats
from fobclient import FUNCTIONS, Refused
from phones import check_car
from world import Order, seconds, text_time

OWN_FUNCTION = {256: "seat.massage"}


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
            (
                f"vehicles/{self.vehicle}",
                {"model": "client", "functions": [*FUNCTIONS.values(), *own]},
            ),
            (
                f"identities/{self.identity}",
                {"licences": [{"class": "B", "expires": "2099-01-01T00:00:00Z"}]},
            ),
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
    report.refused(
        f"{label}: no PIN", walk.redeem(code_set, phone, identity), {"pin_required": 403}
    )
    report.refused(
        f"{label}: a wrong PIN", walk.redeem(code_set, phone, identity, wrong), {"pin_wrong": 403}
    )
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
    report.refused(
        "then even the right PIN is locked out", walk.redeem(*args, pin), {"pin_locked": 403}
    )


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
        path = f"/v1/authorizations?vehicle={vehicle}&limit=2" + (
            f"&after={after}" if after else ""
        )
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
        (
            "a circle without a radius",
            {"region": {"circle": {"lat": 0, "lon": 0}}},
            {"malformed": 400},
        ),
        ("a polygon of two corners", {"region": {"polygon": [[0, 0], [1, 1]]}}, {"malformed": 400}),
        (
            "a latitude of 91",
            {"region": {"circle": {"lat": 91, "lon": 0, "radius_m": 5}}},
            {"malformed": 400},
        ),
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
    report.refused(
        "a bundle nobody made", post("GET", f"/v1/bundles/{uuid.uuid4()}"), {"not_found": 404}
    )


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
    report.refused(
        "a code set after redeem_by",
        walk.redeem(late["code_set"], *args),
        {"code_set_expired": 410},
    )
