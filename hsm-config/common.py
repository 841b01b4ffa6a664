"""What the scripts of all modules share: `setup DIR` and `run DIR -- COMMAND...`.

A module's folder has `module.py` with a Module of its own. What is the same for all of them is
here: the two commands, PINs, tokens, processes that end with the command.
"""

import contextlib
import glob
import os
import pathlib
import re
import secrets
import shutil
import signal
import subprocess
import sys
import time

ISSUER, ROOT = "fob-issuer", "fob-root"
START_TIMEOUT_S = 20
STOP_TIMEOUT_S = 10
NOT_RUN = 125


class Failed(Exception):
    """Something is missing or did not work; the message says what to do."""


class Module:
    """One kind of module. A folder's own class says what differs."""

    # The name of the folder.
    name = None
    # Debian's packages, programs, and files of libraries that must be there.
    packages = ""
    programs = ["pkcs11-tool"]
    libraries = []

    def library(self, folder):
        """The path of the PKCS#11 library, as Fob is to load it."""
        return find(self.libraries[0])

    def init_args(self, folder):
        """What the library has to be told when it is initialised."""
        return None

    def configure(self, folder):
        """Writes the module's own configuration."""

    def environment(self, folder):
        """The variables that every process needs that loads the library."""
        return {}

    @contextlib.contextmanager
    def up(self, folder):
        """The module, ready for use; gives the environment to use it in."""
        yield {**os.environ, **self.environment(folder)}

    def make_token(self, folder, label, pins, environment):
        """Makes a token of that label, with these PINs. Returns its serial number."""
        return init_token(self.library(folder), label, pins, environment)

    def check(self):
        """Makes sure that everything is there."""
        missing = [name for name in self.programs if not shutil.which(name)]
        missing += [name for name in self.libraries if not find(name)]
        if missing:
            what = f"missing: {' '.join(missing)}"
            raise Failed(f"{what}; on Debian: scripts/install {self.packages}")


# ---- setup DIR -----------------------------------------------------------------------------


def setup(module):
    """The command `setup DIR`."""
    if len(sys.argv) != 2:
        return usage("setup DIR", "Makes a token for the issuer and one for the root in DIR.")
    folder = pathlib.Path(sys.argv[1]).resolve()
    return command(module, lambda: print(make(module, folder), end=""))


def make(module, folder):
    """Makes both tokens. Returns the sections of a fob.toml that name them."""
    sections = folder / "hsm.toml"
    if sections.exists():
        raise Failed(f"{folder} has tokens already, see {sections}")
    module.check()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    module.configure(folder)
    arguments, text = ["--module", module.library(folder)], ""
    if module.init_args(folder):
        # With a sign: what begins with a hyphen would be taken for an option.
        arguments.append(f"--init-args={module.init_args(folder)}")
    with module.up(folder) as environment:
        for section, name, label in [("hsm", "issuer", ISSUER), ("root", "root", ROOT)]:
            pins = {"user": pin(folder / f"{name}.pin"), "so": pin(folder / f"{name}-so.pin")}
            serial = module.make_token(folder, label, pins, environment)
            pin_file = str(folder / f"{name}.pin")
            keys = {
                "module": module.library(folder),
                "init_args": module.init_args(folder),
                "label": label,
                "serial": serial,
                "pin_file": pin_file,
            }
            lines = [f"{key} = {quoted(value)}\n" for key, value in keys.items() if value]
            text += f"[{section}]\n{''.join(lines)}\n"
            arguments += [f"--{section}-label", label, f"--{section}-pin-file", pin_file]
    (folder / "init-args").write_text("".join(f"{one}\n" for one in arguments))
    run = pathlib.Path(sys.argv[0]).with_name("run")
    head = (
        f"# Two tokens of {module.name}, for an issuer's fob.toml. `fob init` takes them with\n"
        f"#   {run} {folder} -- xargs -d '\\n' -a {folder}/init-args fob init --dir D\n"
        f"# and every later command of Fob's is run the same way: {run} {folder} -- fob ...\n\n"
    )
    sections.write_text(head + text)
    return head + text


def pin(path):
    """Makes up a PIN and keeps it in a file of its owner's."""
    digits = "".join(secrets.choice("abcdefghijkmnpqrstuvwxyz23456789") for _ in range(24))
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(f"{digits}\n")
    return digits


