"""SoftHSM behind p11-kit: another process has the library, and calls go over a socket."""

import contextlib
import os
import tempfile

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
import common  # noqa: E402


class P11Kit(common.Module):
    name = "p11-kit"
    packages = "p11-kit p11-kit-modules softhsm2 opensc"
    programs = ["p11-kit", "pkcs11-tool"]
    libraries = ["pkcs11/p11-kit-client.so", "softhsm/libsofthsm2.so"]

    def configure(self, folder):
        tokens, conf = folder / "tokens", folder / "softhsm2.conf"
        tokens.mkdir(mode=0o700, exist_ok=True)
        if not conf.exists():
            text = (pathlib.Path(__file__).parents[1] / "softhsm/softhsm2.conf").read_text()
            conf.write_text(text.replace("/var/lib/fob/softhsm/tokens", str(tokens)))

    @contextlib.contextmanager
    def up(self, folder):
        with contextlib.ExitStack() as ends:
            # Here, because a socket's path must be short and the folder's may be long.
            sockets = ends.enter_context(tempfile.TemporaryDirectory(prefix="fob-p11-"))
            socket = pathlib.Path(sockets) / "socket"
            log = folder / "p11-kit.log"
            serve = str(pathlib.Path(__file__).with_name("serve"))
            far = {**os.environ, "SOFTHSM2_CONF": str(folder / "softhsm2.conf")}
            common.daemon(ends, log, serve, str(socket), env=far)
            common.until(socket.exists, log)
            yield {**os.environ, "P11_KIT_SERVER_ADDRESS": f"unix:path={socket}"}

    def make_token(self, folder, label, pins, environment):
        # At the far end: what is made there is seen here.
        far = {**os.environ, "SOFTHSM2_CONF": str(folder / "softhsm2.conf")}
        return common.init_token(common.find(self.libraries[1]), label, pins, far)


MODULE = P11Kit()
