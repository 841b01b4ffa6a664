"""Registers a terminal for each of the demo fleet's borrowers, for `fleet-burst.js`.

    FOB_TOKEN=fob_… python3 register.py --url http://127.0.0.1:8650 --out terminals.json

OUT is a JSON array of `{identity, terminal}`. The private keys are thrown away: an order needs
only the registered public key. From then on these borrowers redeem with these terminals alone.
"""

import argparse
import json
import os
import sys
import urllib.request

from cryptography.hazmat.primitives.asymmetric import ec

from prepare import IDENTITIES, b64url


def line(identity):
    numbers = ec.generate_private_key(ec.SECP256R1()).public_key().public_numbers()
    x, y = (b64url(part.to_bytes(32, "big")) for part in (numbers.x, numbers.y))
    jwk = {"kty": "EC", "crv": "P-256", "x": x, "y": y}
    return {"kind": "terminal", "id": f"{identity}-phone", "identity": identity, "jwk": jwk}


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--url", required=True, help="the server's address")
    parser.add_argument("--out", required=True, help="the file to write")
    args = parser.parse_args()
    lines = [line(identity) for identity in IDENTITIES]
    body = "".join(json.dumps(one) + "\n" for one in lines).encode()
    headers = {
        "Authorization": f"Bearer {os.environ['FOB_TOKEN']}",
        "Content-Type": "application/x-ndjson",
    }
    request = urllib.request.Request(f"{args.url}/v1/import", body, headers, method="POST")
    with urllib.request.urlopen(request, timeout=60) as answer:
        results = [json.loads(text) for text in answer.read().splitlines()]
    failed = [one for one in results if one["status"] not in ("done", "unchanged")]
    if failed or len(results) != len(lines):
        print(f"not registered: {failed[:3]}", file=sys.stderr)
        return 1
    with open(args.out, "w") as out:
        json.dump([{"identity": one["identity"], "terminal": one["id"]} for one in lines], out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
