"""Installed packages that a sandbox may see: none, unless a person names them.

Verdicts must not depend on what a machine has installed, so an answer sees the standard library and nothing else. Where problems
are written for more (contests that allow NumPy), a person names packages, and their folders are bound into the sandbox, read-only,
below `/packages`: the folder of that name in site-packages, and beside it `NAME.libs`, where wheels keep the shared libraries they
bring along. What such a package needs of other packages has to be named, too.

An answer that mentions a package finds it imported, once for all of its cases; NumPy's random numbers begin alike, as Python's do.
Runs in both processes: `find` outside, the rest within. Standard library only.
"""

from __future__ import annotations

import importlib
import os
import re
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress

FOLDER = "/packages"
# Threads of their own would count against the answer's, and would be gone after a fork.
SINGLE_THREADED = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")


def find(names: Iterable[str]) -> dict[str, str]:
    """Folder name -> where it lies, of each package and of its libraries. `LookupError` with a reason for a name that is none."""
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
    """Where there are no walls: a folder that holds links to `packages` and nothing else."""
    place = os.path.join(folder, "packages")
    os.mkdir(place)
    for name, path in packages.items():
        os.symlink(path, os.path.join(place, name))
    return place


def load(packages: Mapping[str, str], *texts: str) -> None:
    """Import what the texts of an answer mention. What fails to import fails again in the answer, which says so."""
    for name in packages:
        if name.isidentifier() and any(re.search(rf"\b{name}\b", text) for text in texts):
            with suppress(Exception):
                importlib.import_module(name)


def begin_alike() -> None:
    """Give NumPy's global random numbers the beginning that they have in every case."""
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        numpy.random.seed(0)
