"""Compiles `hooks.cpp` once for this torch, and starts Python with it preloaded."""

from __future__ import annotations

import functools
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import torch

from tests.support.commands import environment

HOOKS = Path(__file__).with_name("hooks.cpp")
TORCH = Path(torch.__file__).parent


@functools.cache
def hooks() -> Path:
    """The compiled library, kept among temporary files by a hash of its source and torch's version; skips without g++."""
    compiler = shutil.which("g++") or pytest.skip("the pretend GPU needs g++, which is not installed")
    key = hashlib.sha256(HOOKS.read_bytes() + torch.__version__.encode() + sys.version.encode()).hexdigest()[:16]
    made = Path(tempfile.gettempdir()) / f"r1-pretend-cuda-{os.getuid()}" / f"hooks-{key}.so"
    if not made.is_file():
        made.parent.mkdir(mode=0o700, exist_ok=True)
        own = made.with_suffix(f".{os.getpid()}")
        abi = int(torch._C._GLIBCXX_USE_CXX11_ABI)
        folders = [f"-I{TORCH}/include", f"-I{TORCH}/include/torch/csrc/api/include", f"-L{TORCH}/lib"]
        options = ["-shared", "-fPIC", "-std=c++20", "-O0", "-w", f"-D_GLIBCXX_USE_CXX11_ABI={abi}"]
        command = [compiler, *options, str(HOOKS), *folders, "-lc10", "-ltorch_cpu", "-o", str(own)]
        subprocess.run(command, check=True, capture_output=True, timeout=300)
        own.replace(made)  # whole or not at all: another test process may look for it now
    return made


def start(module: str, *arguments: str, cwd: Path, timeout_s: float = 300) -> subprocess.CompletedProcess[str]:
    """Run `python -m module` with the hooks preloaded; its output is captured."""
    preloaded = {"LD_PRELOAD": str(hooks()), "LD_LIBRARY_PATH": str(TORCH / "lib")}
    command = [sys.executable, "-m", module, *arguments]
    return subprocess.run(
        command, cwd=cwd, env={**environment(), **preloaded}, text=True, capture_output=True, timeout=timeout_s
    )
