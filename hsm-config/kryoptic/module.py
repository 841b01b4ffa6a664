"""kryoptic: a software token in Rust. No distribution of ours has it, so it is built first."""

import os
import shutil
import subprocess

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
import common  # noqa: E402

HERE = pathlib.Path(__file__).resolve().parent
LIBRARY = "libkryoptic_pkcs11.so"


class Kryoptic(common.Module):
    name = "kryoptic"
    packages = "opensc gcc make perl libclang1-14"
    programs = ["pkcs11-tool", "cargo", "gcc", "make", "perl"]

    def library(self, folder):
        return os.environ.get("KRYOPTIC_MODULE") or common.find(f"pkcs11/{LIBRARY}") or str(folder / LIBRARY)

    def init_args(self, folder):
        return f"kryoptic_conf={folder}/kryoptic.conf"

    def configure(self, folder):
        conf = folder / "kryoptic.conf"
        if not conf.exists():
            text = (HERE / "kryoptic.conf").read_text()
            conf.write_text(text.replace("/var/lib/fob/kryoptic", str(folder)))
        if not pathlib.Path(self.library(folder)).exists():
            shutil.copy(build(), folder / LIBRARY)

    def environment(self, folder):
        # For other programs than Fob, which is told by init_args.
        return {"KRYOPTIC_CONF": str(folder / "kryoptic.conf")}


def build():
    """Builds the library, in a folder of its own. Returns its path."""
    target = HERE.parents[1] / "target/kryoptic"
    include = common.quiet(["gcc", "-print-file-name=include"], os.environ).strip()
    environment = {
        "BINDGEN_EXTRA_CLANG_ARGS": f"-I{include}",
        **os.environ,
        "CARGO_TARGET_DIR": str(target),
    }
    print("kryoptic: the library is built, which takes minutes the first time", file=sys.stderr)
    cargo = ["cargo", "build", "--release", "--locked", "--quiet"]
    if subprocess.run([*cargo, "--manifest-path", HERE / "module/Cargo.toml"], env=environment).returncode:
        raise common.Failed("the library cannot be built")
    return target / "release" / LIBRARY


MODULE = Kryoptic()
