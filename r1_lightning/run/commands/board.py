"""TensorBoard with runs by the names that people give them: `grpo-r1_zero_tiny-seed0` in place of a folder with a fingerprint.

    r1 board                        all runs below runs/
    r1 board FOLDER --port 6007     a folder of runs, or one run; what follows goes to tensorboard

TensorBoard calls a run by its path. So it is shown a folder of links, one per run, which disappears when it ends; runs that begin
meanwhile are added. Of two runs with one label, as before and after a change of a setting, the later has its fingerprint's digits.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from r1_lightning.artefacts.file_names import CONFIG, METRICS
from r1_lightning.artefacts.run_label import DIGITS, label_of
from r1_lightning.run.config.machine import run_as_command
from r1_lightning.run.config.program import usage
from r1_lightning.types.errors import require

LOGS = METRICS.parent  # of a run: where TensorBoard's files lie
FIRST = ("rollout/reward_mean", "rollout/accuracy_mean", "rollout/completion_tokens_mean", "train/loss")
LOOK_S = 15.0  # between two looks for new runs


def run_folders(root: Path) -> list[Path]:
    """Return the folders of runs with logs, in `root` and below, or `root` itself; those that began first stand first."""
    found = []
    for folder, below, files in os.walk(root):
        if CONFIG in files:
            below.clear()  # a run holds no runs
            if (Path(folder) / LOGS).is_dir():
                found.append(Path(folder))
    return sorted(found, key=lambda run: ((run / CONFIG).stat().st_mtime_ns, run))


def labels(root: Path) -> dict[str, Path]:
    """Return the runs of `root` by label, with the folders between them and `root` before it."""
    named: dict[str, Path] = {}
    for run in run_folders(root):
        between = run.parent.relative_to(root) if run != root else Path()
        label = str(between / label_of(run))
        if label in named:
            digits = DIGITS.search(run.name)
            label = f"{label}{digits.group()}" if digits else str(between / run.name)
        named[label] = run
    return named


def link(root: Path, links: Path) -> None:
    """Make `links` hold a link to the logs of each run of `root`, by label, and nothing else; a link that is right stays."""
    wanted = {links / label: (run / LOGS).resolve() for label, run in labels(root).items()}
    for folder, below, _ in os.walk(links):
        for path in (Path(folder, name) for name in below):
            if path.is_symlink() and (path not in wanted or path.readlink() != wanted[path]):
                path.unlink()
    for path, logs in wanted.items():
        if not path.is_symlink():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.symlink_to(logs, target_is_directory=True)


def pinned(names: Sequence[str]) -> str:
    """Return the end of an address with which TensorBoard's Time Series begins with the curves `names`, whatever their names."""
    cards = [{"plugin": "scalars", "tag": name} for name in names]
    return f"?pinnedCards={quote(json.dumps(cards, separators=(',', ':')), safe='[]{}:,/')}#timeseries"


def show(root: Path, arguments: Sequence[str]) -> int:
    """Run TensorBoard on the runs of `root` until it ends; returns its exit code."""
    require(root.is_dir(), "board", str(root), "there is no such folder")
    require(bool(run_folders(root)), "board", str(root), "there are no runs in it")
    with tempfile.TemporaryDirectory(prefix="r1-board-") as links:
        link(root, Path(links))
        print("the address below with #custom_scalars at its end shows the curves in groups; Time Series, which sorts")
        print(f"them by name, begins with the main ones with {pinned(FIRST)} at its end", flush=True)
        command = [sys.executable, "-m", "tensorboard.main", "--logdir", links, *arguments]
        with subprocess.Popen(command) as board:
            try:
                while (code := _ended(board)) is None:
                    link(root, Path(links))
                return code
            finally:
                board.terminate()


def _ended(board: subprocess.Popen[bytes]) -> int | None:
    try:
        return board.wait(LOOK_S)
    except subprocess.TimeoutExpired:
        return None


def main() -> int:
    """The command line of `r1 board`; returns the exit code."""
    return run_as_command(_board)


def _board() -> int:
    arguments = sys.argv[1:]
    if {"-h", "--help"} & set(arguments):
        print(f"{(__doc__ or '').strip()}\n\n{usage('board', '[FOLDER] [ARGUMENT of tensorboard ...]')}")
        return 0
    has_folder = bool(arguments) and not arguments[0].startswith("-")
    root = Path(arguments[0] if has_folder else "runs")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that server and links go
    try:
        return show(root, arguments[has_folder:])
    except KeyboardInterrupt:
        return 0
