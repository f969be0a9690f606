"""Where records lie, what their protocol says, and that two processes never write the same ones."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from r1_lightning.artefacts.locks import locked
from r1_lightning.run.commands.evaluate import evaluate, prepared
from r1_lightning.run.commands.evaluate_records import checked, recorded, told
from r1_lightning.run.stages.kinds import run_stage
from r1_lightning.types.errors import InvalidInput
from tests.run.conftest import REAL_CONFIGS, Command

SMALL = ["model.d_model=32", "model.n_layers=2", "data.rows_per_batch=2", "task.tokenizer.training_documents=50"]
FEW = {"problems": 3, "samples": 2, "max_new_tokens": 4}


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
