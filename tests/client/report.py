"""Counts and prints checks."""

import sys
import traceback
from contextlib import contextmanager

from fobclient import Refused


class Report:
    """Counts and prints checks."""

    def __init__(self):
        self.passed = self.failed = 0

    def check(self, name, good, detail=""):
        if good:
            self.passed += 1
            print(f"ok    {name}")
        else:
            self.failed += 1
            print(f"FAIL  {name}" + (f": {detail}" if detail != "" else ""))
        sys.stdout.flush()
        return bool(good)

    def equal(self, name, found, wanted):
        return self.check(name, same(found, wanted), f"{found!r} instead of {wanted!r}")

    def refused(self, name, answer, wanted):
        """`wanted` maps acceptable codes to their status, such as
        {"not_found": 404}."""
        code = answer.code()
        self.check(
            f"{name}: refused as {' or '.join(wanted)}",
            code in wanted and wanted[code] == answer.status,
            f"{answer.status} {code} {answer.body[:200]!r}",
        )

    def refuses(self, name, call, *args):
        """`call` must raise Refused, and nothing else."""
        try:
            call(*args)
        except Refused:
            return self.check(name, True)
        except Exception as cause:
            return self.check(name, False, f"broke with {cause!r}")
        return self.check(name, False, "accepted")

    @contextmanager
    def section(self, title):
        """A part of the walk. What breaks it is one failure; the next part
        runs all the same."""
        print(f"# {title}")
        try:
            yield
        except Exception as cause:
            where = traceback.extract_tb(cause.__traceback__)[-1]
            self.check(title, False, f"cut short by {cause!r} at {where.name}:{where.lineno}")


def same(found, wanted):
    """Equality in which true is not 1 and 1 is not 1.0."""
    if type(found) is not type(wanted):
        return False
    if isinstance(found, dict):
        return found.keys() == wanted.keys() and all(same(found[k], wanted[k]) for k in found)
    if isinstance(found, (list, tuple)):
        return len(found) == len(wanted) and all(map(same, found, wanted))
    return found == wanted
