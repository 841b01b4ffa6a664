"""What all parts of the walk share: an order, and the phones that send it."""

import dataclasses
import json
import pathlib
import secrets
import time
from datetime import datetime, timedelta, timezone

import fobclient as fob
from fobclient import Refused
from report import Report


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
        return self.phones.call("POST", "/v1/authorizations", jws, Content_Type="application/jose")

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
