# mypy: ignore-errors
"""`seahaven-stripe-world` on a Python before the one it was written for; in its own environment.

    python stripe_world_server.py its own arguments

Two things of Python 3.14 are in its source, both are put in older words while its modules are
loaded (no file is changed): `except A, B:` without parentheses, and annotations that are not
evaluated.
"""

import __future__

import importlib.abc
import importlib.machinery
import re
import sys

PACKAGES = ("seahaven", "seahaven_stripe_world")
UNPARENTHESISED = re.compile(rb"^([ \t]*except )([\w.]+(?:, *[\w.]+)+):", re.MULTILINE)


class Loader(importlib.machinery.SourceFileLoader):
    def source_to_code(self, data, path, *, _optimize=-1):
        source = UNPARENTHESISED.sub(rb"\1(\2):", data)
        flags = __future__.annotations.compiler_flag
        return compile(source, path, "exec", flags, dont_inherit=True, optimize=_optimize)


class Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.partition(".")[0] not in PACKAGES:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is not None and isinstance(spec.loader, importlib.machinery.SourceFileLoader):
            spec.loader = Loader(spec.loader.name, spec.loader.path)
        return spec


if sys.version_info < (3, 14):
    sys.meta_path.insert(0, Finder())

from seahaven.http import main  # noqa: E402
from seahaven_stripe_world import world  # noqa: E402
from seahaven_stripe_world.http_api import handle  # noqa: E402

if __name__ == "__main__":
    sys.exit(main(world, handle))
