"""SoftHSM 2: tokens are folders of files, found by SOFTHSM2_CONF."""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
import common  # noqa: E402


class SoftHsm(common.Module):
    name = "softhsm"
    packages = "softhsm2 opensc"
    libraries = ["softhsm/libsofthsm2.so"]

    def configure(self, folder):
        tokens, conf = folder / "tokens", folder / "softhsm2.conf"
        tokens.mkdir(mode=0o700, exist_ok=True)
        if not conf.exists():
            text = pathlib.Path(__file__).with_name("softhsm2.conf").read_text()
            conf.write_text(text.replace("/var/lib/fob/softhsm/tokens", str(tokens)))

    def environment(self, folder):
        return {"SOFTHSM2_CONF": str(folder / "softhsm2.conf")}


MODULE = SoftHsm()
