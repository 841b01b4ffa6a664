"""Reads status lists with two libraries by others that have never seen this
server: `cwt` verifies the token, `token-status-list` reads the bits.

    python3 status.py --url URL --key ISSUER LIST KEYS...

LIST is a status list's token. ISSUER is the issuer's public key as JWK or
JWKS. KEYS are `index:status`, the status a number of the IETF draft: 0 valid,
1 revoked, 2 suspended. `cwt` knows ES256 (-7) and not ESP256 (-9): only lists
signed with ES256 can be read here.

The token must verify, and must not once its signature has been changed; it
must be for URL, not have expired, and say of each key what is given.
Prints and counts like `flow.py`.
"""

import argparse
import base64
import json
import pathlib
import sys
import time
import zlib

import cwt
from report import Report
from token_status_list import BitArray

SUB, EXP, IAT, STATUS_LIST, TTL = 2, 4, 6, 65533, 65534


def issuers(data):
    """The public keys in a JWKS, as `cwt` takes them."""
    found = []
    for jwk in json.loads(data)["keys"]:
        x, y = (base64.urlsafe_b64decode(jwk[part] + "==") for part in "xy")
        kid = bytes.fromhex(jwk["kid"])
        found.append(cwt.COSEKey.new({1: 2, 2: kid, 3: -7, -1: 1, -2: x, -3: y}))
    return found


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--url", required=True)
    parser.add_argument("--key", required=True, type=pathlib.Path)
    parser.add_argument("list", type=pathlib.Path)
    parser.add_argument("keys", nargs="+")
    args = parser.parse_args()
    report = Report()
    token = args.list.read_bytes()
    keys = issuers(args.key.read_bytes())
    claims = cwt.decode(token, keys)
    report.check("the token verifies", True)
    changed = token[:-1] + bytes([token[-1] ^ 1])
    try:
        cwt.decode(changed, keys)
        report.check("a changed one does not", False)
    except cwt.VerifyError:
        report.check("a changed one does not", True)
    report.check("it is for its address", claims[SUB] == args.url)
    report.check("it has not expired", claims[EXP] > time.time())
    report.check("it is not from the future", claims[IAT] <= time.time() + 10)
    report.check("it says how long it is fresh", claims[TTL] > 0)
    body = claims[STATUS_LIST]
    bits = BitArray(body["bits"], zlib.decompress(body["lst"]))
    report.check("it has 2^17 entries", len(bits) == 1 << 17)
    named = {}
    for pair in args.keys:
        index, status = map(int, pair.split(":"))
        named[index] = status
        report.check(f"entry {index} is {status}", bits[index] == status)
    others = (index for index in range(len(bits)) if index not in named)
    report.check("no other is marked", not any(bits[index] for index in others))
    print(f"{report.passed} passed, {report.failed} failed")
    sys.exit(report.failed > 0)


main()
