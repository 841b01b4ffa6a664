"""A TPM 2.0 in software that serves as a PKCS#11 module: swtpm, and tpm2-abrmd before it on a
D-Bus of its own, all of which end with the command."""

import contextlib
import fcntl
import os
import socket
import tempfile

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
import common  # noqa: E402
# Another process may take a port between our look and swtpm's.
PORT_ATTEMPTS = 5


class Tpm2(common.Module):
    name = "tpm2-pkcs11"
    packages = (
        "swtpm tpm2-abrmd tpm2-tools libtss2-tcti-tabrmd0 libtpm2-pkcs11-1 dbus-daemon opensc"
    )
    programs = ["swtpm", "tpm2-abrmd", "dbus-daemon", "tpm2_getrandom", "setpriv", "pkcs11-tool"]
    libraries = [
        "libtpm2_pkcs11.so.1",
        "libtss2-tcti-swtpm.so.0",
        "libtss2-tcti-tabrmd.so.0",
    ]

    @contextlib.contextmanager
    def up(self, folder):
        for part in (folder / "tpm", folder / "store"):
            part.mkdir(mode=0o700, exist_ok=True)
        with contextlib.ExitStack() as ends:
            lock(ends, folder)
            # Here, because a socket's path must be short and the folder's may be long.
            sockets = ends.enter_context(tempfile.TemporaryDirectory(prefix="fob-tpm-"))
            bus, log = pathlib.Path(sockets) / "bus", folder / "dbus-daemon.log"
            address = f"unix:path={bus}"
            bus_daemon = ["dbus-daemon", "--session", "--nofork", f"--address={address}"]
            common.daemon(ends, log, *bus_daemon)
            common.until(bus.exists, log)
            broker = "tabrmd:bus_type=session"
            environment = {
                **os.environ,
                "DBUS_SESSION_BUS_ADDRESS": address,
                "TPM2_PKCS11_STORE": str(folder / "store"),
                "TPM2_PKCS11_TCTI": broker,
                "TPM2_PKCS11_MODULE": self.library(folder),
            }
            tcti, log = tpm(ends, folder), folder / "tpm2-abrmd.log"
            # The library keeps every key loaded that was used, in one connection.
            abrmd = ["tpm2-abrmd", "--session", "--allow-root", "--max-transients", "100"]
            abrmd += ["--tcti", tcti]
            common.daemon(ends, log, *abrmd, env=environment)
            random = ["tpm2_getrandom", "--tcti", broker, "--hex", "1"]
            common.until(lambda: common.answers(random, environment), log)
            yield environment


def lock(ends, folder):
    """Makes sure that nobody else uses the folder until `ends` does."""
    file = ends.enter_context(open(folder / "lock", "w"))
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as cause:
        raise common.Failed(f"another run has {folder} open") from cause


def tpm(ends, folder):
    """Starts the TPM. Returns how to reach it."""
    log = folder / "swtpm.log"
    for _ in range(PORT_ATTEMPTS):
        port = free_ports()
        tcti = f"swtpm:host=127.0.0.1,port={port}"
        process = common.daemon(
            ends,
            log,
            "swtpm",
            "socket",
            "--tpm2",
            "--tpmstate",
            f"dir={folder / 'tpm'},mode=0600",
            "--server",
            f"type=tcp,port={port},bindaddr=127.0.0.1",
            "--ctrl",
            f"type=tcp,port={port + 1},bindaddr=127.0.0.1",
            "--flags",
            "not-need-init,startup-clear",
        )
        # A TPM that went without an orderly shutdown counts that as a wrong PIN; after three
        # it would refuse every key. This one is for trials, so whoever starts it takes them back.
        clear = ["tpm2_dictionarylockout", "--clear-lockout", "--tcti", tcti]
        common.until(lambda: process.poll() is not None or common.answers(clear, os.environ), log)
        if process.poll() is None:
            ends.callback(common.answers, ["tpm2_shutdown", "--clear", "--tcti", tcti], os.environ)
            return tcti
        if "in use" not in log.read_text(errors="replace"):
            break
    raise common.Failed(f"swtpm does not start; {log} says why")


def free_ports():
    """The first of two neighbouring ports that nobody listens on: the library that talks to
    swtpm expects its control channel next to the other one."""
    while True:
        with socket.socket() as first, socket.socket() as second:
            first.bind(("127.0.0.1", 0))
            port = first.getsockname()[1]
            with contextlib.suppress(OSError, OverflowError):
                second.bind(("127.0.0.1", port + 1))
                return port


MODULE = Tpm2()
