"""What the phones may not do, and what happens when several ask at once."""

import dataclasses
import hashlib
import json
import secrets
import time
from concurrent.futures import ThreadPoolExecutor

import fobclient as fob
from world import text_time


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
    report.refused(
        "a command changed after signing", walk.send_command(forged.encode()), unauthenticated
    )
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
    with_d = terminal.jwk() | {
        "d": fob.b64url(terminal.private.private_numbers().private_value.to_bytes(32))
    }
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
    report.equal(
        "one borrower, six times at once, is answered each time",
        {a.status for a in answers} <= {200, 201},
        True,
    )
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
    report.equal(
        "one command, six times at once, is answered each time", {a.status for a in answers}, {201}
    )
    ids = {a.json()["authorization"] for a in answers}
    report.equal("and makes one authorization", len(ids), 1)
