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
import sys
import time

import fobclient as fob
from fleet import (
    FleetObjects,
    walk_bound_and_pinned,
    walk_fleet_refusals,
    walk_idempotency,
    walk_paging,
    walk_pin_lock,
    walk_too_late,
)
from fobclient import FUNCTIONS
from keybytes import walk_key_bytes
from phones import walk_phone_to_phone, walk_public_face
from refusals import walk_refused_commands, walk_refused_redemptions, walk_same_moment
from world import Order, Walk

PARTS = ("tree", "status", "cancel")


def walk_all(walk):
    report, now = walk.report, int(time.time())
    circle = [0, -338_688_197, 1_512_092_955, 2500]
    polygon = [
        1,
        [[481_371_234, 115_753_000], [481_400_000, 115_900_001], [481_000_007, 115_950_000]],
    ]
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
        report.equal(
            "every way of signing was seen", sorted(walk.raw), sorted({"each", walk.tree()})
        )
        walk_key_bytes(walk)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--url", required=True, help="the server's public address")
    parser.add_argument("--dir", required=True, help="the folder of the demo installation")
    parser.add_argument("--token", help="a token of the demo fleet")
    parser.add_argument(
        "--without", action="append", default=[], choices=PARTS, help="leave out a part"
    )
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