def init_token(library, label, pins, environment):
    """Makes a token through PKCS#11, in the first slot that is free."""
    # By variables: a command line can be read by everybody.
    environment = {**environment, "FOB_SO_PIN": pins["so"], "FOB_USER_PIN": pins["user"]}
    tool = ["pkcs11-tool", "--module", library]
    so = ["--so-pin", "env:FOB_SO_PIN"]
    free = re.search(r"^Slot (\d+) [^\n]*\n\s+token state:\s+uninitialized", slots(tool, environment), re.M)
    if not free:
        raise Failed(f"{library} has no slot with a token to initialise")
    quiet([*tool, "--slot-index", free[1], "--init-token", "--label", label, *so], environment)
    # Its slot may have another number by now.
    login = ["--login", "--login-type", "so", *so]
    quiet([*tool, "--token-label", label, *login, "--init-pin", "--new-pin", "env:FOB_USER_PIN"], environment)
    own = slots(tool, environment).split(f"token label        : {label}\n", 1)[1]
    return re.search(r"serial num\s+:\s+(\S+)", own)[1]


def slots(tool, environment):
    """What pkcs11-tool says of all slots."""
    return quiet([*tool, "--list-slots"], environment)


def quoted(text):
    """As TOML has it."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


# ---- run DIR -- COMMAND... -----------------------------------------------------------------


def run(module):
    """The command `run DIR -- COMMAND...`."""
    if len(sys.argv) < 4 or sys.argv[2] != "--":
        return usage("run DIR -- COMMAND...", "Runs a command that can use the tokens in DIR.")
    folder = pathlib.Path(sys.argv[1]).resolve()

    def within():
        module.check()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        module.configure(folder)
        with module.up(folder) as environment:
            return attended(sys.argv[3:], environment)

    return command(module, within)


def attended(argv, environment):
    """Runs a command to its end; signals are handed on to it."""
    try:
        process = start(argv, env=environment)
    except OSError as cause:
        raise Failed(f"{argv[0]}: {cause.strerror}") from cause
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda number, _frame: process.send_signal(number))
    code = process.wait()
    return code if code >= 0 else 128 - code


def command(module, work):
    """Does the work of a command, and says what went wrong. Returns the exit code."""
    # Daemons live there, and not every user's path has the place.
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    # These end what runs here in order, the command first.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, interrupted)
    try:
        return work() or 0
    except Failed as cause:
        print(f"{module.name}: {cause}", file=sys.stderr)
        return NOT_RUN


def interrupted(number, _frame):
    raise Failed(f"ended by signal {number}")


def usage(synopsis, what):
    folder = pathlib.Path(sys.argv[0]).parent
    print(f"{folder}/{synopsis}\n\n{what} {folder}/README.md says more.", file=sys.stderr)
    return 2


# ---- libraries and processes ---------------------------------------------------------------


def find(name):
    """The path of a library, wherever distributions put it."""
    places = ["/usr/lib/*-linux-gnu*", "/usr/lib64", "/usr/lib", "/usr/local/lib", "/usr/local/lib64"]
    found = (path for place in places for path in sorted(glob.glob(f"{place}/{name}")))
    return next(found, None)


def quiet(argv, environment):
    """Runs a command to its end and returns what it printed."""
    try:
        done = subprocess.run(
            argv,
            env=environment,
            timeout=START_TIMEOUT_S,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
    except subprocess.TimeoutExpired as cause:
        raise Failed(f"{argv[0]} does not end") from cause
    if done.returncode:
        raise Failed(f"{argv[0]}: {(done.stderr or done.stdout).strip()}")
    return done.stdout


def start(argv, **options):
    """Starts a process that does not outlive this one, however this one ends."""
    return subprocess.Popen(["setpriv", "--pdeathsig", "TERM", *argv], **options)


def daemon(ends, log, *argv, **options):
    """Starts a process in the background, which ends with `ends`; its output goes to a file."""
    with open(log, "wb") as file:
        # In a session of its own, so that Ctrl-C reaches the command alone.
        process = start(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            **options,
        )
    ends.callback(stop, process)
    return process


def stop(process):
    process.terminate()
    try:
        process.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def answers(argv, environment):
    """Does this command end well? What it prints is dropped."""
    try:
        quiet(argv, environment)
    except Failed:
        return False
    return True


def until(holds, log):
    """Waits until `holds` does."""
    end = time.monotonic() + START_TIMEOUT_S
    while not holds():
        if time.monotonic() > end:
            raise Failed(f"no answer within {START_TIMEOUT_S} s; {log} may say why")
        time.sleep(0.05)
