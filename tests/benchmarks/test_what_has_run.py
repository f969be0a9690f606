"""README's table says what files under reports/ say, and "not run" of everything else."""

from __future__ import annotations

import json

from benchmarks.table import BEGIN, END
from benchmarks.what_has_run import README, table

RECORD = {
    "date": "2026-01-02",
    "commit": "0123456789abcdef",
    "hardware": {"device": "NVIDIA H200"},
    "rows": [
        {"part": "pretraining", "value": 10.0},
        {"part": "pretraining", "value": 20.0},
        {"part": "grpo", "value": None},
    ],
}


def cells(text):
    return {row[0]: row[1:] for row in ([c.strip() for c in line.split("|")[1:-1]] for line in text.splitlines()[2:])}


def test_readmes_table_is_the_generated_one():
    page = README.read_text(encoding="utf-8")
    assert page.count(BEGIN) == page.count(END) == 1
    assert page[page.index(BEGIN) + len(BEGIN) : page.index(END)].strip() == table()


def test_not_run_is_the_default(tmp_path):
    found = cells(table(tmp_path))
    assert list(found) == ["CPU", "GPU", "several processes", "SLURM", "vLLM"]
    assert {what for what, _ in found.values()} == {"not run"}
    assert "fake" in found["vLLM"][1]


def test_a_file_of_a_gpu_counts_with_what_ran_in_it(tmp_path):
    folder = tmp_path / "gpu"
    folder.mkdir()
    (folder / "a.json").write_text(json.dumps(RECORD))
    nothing = {**RECORD, "rows": [{"part": "grpo", "value": None}]}
    (folder / "b.json").write_text(json.dumps(nothing))
    found = cells(table(tmp_path))
    assert found["GPU"] == ["pretraining (NVIDIA H200, 2026-01-02, commit 0123456789)", "[`reports/gpu`](reports/gpu)"]
    assert found["CPU"][0] == found["SLURM"][0] == "not run"


def test_the_cpu_is_shown_by_what_ran_on_it(tmp_path):
    learnt, killed = tmp_path / "r1_zero_tiny", tmp_path / "kill_9"
    learnt.mkdir()
    killed.mkdir()
    (learnt / "results.csv").write_text("seed,value\n0,1\n0,2\n3,1\n")
    (learnt / "config.yaml").write_text("trainer: {accelerator: cpu}\n")
    (killed / "results.csv").write_text("seed,result,a,b\n0,passed,1,1\n1,failed,1,0\n")
    (killed / "stages.csv").write_text("stage,seed,result,kills,moments\nsft,0,passed,4,syncing\n")
    what, shown = cells(table(tmp_path))["CPU"]
    assert "with 2 seeds" in what  # 0 and 3
    assert "7 kills, after which 2 of 3 runs" in what
    assert shown == "[`reports/r1_zero_tiny`](reports/r1_zero_tiny), [`reports/kill_9`](reports/kill_9)"
    mixtures = tmp_path / "moe_in_rl"
    mixtures.mkdir()
    (mixtures / "results.csv").write_text("seed,router,mtp_loss_weight,measure\n0,a,0,x\n0,a,0,y\n1,a,0,x\n")
    assert "2 runs of the miniature with other routers" in cells(table(tmp_path))["CPU"][0]
    (learnt / "config.yaml").write_text("trainer: {accelerator: gpu}\n")
    assert "seeds" not in cells(table(tmp_path))["CPU"][0]


def test_jobs_that_were_pre_empted_have_run_on_slurm(tmp_path):
    folder = tmp_path / "preemption"
    folder.mkdir()
    (folder / "slurm.csv").write_text("pre-emption,stage\n1,pretrain\n2,grpo\n3,grpo\n")
    what, shown = cells(table(tmp_path))["SLURM"]
    assert what.startswith("jobs of two tasks (pretrain, grpo), pre-empted 3 times")
    assert "one machine" in what and shown == "[`reports/preemption`](reports/preemption)"
