"""What needs no fleet token: the public face, and the way from the owner's phone
to the borrower's and on to the car."""

import time

import fobclient as fob
from bundles import check_authorization, check_bundle, check_preview, check_repeats
from fobclient import Refused
from keybytes import flips_accepted, new_root


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
    survivors = flips_accepted(walk.trust_bytes, lambda data: fob.TrustList.verify(data, walk.root))
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
    report.refuses(
        f"{label}: the car refuses before the window", lambda: use(here, at=order.start - 1)
    )
    report.refuses(f"{label}: the car refuses after the window", lambda: use(here, at=order.end))
    report.refuses(
        f"{label}: the car refuses another phone", lambda: use(here, by=fob.Terminal.p256())
    )
    report.refuses(f"{label}: the car refuses an old challenge", lambda: use(here, nonce=bytes(16)))
    opened = [use(here, which=at) for at in range(len(keys))]
    report.equal(
        f"{label}: the car accepts every key", sorted(opened), sorted(order.functions.values())
    )
    for at, key in enumerate(keys):
        if key.max_uses:
            for _ in range(key.max_uses - 1):
                use(here, which=at)
            report.refuses(
                f"{label}: the car counts the uses of {key.scope}", lambda: use(here, which=at)
            )
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
