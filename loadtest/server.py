"""The server under test: a scratch folder with the demo fleet and SoftHSM, and `fob serve` on
loopback in it. `run` and `report` share this."""

import contextlib
import os
import pathlib
import re
import resource
import select
import shutil
import statistics
import subprocess
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent
VENV = ROOT / ".venv-loadtest" / "bin"

START_TIMEOUT_S = 60
STOP_TIMEOUT_S = 20
FSYNCS = 51


class Failed(Exception):
    """The run could not be made; nothing is said about the server's speed."""


class Server:
    """A server that is ready."""

    def __init__(self, url, process, home, fob):
        self.url, self.process, self.home, self.fob = url, process, home, fob

    def token(self, scopes):
        """A new token of the demo fleet."""
        words = ["token", "create", "--fleet", "demo", "--scopes", scopes, "--dir", self.home]
        return once(self.fob, *words)


@contextlib.contextmanager
def serving(fob, home, log_file):
    """A server of `home` on loopback. Only this very process is ended, by the handle it was
    started with."""
    # A connection is an open file, and an overload has many of them.
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with open(log_file, "wb") as log:
        process = subprocess.Popen(
            [fob, "serve", "--dir", home, "--listen", "127.0.0.1:0"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
        )
    try:
        yield Server(ready_address(process, log_file), process, home, fob)
        if process.poll() is not None:
            raise Failed(f"the server ended by itself with {process.returncode}")
    finally:
        process.terminate()
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def ready_address(process, log):
    """The address the server prints once it is ready."""
    deadline, seen = time.monotonic() + START_TIMEOUT_S, b""
    while time.monotonic() < deadline:
        if select.select([process.stdout], [], [], 0.2)[0]:
            chunk = os.read(process.stdout.fileno(), 4096)
            seen += chunk
            if found := re.search(rb"http://[0-9.:]+(?=\s)", seen):
                return found.group().decode()
            if not chunk:
                break
    tail = log.read_text(errors="replace")[-2000:]
    raise Failed(f"the server did not become ready:\n{seen.decode(errors='replace')}{tail}")


def make_issuer(fob, home):
    """A demo issuer in the new folder `home`."""
    once(fob, "init", "--demo", "--dir", home)


def once(fob, *words):
    """One run of the command line, as what it prints."""
    if not fob.is_file():
        raise Failed(f"{fob} is not there: build it first")
    done = subprocess.run(
        [fob, *words],
        capture_output=True,
        text=True,
        timeout=START_TIMEOUT_S,
        stdin=subprocess.DEVNULL,
    )
    if done.returncode != 0:
        raise Failed(f"fob {words[0]} ended with {done.returncode}: {done.stderr[-2000:]}")
    return done.stdout.strip()


def tool(name):
    """A program of the virtual environment, or else of the path."""
    found = VENV / name if (VENV / name).exists() else shutil.which(name)
    if not found:
        raise Failed(f"no {name}: install requirements.txt into .venv-loadtest")
    return found


def load_client():
    """The native load client."""
    path = pathlib.Path(os.environ.get("FOB_LOAD_BIN", ROOT / "target" / "release" / "fob-load"))
    if not path.is_file():
        raise Failed(f"{path} is not there: cargo build --release --package fob-load")
    return path.resolve()


def fsync_ms(folder):
    """What the disk takes to make 4 KiB durable, the median of 51. Every commit waits for it once,
    so no latency can be read without it."""
    times = []
    with open(folder / "fsync", "wb", buffering=0) as out:
        for _ in range(FSYNCS):
            out.write(bytes(4096))
            began = time.monotonic()
            os.fsync(out.fileno())
            times.append(time.monotonic() - began)
    return statistics.median(times) * 1000


def rss_mib(pid):
    """Resident memory of a process, or None once it has ended."""
    try:
        pages = int(pathlib.Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, IndexError):
        return None
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


class Memory(threading.Thread):
    """Resident memory of a process once a second, for as long as the `with` lasts. `samples` are
    (seconds since the beginning, MiB)."""

    def __init__(self, pid):
        super().__init__(daemon=True)
        self.pid, self.samples = pid, []
        self.ended = threading.Event()

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.ended.set()
        self.join()

    def run(self):
        began = time.monotonic()
        while True:
            if (mib := rss_mib(self.pid)) is not None:
                self.samples.append((time.monotonic() - began, mib))
            if self.ended.wait(1):
                return

    def near(self, share):
        """MiB near a share of the time: the median of a tenth around it."""
        last = self.samples[-1][0]
        near = [mib for at, mib in self.samples if abs(at - share * last) <= 0.05 * last]
        nearest = min(self.samples, key=lambda sample: abs(sample[0] - share * last))
        return statistics.median(near or [nearest[1]])
