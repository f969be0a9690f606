"""An artefact's lineage: its seed, the commit and package versions that made it, and its input artefacts.

`r1 lineage runs/grpo-...` prints the tree. Nothing here decides anything: the fingerprint says what an
artefact is, the lineage says how it came to be.
"""

from __future__ import annotations

import platform
import re
import subprocess
from importlib import metadata
from pathlib import Path

from r1_lightning import __version__
from r1_lightning.artefacts.fingerprint import SHORT_DIGITS
from r1_lightning.artefacts.hf_folder import KIND
from r1_lightning.artefacts.store import CONFIG, Artefact, is_complete, open_artefact

HERE = Path(__file__).resolve().parent
PACKAGES = ("torch", "lightning", "safetensors", "tokenizers", "transformers", "hydra-core", "omegaconf")
SEED = re.compile(r"^seed: (\d+)$", re.MULTILINE)  # the top-level key of config.yaml, not a nested one
COPIED = "commit.txt"  # beside a copy of the package that a batch job runs: the commit of the code that was copied
GIT_TIMEOUT_S = 20  # a network file system can be slow; a run must not wait for ever for its commit


def commit(folder: Path = HERE) -> str:
    """The commit of the checkout that holds `folder`, with "-dirty" if tracked files were changed.

    Outside git, also where an installed package merely lies below somebody else's checkout: the release ("v0.1.0") of an
    installed package, "unknown" for source that may have been edited. A copy for a batch job says what it was copied from.
    """
    tracked = _git(folder, "ls-files", "--", ".")
    head = _git(folder, "rev-parse", "HEAD")
    if not tracked or not head:
        copied = folder.parents[1] / COPIED
        if copied.is_file():
            return copied.read_text(encoding="utf-8").strip()
        return f"v{__version__}" if _is_installed(folder) else "unknown"
    return head + ("-dirty" if _git(folder, "status", "--porcelain", "--untracked-files=no") else "")


def _is_installed(folder: Path) -> bool:
    """Whether `folder` is part of a package installed from a wheel: its record then lies beside the package."""
    return any(folder.parents[1].glob("r1_lightning-*.dist-info/RECORD"))


def _git(folder: Path, *arguments: str) -> str:
    """What git prints, or "" where it is absent or refuses."""
    try:
        result = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=GIT_TIMEOUT_S
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return result.stdout.strip() if result.returncode == 0 else ""


def environment() -> dict[str, str]:
    """Versions of Python, the platform and the packages whose numbers can change a result."""
    versions = {"python": platform.python_version(), "platform": platform.platform()}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "absent"
    return versions


def render(artefact: Artefact) -> str:
    """Return the artefact and its inputs, recursively, as a tree of lines; an artefact used twice is expanded only once."""
    return "\n".join(_lines(artefact, "", "", set()))


def _short(commit: str) -> str:
    return commit[:12] + ("-dirty" if commit.endswith("-dirty") else "")


def _seed(artefact: Artefact) -> str:
    """Return "  seed N" from the artefact's config.yaml; empty if that names no seed."""
    path = artefact.folder / CONFIG
    found = SEED.search(path.read_text(encoding="utf-8", errors="replace")) if path.is_file() else None
    return "" if found is None else f"  seed {found[1]}"


def _lines(artefact: Artefact, head: str, tail: str, seen: set[Path]) -> list[str]:
    """`head` precedes this artefact's own line, `tail` the lines of its inputs; `seen` are the folders shown so far."""
    if artefact.folder.resolve() in seen and artefact.inputs:
        return [f"{head}{artefact.stage}  {artefact.fingerprint[:SHORT_DIGITS]}  (as above)"]
    seen.add(artefact.folder.resolve())
    lines = [
        f"{head}{artefact.stage}  {artefact.fingerprint[:SHORT_DIGITS]}{_seed(artefact)}  commit "
        f"{', then '.join(map(_short, artefact.commits or (artefact.commit,)))}  {artefact.created}  {artefact.folder}"
    ]
    last = len(artefact.inputs) - 1
    for index, (role, record) in enumerate(artefact.inputs.items()):
        corner, side = ("└─ ", "   ") if index == last else ("├─ ", "│  ")
        folder = Path(artefact.folder, record["folder"]).resolve()
        start = f"{tail}{corner}{role}: "
        if is_complete(folder):
            lines += _lines(open_artefact(folder), start, tail + side, seen)
        else:
            where = "" if folder.is_dir() and record["stage"] == KIND else "no longer at "
            lines.append(f"{start}{record['stage']}  {record['fingerprint'][:SHORT_DIGITS]}  {where}{folder}")
    return lines
