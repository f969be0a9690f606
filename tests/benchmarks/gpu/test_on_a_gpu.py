"""Every part on a pretend GPU: no device is mixed, no model computes on the CPU, every operator has a deterministic kernel."""

from __future__ import annotations

import json

import pytest

from benchmarks.gpu import command
from tests.architecture.house import ROOT
from tests.support.fake_cuda.library import start

PARTS = """
import json
from dataclasses import asdict
import torch
from benchmarks.gpu import models, parts, worker
from benchmarks.gpu.device import Limits, Meter
parts.TRL_NEEDS = ("no_trl_here",)
models.EXPERTS = "eager"  # grouped_mm counts by a kernel for whole numbers that only CUDA has
meter = Meter(torch.device("cuda", 0))
limits = Limits(1e9, 1e6, "pretended")
for part in parts.parts_of(parts.tiny_plan(), meter, lambda: limits, lambda line: None):
    for row in worker.rows_of(part, meter):
        print("ROW " + json.dumps(asdict(row)))
"""


@pytest.mark.slow
def test_every_part_works_where_the_gpu_is(tmp_path):
    asked, answered = tmp_path / "commands.json", tmp_path / "results.json"
    asked.write_text(json.dumps({"parts": ["python", PARTS]}))
    process = start("tests.support.fake_cuda.commands", str(asked), str(answered), cwd=ROOT)
    assert process.returncode == 0, process.stderr
    result = json.loads(answered.read_text())["parts"]
    assert result["code"] == 0, result["err"][-3000:]
    rows = [json.loads(line[4:]) for line in result["out"].splitlines() if line.startswith("ROW ")]
    assert [(row["work"], row["not_run"]) for row in rows if row["value"] is None] == [], result["err"][-3000:]
    assert [row["beside"] for row in rows if row["failed"] or "not deterministic" in row["beside"]] == []
    assert {row["part"] for row in rows} == set(command.PARTS)
    assert result["records"]["host_work"] == {} and result["records"]["undetermined"] == {}
