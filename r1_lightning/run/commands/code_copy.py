"""A copy of the running code, for a job that may start tomorrow: what is edited in a checkout meanwhile does not reach it.

    FOLDER/<digits of the content>/r1_lightning/    the package     commit.txt    the commit it was copied at
                                   configs/         of a checkout   r1.py         starts `r1` from this copy

Jobs of the same code share one copy, and no copy is changed. Code of the user's own in the working directory (`my_rewards.py`) is
not copied: the job starts in that directory and finds it there.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import r1_lightning
from r1_lightning.artefacts import lineage
from r1_lightning.artefacts.files import output_folder
from r1_lightning.run.commands.sbatch import PROGRAM

DIGITS = 12
START = """\
\"\"\"`r1` from the copied code beside this file.\"\"\"

import sys

from r1_lightning.__main__ import main

sys.argv[0] = "r1"
sys.exit(main())
"""


def copy_code(folder: Path) -> Path:
    """Copy the running package below `folder` unless that content is there already; returns the copy."""
    package = Path(r1_lightning.__file__).resolve().parent
    sources = {package.name: package}
    if not (package / "configs").is_dir():  # a checkout has them beside the package
        sources["configs"] = package.parent / "configs"
    files = {f"{name}/{path.relative_to(source)}": path for name, source in sources.items() for path in _files(source)}
    commit = lineage.commit()
    digest = hashlib.sha256(commit.encode())
    for name in sorted(files):
        digest.update(f"{name}\0".encode() + hashlib.sha256(files[name].read_bytes()).digest())
    copy = folder / digest.hexdigest()[:DIGITS]
    if not copy.is_dir():
        with output_folder(folder):
            _write(copy, files, commit)
    return copy


def _files(source: Path) -> Iterator[Path]:
    for path in source.rglob("*"):
        if path.is_file() and "__pycache__" not in path.parts:
            yield path


def _write(copy: Path, files: dict[str, Path], commit: str) -> None:
    copy.parent.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(dir=copy.parent, prefix=".copying-"))
    try:
        for name, path in files.items():
            (made / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, made / name)
        (made / lineage.COPIED).write_text(f"{commit}\n", encoding="utf-8")
        (made / PROGRAM).write_text(START, encoding="utf-8")
        made.chmod(0o755)
        os.rename(made, copy)
    except OSError:
        shutil.rmtree(made, ignore_errors=True)
        if not copy.is_dir():  # else another submission has made the same copy meanwhile
            raise
