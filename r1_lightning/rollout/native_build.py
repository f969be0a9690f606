"""Builds and loads the native decoder (`native/decode.cpp`), once per machine: at first use, as torch.compile does.

The library lies in the user's own cache folder, under a name that holds a digest of everything that decides its content: the
source, the flags, the compiler and its version, and what this processor can do, because `-march=native` makes code for that
processor alone. So another machine that shares the folder builds its own, and nothing stale is ever loaded. It is written beside
its place and renamed, so that processes that build at the same time do not meet.

A library is code. So the folder must belong to this user, and nobody else may be able to write there: no place under a shared
temporary folder, which others could have filled before us.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
import shutil
import stat
import subprocess
import tempfile
from pathlib import Path

from r1_lightning.types.errors import InvalidInput

SOURCE = Path(__file__).parent / "native" / "decode.cpp"
# No -ffast-math: a NaN must stay one. Traps and errno say nothing here, and forbid vectors.
FLAGS = ("-O3", "-std=c++17", "-shared", "-fPIC", "-pthread", "-fopenmp-simd", "-fno-math-errno", "-fno-trapping-math")
FOR_THIS_PROCESSOR = "-march=native"
BUILD_S = 180.0  # a build takes about 5 s on an idle core
CACHE = "XDG_CACHE_HOME"


class NotBuilt(InvalidInput):
    """The native decoder cannot be had on this machine; the text says why."""


def compiler() -> str:
    """Return the path of the C++ compiler: `CXX`, g++ or clang++. `NotBuilt` if there is none."""
    for name in (os.environ.get("CXX", "g++"), "g++", "clang++"):
        if found := shutil.which(name):
            return found
    raise NotBuilt("there is no C++ compiler (g++ or clang++)")


def processor() -> str:
    """Return what tells processors apart for a compiler: model and instruction sets, as far as the system says."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").split("\n\n", 1)[0].splitlines()
    except OSError:
        lines = []
    told = [
        line for line in lines if line.startswith(("vendor_id", "cpu family", "model", "flags", "Features", "CPU "))
    ]
    return "\n".join([platform.machine(), platform.processor(), *told])


def cache_folder() -> Path:
    """Return the folder of built libraries, made if it is missing. `NotBuilt` if others could write there."""
    base = os.environ.get(CACHE, "")
    folder = (Path(base) if os.path.isabs(base) else Path.home() / ".cache") / "r1_lightning" / "native"
    try:
        folder.parent.parent.mkdir(parents=True, exist_ok=True)
        for own in (folder.parent, folder):  # who may write to the upper one could exchange the lower
            own.mkdir(mode=0o700, exist_ok=True)
            _require_own(own)
    except (OSError, RuntimeError) as error:  # RuntimeError: nobody's home
        raise NotBuilt(f"the folder of built libraries cannot be used: {error}") from error
    return folder


def _require_own(path: Path) -> None:
    """`NotBuilt` if `path` is another user's or a link, or if others may write to it."""
    status = path.lstat()
    is_own = status.st_uid == os.getuid() and not stat.S_ISLNK(status.st_mode)
    if not is_own or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise NotBuilt(f"{path} must be this user's, and nobody else's to write to")


def library_path(folder: Path, command: tuple[str, ...]) -> Path:
    """Return where the library lies that `command` (compiler and flags) builds on this machine."""
    version = subprocess.run([command[0], "--version"], capture_output=True, timeout=BUILD_S, check=False).stdout
    parts = (SOURCE.read_bytes(), version, "\0".join(command).encode(), processor().encode())
    digest = hashlib.sha256(b"\0".join(parts)).hexdigest()
    return folder / f"decode-{digest[:32]}.so"


def build(path: Path, command: tuple[str, ...]) -> None:
    """Compile the source to `path`. `NotBuilt`, with the compiler's last line, if it fails."""
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        made = Path(folder) / path.name
        try:
            ran = subprocess.run(
                [*command, "-o", str(made), str(SOURCE)], capture_output=True, text=True, timeout=BUILD_S, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise NotBuilt(f"{command[0]} did not end well: {error}") from error
        if ran.returncode:
            said = next((line for line in ran.stderr.splitlines() if "error" in line), f"exit code {ran.returncode}")
            raise NotBuilt(f"{command[0]} failed: {said}")
        made.chmod(0o700)
        os.replace(made, path)


@functools.cache
def library() -> ctypes.CDLL:
    """Return the native decoder for this processor, built if it is not there. `NotBuilt` if that is not possible."""
    cxx, folder = compiler(), cache_folder()
    failures = []
    for command in ((cxx, *FLAGS, FOR_THIS_PROCESSOR), (cxx, *FLAGS)):  # some compilers know no -march=native
        try:
            path = library_path(folder, command)
            if not path.exists():
                build(path, command)
            _require_own(path)
            return _loaded(path)
        except (NotBuilt, OSError, subprocess.TimeoutExpired) as error:
            failures.append(str(error))
    raise NotBuilt(failures[0])


def _loaded(path: Path) -> ctypes.CDLL:
    loaded = ctypes.CDLL(str(path))
    for function in (loaded.lanes, loaded.decode_step):
        function.restype = ctypes.c_int64
    loaded.decode_step.argtypes = [ctypes.c_void_p, ctypes.c_void_p]
    return loaded
