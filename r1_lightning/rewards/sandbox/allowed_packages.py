"""Installed packages inside the sandbox: none, unless the configuration names them.

Verdicts must not depend on what a machine has installed, so an answer sees the standard library only. For problems that need more
(contests that allow NumPy), the user names packages, and the sandbox bind-mounts their folders read-only below `/packages`: the
folder of that name in site-packages, and `NAME.libs` next to it, where wheels keep their bundled shared libraries. Dependencies
of a package must be named, too.

If an answer mentions a package, it is imported once for all of the answer's cases; NumPy's random numbers start from a fixed
seed, as Python's do. `find` runs outside the sandbox, the other functions inside. Standard library only.
"""

from __future__ import annotations

import importlib
import os
import re
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress

FOLDER = "/packages"
# Threads of these libraries would count towards the answer's limit, and would not survive a fork.
SINGLE_THREADED = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")


def find(names: Iterable[str]) -> dict[str, str]:
    """Map each package's folders (its own and its libraries') to their paths. `LookupError` for a name that is no package."""
    places = [path for path in sys.path if os.path.basename(path) in ("site-packages", "dist-packages")]
    found: dict[str, str] = {}
    for name in names:
        if not isinstance(name, str) or not name.isidentifier():
            raise LookupError(f"{name!r} is no name of a package")
        place = next((path for path in places if os.path.isfile(os.path.join(path, name, "__init__.py"))), None)
        if place is None:
            raise LookupError(f"{name!r} is no folder of a package in site-packages")
        for folder in (name, f"{name}.libs"):
            if os.path.isdir(os.path.join(place, folder)):
                found[folder] = os.path.realpath(os.path.join(place, folder))
    return found


def link(packages: Mapping[str, str], folder: str) -> str:
    """Without isolation: make a folder that contains only links to `packages`."""
    place = os.path.join(folder, "packages")
    os.mkdir(place)
    for name, path in packages.items():
        os.symlink(path, os.path.join(place, name))
    return place


def load(packages: Mapping[str, str], *texts: str) -> None:
    """Import the packages that the texts of an answer mention; a failing import fails again in the answer, with its error."""
    for name in packages:
        if name.isidentifier() and any(re.search(rf"\b{name}\b", text) for text in texts):
            with suppress(Exception):
                importlib.import_module(name)


def begin_alike() -> None:
    """Reset NumPy's global random generator to the state that it has at the start of every case."""
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        numpy.random.seed(0)
