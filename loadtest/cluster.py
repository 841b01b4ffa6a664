"""Two nodes over one database, and a proxy in front of them: a private PostgreSQL, two `fob serve`
with folders of their own, haproxy. All of it is on loopback, in a scratch folder, and ended by the
handles it was started with."""

import contextlib
import os
import pathlib
import pwd
import shutil
import signal as signals
import socket
import subprocess
import time
import urllib.error
import urllib.request

import server
from server import Failed, Server, once

NODES = 2
START_TIMEOUT_S = 60

# What a second machine needs of the first: docs/cluster.md.
SHARED = ["fob.toml", "root.cbor", "code-set.key", "store.witness", "hsm.pin", "root.pin", "demo-owner.jwk"]

HAPROXY = """\
global
  maxconn 4000
  log stderr local0 warning
defaults
  mode http
  timeout connect 1s
  timeout client 30s
  timeout server 30s
  log global
frontend all
  bind 127.0.0.1:{port}
  default_backend nodes
backend nodes
  balance leastconn
  option httpchk GET /readyz
  default-server check inter 200ms rise 1 fall 1 observe layer7 error-limit 5 on-error mark-down
  option redispatch
  retry-on conn-failure empty-response 503
  retries 2
{nodes}
"""


@contextlib.contextmanager
def serving(fob, scratch):
    """Nodes that are ready, behind one address. The folder is that of the last one, whose socket
    operators' commands go to."""
    with contextlib.ExitStack() as up:
        url = up.enter_context(postgres(scratch / "postgres"))
        first = scratch / "node-1"
        once(fob, "init", "--demo", "--dir", first, "--store", url)
        homes = [first] + [copy(first, scratch / f"node-{n}") for n in range(2, NODES + 1)]
        front = free_port()
        public = f"http://127.0.0.1:{front}"
        nodes = []
        with variable("FOB_SERVER_PUBLIC_URL", public):
            for home in homes:
                address = f"127.0.0.1:{free_port()}"
                log = scratch / f"{home.name}.log"
                process = up.enter_context(node(fob, home, address, log))
                nodes.append((home.name, address, process))
        up.enter_context(proxy(scratch, front, nodes))
        ready(public)
        cluster = Server(public, nodes[-1][2], homes[-1], fob)
        cluster.nodes = [(name, f"http://{address}") for name, address, _ in nodes]
        agree(cluster)
        yield cluster
        for name, _, process in nodes:
            if process.poll() is not None:
                raise Failed(f"{name} ended by itself with {process.returncode}")


def shares(cluster):
    """Of each node: its name, whether it is ready, and how many keys it has issued."""
    rows = []
    for name, url in cluster.nodes:
        lines = fetch(f"{url}/metrics")[1].splitlines()
        issued = [line for line in lines if line.startswith("fob_keys_issued_total")]
        keys = sum(float(line.rsplit(" ", 1)[1]) for line in issued)
        rows.append((name, fetch(f"{url}/readyz")[0] == 200, int(keys)))
    return rows


@contextlib.contextmanager
def variable(name, value):
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


# --- PostgreSQL -----------------------------------------------------------------


@contextlib.contextmanager
def postgres(folder):
    """A server in `folder`, reached over a socket there. It refuses to run as root: then it runs as
    `postgres`."""
    folder.mkdir(mode=0o755)
    pathlib.Path(folder.parent).chmod(0o755)
    user = pwd.getpwnam("postgres") if os.getuid() == 0 else None
    ids = {"user": user.pw_uid, "group": user.pw_gid} if user else {}
    if user:
        os.chown(folder, user.pw_uid, user.pw_gid)
    bin_of = sorted(pathlib.Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not bin_of:
        raise Failed("PostgreSQL is not installed")
    programs, data = bin_of[-1].parent, folder / "data"
    words = [programs / "initdb", "-D", data, "-U", "fob", "-A", "trust", "-E", "UTF8", "--locale=C"]
    run(words, cwd="/", **ids)
    settings = "listen_addresses = ''\nfsync = on\nsynchronous_commit = on\nshared_buffers = 512MB\n"
    with open(data / "postgresql.conf", "a") as conf:
        conf.write(settings)
    with open(folder / "log", "wb") as log:
        process = subprocess.Popen(
            [programs / "postgres", "-D", data, "-k", folder],
            cwd="/", stdin=subprocess.DEVNULL, stdout=log, stderr=log, **ids,
        )
    try:
        wait(lambda: quiet([programs / "pg_isready", "-q", "-h", folder, "-U", "fob"]), "PostgreSQL")
        run([programs / "createdb", "-h", folder, "-U", "fob", "fob"])
        yield f"postgresql://fob@{str(folder).replace('/', '%2F')}/fob"
    finally:
        end(process, "SIGINT")


# --- Nodes and the proxy ----------------------------------------------------------


def copy(first, home):
    """A second machine's folder: the same issuer, with a copy of its token."""
    home.mkdir(mode=0o700)
    for name in SHARED:
        if (first / name).is_file():
            shutil.copy2(first / name, home / name)
    shutil.copytree(first / "tokens", home / "tokens")
    conf = (first / "softhsm2.conf").read_text().replace(str(first), str(home))
    (home / "softhsm2.conf").write_text(conf)
    return home


@contextlib.contextmanager
def node(fob, home, address, log_file):
    with open(log_file, "wb") as log:
        process = subprocess.Popen(
            [fob, "serve", "--dir", home, "--listen", address],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log,
        )
    try:
        server.ready_address(process, log_file)
        yield process
    finally:
        end(process, "SIGTERM")


@contextlib.contextmanager
def proxy(scratch, port, nodes):
    lines = [f"  server {name} {address}" for name, address, _ in nodes]
    conf = scratch / "haproxy.cfg"
    conf.write_text(HAPROXY.format(port=port, nodes="\n".join(lines)))
    with open(scratch / "haproxy.log", "wb") as log:
        process = subprocess.Popen(
            [server.tool("haproxy"), "-db", "-f", conf],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log,
        )
    try:
        yield
    finally:
        end(process, "SIGTERM")


def ready(url):
    wait(lambda: fetch(f"{url}/readyz")[0] == 200, "the proxy")


def agree(cluster):
    """Waits until every node that says it is ready knows what another was told: one that was taken
    over notices with its next transaction."""
    token = cluster.token("read")
    knows = lambda url: fetch(f"{url}/v1/authorizations", token)[0] == 200
    out = lambda url: fetch(f"{url}/readyz")[0] != 200
    wait(lambda: all(out(url) or knows(url) for _, url in cluster.nodes), "the cluster")
    ready(cluster.url)


# --- What all of them need --------------------------------------------------------


def fetch(url, token=None):
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    request = urllib.request.Request(url, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as answer:
        return answer.code, ""
    except OSError:
        return 0, ""


def free_port():
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return bound.getsockname()[1]


def wait(holds, what):
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        if holds():
            return
        time.sleep(0.05)
    raise Failed(f"{what} did not become ready")


def quiet(words):
    return subprocess.run(words, capture_output=True, stdin=subprocess.DEVNULL).returncode == 0


def run(words, **how):
    done = subprocess.run(words, capture_output=True, text=True, stdin=subprocess.DEVNULL, **how)
    if done.returncode != 0:
        raise Failed(f"{words[0]} ended with {done.returncode}: {done.stderr[-1000:]}")


def end(process, signal):
    """Ends this very process."""
    if process.poll() is None:
        process.send_signal(getattr(signals, signal))
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
