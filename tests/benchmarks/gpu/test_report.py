"""What was measured is shown with its unit, what was not with its reason; a file says where and with what."""

from __future__ import annotations

import json
from datetime import date

from benchmarks.gpu.report import Row, render, write

RAN = Row("pretraining", "training", "tokens/s", 12345.6, "MFU 41.0%", 3 * 2**29, {"mfu": 0.41})
NOT = Row("sampling", "sampling", not_run="no CUDA device")


def test_the_table():
    seconds = Row("grpo", "a step", "s/step", 1.23456, "TRL not run: trl not installed")
    assert render([RAN, NOT, seconds]).splitlines()[2:] == [
        "| training | 12,346 tokens/s | MFU 41.0% | 1.5 GiB |",
        "| sampling | not run: no CUDA device | | |",
        "| a step | 1.235 s/step | TRL not run: trl not installed | not known |",
    ]


def test_a_file_holds_hardware_versions_commit_date_and_rows_and_is_never_overwritten(tmp_path):
    hardware = {"device": "NVIDIA H200", "memory_gib": 139.8}
    first, second = (write([RAN, NOT], hardware, "0123abc", tmp_path / "gpu") for _ in range(2))
    today = date.today().isoformat()
    assert (first.name, second.name) == (f"{today}-nvidia-h200.json", f"{today}-nvidia-h200-2.json")
    record = json.loads(first.read_text())
    assert (record["date"], record["commit"], record["hardware"]) == (today, "0123abc", hardware)
    assert record["versions"]["torch"] != "absent" and "transformer-engine" in record["versions"]
    assert [(row["value"], row["not_run"]) for row in record["rows"]] == [(12345.6, ""), (None, "no CUDA device")]
