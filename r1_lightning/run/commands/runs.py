"""What lies in a folder of runs: name, state, step, main measure, and in which settings runs of one stage differ.

    r1 runs                    runs/
    r1 runs FOLDER stage=grpo

Only files are read (no torch), so that a look takes no longer than one at a directory; runs that train meanwhile are not disturbed.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from r1_lightning.artefacts.file_names import CONFIG, MARKER
from r1_lightning.artefacts.locks import is_held
from r1_lightning.artefacts.steps import last_row
from r1_lightning.run.config.machine import run_as_command
from r1_lightning.run.config.moved_names import NAMES, with_names
from r1_lightning.run.config.program import usage
from r1_lightning.types.errors import require

# Groups of the configuration that describe where and how a run was made, not its result.
DRY_RUN = ("dry_run", "dry_run_memory_gib", "dry_run_devices")
UNTOLD = ("paths", "trainer", "callbacks", "logger", "launcher", "fresh", "only", *DRY_RUN, "name")
MAIN = (
    "/pass_at_1",
    "/pair_accuracy",
    "val/loss",
    "rollout/accuracy_mean",
    "train/loss",
)  # ends of names, the first there counts
LONGEST = 60  # characters of a value that is shown


@dataclass(frozen=True)
class Run:
    """One folder: `settings` is its configuration by dotted names, without `UNTOLD`."""

    name: str
    stage: str
    state: str
    step: str
    measure: str
    made: str
    settings: Mapping[str, str]


def read_runs(root: Path) -> list[Run]:
    """Return the runs in `root`, sorted by stage, then oldest first. `InvalidInput` if there is no such folder."""
    require(root.is_dir(), "runs", str(root), "there is no such folder")
    folders = [path for path in root.iterdir() if (path / CONFIG).is_file()]
    runs = [_read(folder) for folder in sorted(folders, key=lambda path: (path / CONFIG).stat().st_mtime)]
    return sorted(runs, key=lambda run: run.stage)


def _read(folder: Path) -> Run:
    config, record = _mapping(folder / CONFIG), _mapping(folder / MARKER)
    known = with_names(config, NAMES.present)  # a class that moved sets no run apart
    row = last_row(folder)
    metrics = record.get("metrics") or row
    state = "complete" if record else "running" if is_held(folder) else "interrupted"
    steps = (config.get("stage") or {}).get("max_steps")
    done = int(row["step"]) + 1 if row else 0
    return Run(
        name=str(config.get("name") or folder.name),
        stage=str(record.get("stage") or folder.name.partition("-")[0]),
        state=state,
        step=f"{done}/{steps}" if steps else str(done or "-"),
        measure=_main(metrics),
        made=str(record.get("created", ""))[:16].replace("T", " ") or "-",
        settings=dict(_flat({key: value for key, value in known.items() if key not in UNTOLD})),
    )


def _mapping(path: Path) -> dict[str, Any]:
    """Return the mapping in a JSON or YAML file; empty if the file is missing or cannot be read."""
    try:
        text = path.read_text(encoding="utf-8")
        value = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return value if isinstance(value, dict) else {}


def _main(metrics: Mapping[str, Any]) -> str:
    for end in MAIN:
        for name in sorted(metrics):
            if name.endswith(end) and not name.startswith("eval_") and metrics[name] not in (None, ""):
                return f"{name} {float(metrics[name]):.4g}"
    return "-"


def _flat(node: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(node, dict) and node:
        for key, value in node.items():
            yield from _flat(value, f"{prefix}.{key}" if prefix else str(key))
    else:
        text = str(node)
        yield prefix, text if len(text) <= LONGEST else f"{text[:LONGEST]}..."


def differences(runs: Sequence[Run]) -> list[str]:
    """Return for each run the settings in which it differs from the most common values of its stage."""
    told = []
    for run in runs:
        others = [other for other in runs if other.stage == run.stage]
        parts = []
        for key in dict.fromkeys(key for other in others for key in other.settings):
            values = Counter(other.settings.get(key, "-") for other in others)
            own, ((usual, count), *_) = run.settings.get(key, "-"), values.most_common()
            if len(values) > 1 and (own != usual or count == 1):
                parts.append(f"{key}={own}")
        told.append(", ".join(parts))
    return told


def render(runs: Sequence[Run]) -> str:
    """Return the runs as a table."""
    cells = [["run", "stage", "state", "step", "measure", "made (UTC)", "apart by"]]
    for run, apart in zip(runs, differences(runs), strict=True):
        cells.append([run.name, run.stage, run.state, run.step, run.measure, run.made, apart])
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]
    return "\n".join("  ".join(text.ljust(w) for text, w in zip(row, widths, strict=True)).rstrip() for row in cells)


def list_runs(arguments: Sequence[str]) -> str:
    """What `r1 runs FOLDER stage=NAME` prints."""
    stages = [argument.partition("=")[2] for argument in arguments if argument.startswith("stage=")]
    folders = [argument for argument in arguments if not argument.startswith("stage=")]
    require(len(folders) <= 1, "runs", " ".join(folders), "it must be one folder")
    root = Path(folders[0] if folders else "runs")
    runs = [run for run in read_runs(root) if not stages or run.stage in stages]
    return render(runs) if runs else f"there are no runs in {root}"


def main() -> int:
    """The command line of `r1 runs`; returns the exit code."""
    return run_as_command(_list)


def _list() -> int:
    if {"-h", "--help"} & set(sys.argv[1:]):
        print(f"{(__doc__ or '').strip()}\n\n{usage('runs', '[FOLDER] [stage=NAME]')}")
        return 0
    print(list_runs(sys.argv[1:]))
    return 0
