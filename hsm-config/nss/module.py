"""NSS softokn: each token is a database, named in what the library is initialised with."""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
import common  # noqa: E402


class Nss(common.Module):
    name = "nss"
    packages = "libnss3 libnss3-tools"
    programs = ["certutil"]
    libraries = ["libsoftokn3.so"]

    # Any numbers from 4 on do; the first two slots are those of an NSS without such a list.
    slots = {common.ISSUER: 0x10, common.ROOT: 0x11}

    def init_args(self, folder):
        token = "0x%x=[configdir='sql:%s' tokenDescription='%s']"
        tokens = (token % (slot, folder / label, label) for label, slot in self.slots.items())
        return f"tokens=<{' '.join(tokens)}>"

    def make_token(self, folder, label, pins, environment):
        database = folder / label
        database.mkdir(mode=0o700)
        pin_file = next(path for path in folder.glob("*.pin") if path.read_text().strip() == pins["user"])
        common.quiet(["certutil", "-N", "-d", f"sql:{database}", "-f", str(pin_file)], environment)
        # All of them have the serial number 0000000000000000.
        return None


MODULE = Nss()
