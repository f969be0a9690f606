"""Computes the fingerprint of every experiment, and of every stage with several tasks; as a program it writes the list."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # as a program: the checkout, installed or not

from r1_lightning.run.config.compose import compose_stage, composing
from r1_lightning.run.graph.fingerprints import stage_fingerprint
from tests.run.readers_things import write_files
from tests.support.commands import CONFIGS

LIST = Path(__file__).with_name("fingerprints.txt")
TASKS = ("arithmetic", "equations", "math500", "programs", "r1_tiny")


def commands() -> dict[str, list[str]]:
    """Name of each entry -> what is typed for it."""
    experiments = sorted(path.stem for path in (CONFIGS / "experiment").glob("*.yaml"))
    stages = sorted(path.stem for path in (CONFIGS / "stage").glob("*.yaml"))
    entries = {f"experiment={name}": [f"experiment={name}"] for name in experiments}
    return entries | {
        f"stage={name},task={task}": [f"stage={name}", f"task={task}"] for name in stages for task in TASKS
    }


def fingerprints(data: Path) -> dict[str, str]:
    """Name of each entry -> the fingerprint of its stage, its inputs left out; `data` is an empty folder for files of rows."""
    write_files(data)
    with composing():
        return {
            name: stage_fingerprint(compose_stage([*words, f"paths.data={data}"]), {})
            for name, words in commands().items()
        }


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        text = "".join(f"{name} {digest}\n" for name, digest in fingerprints(Path(folder)).items())
    LIST.write_text(text, encoding="utf-8")
