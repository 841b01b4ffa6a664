"""Rotations under load: the epochs are prepared before, then one command every few seconds lets the
next one sign. What the seconds after are like is read from the client's time line."""

import re
import statistics
import time
import urllib.request

from server import Failed, once

ROTATIONS = 10
# Seconds of the load: until the first rotation, between two, and after the last.
FIRST_S, EVERY_S, AFTER_S = 4, 3, 3
DURATION_S = FIRST_S + EVERY_S * (ROTATIONS - 1) + AFTER_S
BEGIN_TIMEOUT_S = 120
WIDE = "now/2099-01-01T00:00:00Z"

# The median rotation may make the second after it no worse than this, against the one before.
RATIO_MAX = 2.0


def prepare(fob, home):
    """Epochs enough, all of them ready."""
    windows = ["--window", WIDE] * ROTATIONS
    once(fob, "epoch", "prepare", "--dir", home, *windows)


def during(up, client):
    """Rotates while the client drives its load: the second in which each rotation was asked for,
    and what the command took."""
    began = beginning(up.url, client)
    rotations = []
    for number in range(ROTATIONS):
        second = FIRST_S + EVERY_S * number
        time.sleep(max(0, began + second - time.monotonic()))
        asked = time.monotonic()
        once(up.fob, "epoch", "rotate", "--dir", up.home)
        took_ms = (time.monotonic() - asked) * 1000
        rotations.append({"second": second, "command_ms": round(took_ms, 1)})
    return rotations


def beginning(url, client):
    """When the first redemption was answered, by the server's own count."""
    deadline = time.monotonic() + BEGIN_TIMEOUT_S
    counted = re.compile(rb'fob_http_seconds_count\{path="/v1/redemptions"\} [1-9]')
    while time.monotonic() < deadline and client.poll() is None:
        with urllib.request.urlopen(f"{url}/metrics", timeout=10) as answer:
            if counted.search(answer.read()):
                return time.monotonic()
        time.sleep(0.01)
    raise Failed("the load did not begin")


def judge(summary, rotations):
    """Adds the seconds around each rotation to the summary, and says whether they are in order."""
    p99_ms = {row["second"]: row["p99_ms"] for row in summary["timeline"]}
    for rotation in rotations:
        before, after = p99_ms[rotation["second"] - 1], p99_ms[rotation["second"]]
        rotation |= {"p99_before_ms": before, "p99_after_ms": after, "ratio": after / before}
    ratio = statistics.median(rotation["ratio"] for rotation in rotations)
    failed = sum(
        row["arrivals"] - row["admitted"] for row in summary["timeline"]
    )
    summary |= {"rotations": rotations, "median_ratio": ratio, "failed": failed}
    for rotation in rotations:
        print(
            f"  second {rotation['second']:3}  p99 {rotation['p99_before_ms']:6.1f} ms before, "
            f"{rotation['p99_after_ms']:6.1f} ms after, ratio {rotation['ratio']:.2f}; "
            f"the command took {rotation['command_ms']:.0f} ms"
        )
    kept = ratio <= RATIO_MAX and failed == 0
    print(
        f"  {'kept  ' if kept else 'BROKEN'}  {len(rotations)} rotations: median ratio {ratio:.2f}, "
        f"at most {RATIO_MAX:g}; {failed} requests failed"
    )
    return kept
