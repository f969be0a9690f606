"""Where records lie, what their protocol says, and that two processes never write the same ones."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from omegaconf import OmegaConf

from r1_lightning.artefacts.locks import locked
from r1_lightning.run.commands.evaluate import Prepared, evaluate, prepared
from r1_lightning.run.commands.evaluate_records import checked, recorded, told
from r1_lightning.run.stages.kinds import run_stage
from r1_lightning.types.errors import InvalidInput
from tests.evaluation.test_recording import MODEL
from tests.evaluation.test_runner import evaluator
from tests.run.conftest import REAL_CONFIGS, Command
from tests.support.commands import ROOT, environment
from tests.support.hf_folders import dense_folder

SMALL = ["model.d_model=32", "model.n_layers=2", "data.rows_per_batch=2", "task.tokenizer.training_documents=50"]
LIMIT_S = 240.0
FEW = {"problems": 3, "samples": 2, "max_new_tokens": 4}


@pytest.mark.slow
def test_an_artefacts_records_lie_beside_it(command: Command, tmp_path: Path) -> None:
    outcome = command("stage=pretrain", "debug=fast", "logger=none", *SMALL, recorder=run_stage, configs=REAL_CONFIGS)
    assert outcome.code == 0, outcome.err
    (artefact,) = (tmp_path / "runs").glob("pretrain-*")
    before = {path: path.read_bytes() for path in artefact.rglob("*") if path.is_file()}
    ready = prepared(artefact, FEW)
    found = recorded(ready)
    assert found.folder.parent == tmp_path / "runs" / "evaluations"
    assert found.folder.name == f"arithmetic-{artefact.name}-{found.protocol.digits}"
    assert found.protocol.weights == ready.artefact.fingerprint and found.protocol.sampling_temperature == 1.0
    assert {path: path.read_bytes() for path in artefact.rglob("*") if path.is_file()} == before
    assert found.measures() == evaluate(artefact, FEW)[1]
    assert told(found).startswith(f"{artefact.name}: 3 held-out problems, 2 samples each")

    again, line = checked(found.folder)
    assert again == found and "from 6 samples: equal to results.json" in line
    lines = (found.folder / "samples.jsonl").read_text()
    assert recorded(ready) == found and (found.folder / "samples.jsonl").read_text() == lines  # nothing is drawn twice
    assert recorded(prepared(artefact, {**FEW, "samples": 1})).folder != found.folder
    with (
        pytest.raises(InvalidInput, match=r"another process \(pid \d+.*\) writes these records right now"),
        locked(found.folder),
    ):
        recorded(ready)
    assert json.loads(lines.splitlines()[0])["protocol"]["commit"] == found.protocol.commit


def test_records_that_another_process_writes_are_not_touched(tmp_path: Path) -> None:
    """The half line is what the other process has written of its block: cutting it off would lose samples."""
    folder, made = tmp_path / "records", evaluator(samples=4)
    config = OmegaConf.create({"task": {"name": "t", "source": {"_target_": "tests.X"}}})
    artefact: Any = SimpleNamespace(fingerprint="f", folder=tmp_path)
    ready = Prepared("m", artefact, config, MODEL, made)
    recorded(ready, folder)
    samples = folder / "samples.jsonl"
    samples.write_bytes(half := samples.read_bytes()[:-9])
    with pytest.raises(InvalidInput, match="writes these records right now"), locked(folder):
        recorded(ready, folder)
    assert samples.read_bytes() == half
    recorded(ready, folder)
    assert samples.read_bytes().startswith(half) and samples.read_bytes().endswith(b"}\n")


@pytest.mark.slow
def test_a_killed_command_goes_on_to_the_same_bytes(tmp_path: Path) -> None:
    """SIGKILL in the middle, then the same command to its end, beside one that nobody disturbed."""
    folder = dense_folder(tmp_path / "model", "qwen2")
    asked = ["task=equations", "--problems", "24", "--samples", "2", "--max-rows", "4", "--max-new-tokens", "24"]

    def start(out: str) -> subprocess.Popen[bytes]:
        words = [sys.executable, str(ROOT / "scripts" / "evaluate.py"), str(folder), *asked, "--out", out]
        return subprocess.Popen(
            words, cwd=tmp_path, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )

    def lines(out: str) -> list[bytes]:
        path = tmp_path / out / "samples.jsonl"
        return path.read_bytes().splitlines(keepends=True) if path.is_file() else []

    process, deadline_s = start("killed"), time.monotonic() + LIMIT_S
    while len(lines("killed")) < 21 and process.poll() is None and time.monotonic() < deadline_s:
        time.sleep(0.001)
    process.kill()
    process.communicate(timeout=LIMIT_S)
    assert 21 <= len(lines("killed")) < 49
    for out in ("killed", "whole"):
        process = start(out)
        _, told_of = process.communicate(timeout=LIMIT_S)
        assert process.returncode == 0, told_of.decode()
    assert lines("killed") == lines("whole") and len(lines("whole")) == 1 + 24 * 2
    for name in ("questions.jsonl", "results.json"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
