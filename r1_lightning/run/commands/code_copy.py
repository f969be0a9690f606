"""A copy of the running code, for a job that may start tomorrow: what is edited in a checkout meanwhile does not reach it.

    FOLDER/<digits of the content>/r1_lightning/    the package     commit.txt    the commit it was copied at
                                   configs/         of a checkout   r1.py         starts `r1` from this copy

A folder of option files that the user named (`--config-dir`) is copied in the same way. Jobs of the same content share one copy,
and no copy is changed. Code of the user's own in the working directory (`my_rewards.py`) is not copied: the job starts in that
directory and finds it there.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import r1_lightning
from r1_lightning.artefacts import lineage
from r1_lightning.artefacts.files import output_folder
from r1_lightning.run.commands.sbatch import PROGRAM
from r1_lightning.types.errors import InvalidInput

DIGITS = 12
OPTION_FILE = ".yaml"  # all that Hydra reads
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
    return _copied(folder, files, {lineage.COPIED: f"{commit}\n", PROGRAM: START}, commit)


def copy_configs(folder: Path, source: Path, but: Path) -> Path:
    """Copy the option files below `source` (`--config-dir`), as `copy_code` copies code; returns the copy.

    What lies below `but`, the root of the runs, is left out: each run there holds a configuration, too. `InvalidInput` if a file
    cannot be read or written.
    """
    left_out = but if but != source and but.is_relative_to(source) else None
    try:
        found = [path for path in _files(source) if path.suffix == OPTION_FILE]
        files = {
            str(path.relative_to(source)): path
            for path in found
            if left_out is None or not path.is_relative_to(left_out)
        }
        return _copied(folder, files, {}, "configs")
    except OSError as error:
        raise InvalidInput(f"--config-dir={str(source)!r} is not allowed: it cannot be read ({error})") from error


def _copied(folder: Path, files: Mapping[str, Path], texts: Mapping[str, str], first: str) -> Path:
    """Copy `files` by name, and write `texts`, into a folder below `folder` that is named by `first` and the files' content."""
    digest = hashlib.sha256(first.encode())
    for name in sorted(files):
        digest.update(f"{name}\0".encode() + hashlib.sha256(files[name].read_bytes()).digest())
    copy = folder / digest.hexdigest()[:DIGITS]
    if not copy.is_dir():
        with output_folder(folder):
            _write(copy, files, texts)
    return copy


def _files(source: Path) -> Iterator[Path]:
    for path in source.rglob("*"):
        if path.is_file() and "__pycache__" not in path.parts:
            yield path


def _write(copy: Path, files: Mapping[str, Path], texts: Mapping[str, str]) -> None:
    copy.parent.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(dir=copy.parent, prefix=".copying-"))
    try:
        for name, path in files.items():
            (made / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, made / name)
        for name, text in texts.items():
            (made / name).write_text(text, encoding="utf-8")
        made.chmod(0o755)
        os.rename(made, copy)
    except OSError:
        shutil.rmtree(made, ignore_errors=True)
        if not copy.is_dir():  # else another submission has made the same copy meanwhile
            raise
