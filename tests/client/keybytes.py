"""What a car must refuse in the bytes of a key themselves."""

import dataclasses

import fobclient as fob
from fobclient import Refused


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
