"""The same command by one process and by several of this machine: do they make the same artefacts?

    python -m benchmarks.several_processes --out reports/several_processes

runs `stage=grpo debug=fast` (pre-training, then GRPO) by one process, by two of our own starter and by two of torchrun; it compares
the folders' names, which hold the fingerprint, and the weights. On a CPU the processes talk by gloo.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file

from benchmarks.gpu.report import RecordFile, Row
from r1_lightning.artefacts import lineage
from r1_lightning.artefacts.store import WEIGHTS

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = str(ROOT / "scripts" / "train.py")
COMMAND = ("stage=grpo", "debug=fast", "logger=none", "trainer.accelerator=cpu", "trainer.threads=1")
LIMIT_S = 600.0  # for one command; it takes half a minute on a machine with nothing else to do
# What starts the command -> the words before and after it.
STARTERS: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "trainer=ddp trainer.devices=2": ((sys.executable,), ("trainer=ddp", "trainer.devices=2")),
    "torchrun --nproc-per-node 2": ((sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"), ()),
}


def command(starter: str, root: Path) -> list[str]:
    """Return the command line of `starter`, or that of one process for "", with everything below `root`."""
    before, after = STARTERS.get(starter, ((sys.executable,), ()))
    return [*before, SCRIPT, *COMMAND, *after, f"paths.root={root}"]


def run(starter: str, root: Path) -> None:
    """Run the command to its end. `SystemExit` with its output if it fails, or takes longer than `LIMIT_S`."""
    own = {**os.environ, "PYTHONPATH": str(ROOT)}
    try:
        subprocess.run(command(starter, root), cwd=ROOT, env=own, check=True, timeout=LIMIT_S, capture_output=True)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        raise SystemExit(f"{starter}: {error}\n{(error.stderr or b'').decode(errors='replace')}") from error


def differences(one: Path, other: Path) -> dict[str, float]:
    """Return, for every artefact below `one`, the largest difference of a weight from the artefact of that name below `other`."""
    found = {}
    for path in sorted(one.glob(f"*/{WEIGHTS}")):
        first, second = load_file(path), load_file(other / path.parent.name / WEIGHTS)
        if first.keys() != second.keys():
            raise ValueError(f"{path.parent.name}: the artefacts hold other tensors")
        found[path.parent.name] = max(float((first[name] - second[name]).abs().max()) for name in first)
    return found


def rows(found: Mapping[str, Mapping[str, float]]) -> list[Row]:
    """Return a row per starter, from its differences by artefact; the value is the largest."""
    return [
        Row(
            part=f"pre-training and GRPO by two processes with gloo, started by `{starter}`",
            work=starter,
            unit="largest difference of a weight from one process",
            value=max(by_artefact.values()),
            details=dict(by_artefact),
        )
        for starter, by_artefact in found.items()
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run all commands and write the record; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "reports" / "several_processes")
    out: Path = parser.parse_args(arguments).out
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run("", folder / "one")
        found = {}
        for number, starter in enumerate(STARTERS):
            run(starter, folder / str(number))
            found[starter] = differences(folder / "one", folder / str(number))
            print(f"{starter}: {found[starter]}", flush=True)
    hardware = {"device": f"a CPU of {os.cpu_count()} cores", "torch": torch.__version__}
    print(RecordFile(out, hardware, lineage.commit()).write(rows(found)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
