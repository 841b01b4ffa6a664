"""Makes the code sets and proofs that `redeem.js` will use up.

    FOB_TOKEN=fob_… python3 prepare.py --url http://127.0.0.1:8650 --count 3000 --out redemptions.json

First authorizes COUNT times with the fleet's token, eight functions each,
spread over the demo fleet's vehicles and borrowers. Then gives every code set
a borrower terminal of its own, a fresh P-256 key, and signs its proof. A proof
is good for 300 seconds from its `iat`, so the proofs are signed last and the
run follows at once.

OUT is a JSON array of `{body, vehicle, functions}`: the finished request body
of one redemption, and what its answer must hold.
"""

import argparse
import base64
import hashlib
import http.client
import json
import os
import sys
import threading
import time
import urllib.parse
from datetime import datetime, timezone

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

COUNT_MAX = 200_000
FUNCTIONS = list(range(1, 9))
VEHICLES = [f"DEMO-{n:04}" for n in range(1, 101)]
IDENTITIES = [f"renter-{n}" for n in range(1, 101)]


def b64url(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def compact(value):
    return json.dumps(value, separators=(",", ":")).encode()


def text_time(seconds):
    return datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def authorize_all(url, token, count, threads, signing):
    """COUNT authorizations over `threads` keep-alive connections, in order."""
    made, failures = [None] * count, []
    numbers, lock = iter(range(count)), threading.Lock()

    def work():
        connection = http.client.HTTPConnection(urllib.parse.urlsplit(url).netloc, timeout=30)
        while not failures:
            with lock:
                n = next(numbers, None)
            if n is None:
                return
            try:
                made[n] = authorize(connection, token, n, signing)
            except Exception as cause:  # one failure ends the whole preparation
                failures.append(cause)

    crew = [threading.Thread(target=work) for _ in range(threads)]
    for thread in crew:
        thread.start()
    for thread in crew:
        thread.join()
    if failures:
        raise failures[0]
    return made


def authorize(connection, token, n, signing):
    now = int(time.time())
    body = {
        "vehicle": VEHICLES[n % len(VEHICLES)],
        "functions": FUNCTIONS,
        "not_before": text_time(now),
        "not_after": text_time(now + 3600),
    }
    if signing:
        body["signing"] = signing
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    connection.request("POST", "/v1/authorizations", compact(body), headers)
    answer = connection.getresponse()
    text = answer.read()
    if answer.status != 201:
        raise RuntimeError(f"authorization answered {answer.status}: {text[:300]!r}")
    return json.loads(text)


def sign_proof(aud, code_set, now):
    """A borrower terminal's proof, by a key made for it alone."""
    private = ec.generate_private_key(ec.SECP256R1())
    numbers = private.public_key().public_numbers()
    jwk = {
        "kty": "EC",
        "crv": "P-256",
        "x": b64url(numbers.x.to_bytes(32, "big")),
        "y": b64url(numbers.y.to_bytes(32, "big")),
    }
    header = {"alg": "ES256", "typ": "openid4vci-proof+jwt", "jwk": jwk}
    nonce = b64url(hashlib.sha256(code_set.encode()).digest())
    claims = {"aud": aud, "iat": now, "nonce": nonce}
    signed = b64url(compact(header)) + "." + b64url(compact(claims))
    r, s = decode_dss_signature(private.sign(signed.encode(), ec.ECDSA(hashes.SHA256())))
    return signed + "." + b64url(r.to_bytes(32, "big") + s.to_bytes(32, "big"))


def redemption(url, n, authorization):
    code_set = authorization["code_set"]
    body = {
        "code_set": code_set,
        "identity": {"id": IDENTITIES[n % len(IDENTITIES)]},
        "proof": sign_proof(url, code_set, int(time.time())),
    }
    return {
        "body": compact(body).decode(),
        "vehicle": authorization["vehicle"],
        "functions": [f["name"] for f in authorization["functions"]],
    }


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--url", required=True, help="the server's public address")
    parser.add_argument("--count", type=int, required=True, help="how many redemptions")
    parser.add_argument("--out", required=True, help="the file to write")
    parser.add_argument("--threads", type=int, default=8, help="connections (default 8)")
    parser.add_argument("--signing", choices=["each", "tree", "auto"], help="as in the command")
    args = parser.parse_args()
    if not 0 < args.count <= COUNT_MAX:
        parser.error(f"--count must lie between 1 and {COUNT_MAX}")
    token = os.environ.get("FOB_TOKEN")
    if not token:
        parser.error("FOB_TOKEN must hold a token with the scope authorize")

    url, began = args.url.rstrip("/"), time.monotonic()
    made = authorize_all(url, token, args.count, args.threads, args.signing)
    authorized = time.monotonic()
    redemptions = [redemption(url, n, a) for n, a in enumerate(made)]
    with open(args.out, "w") as out:
        json.dump(redemptions, out)
    signed = time.monotonic()
    print(
        f"{args.count} authorizations in {authorized - began:.1f} s "
        f"({args.count / (authorized - began):.0f}/s, {args.threads} connections), "
        f"proofs signed in {signed - authorized:.1f} s"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
