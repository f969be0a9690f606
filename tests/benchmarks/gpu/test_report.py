"""What was measured is shown with its unit, what was not with its reason; a file says where and with what."""

from __future__ import annotations

import json
from datetime import date

from benchmarks.gpu.report import RecordFile, Row, Table, render

RAN = Row("pretraining", "training", "tokens/s", 12345.6, "MFU 41.0%", 3 * 2**29, {"mfu": 0.41})
NOT = Row("sampling", "sampling", not_run="no CUDA device")
HARDWARE = {"device": "NVIDIA H200", "memory_gib": 139.8}


def test_the_table():
    seconds = Row("grpo", "a step", "s/step", 1.23456, "TRL not run: trl not installed")
    assert render([RAN, NOT, seconds]).splitlines()[2:] == [
        "| training | 12,346 tokens/s | MFU 41.0% | 1.5 GiB |",
        "| sampling | not run: no CUDA device | | |",
        "| a step | 1.235 s/step | TRL not run: trl not installed | not known |",
    ]


def test_a_later_row_takes_the_place_of_an_earlier_one_but_not_of_its_value():
    table = Table()
    table.add(Row("grpo", "a step", "s/step", 1.0, "alone"))
    table.add(RAN)
    table.add(Row("grpo", "a step", "s/step", 2.0, "TRL"))
    assert [(row.work, row.value) for row in table.rows] == [("a step", 2.0), ("training", 12345.6)]
    table.add(Row("grpo", "a step", not_run="failed: gone", failed=True))
    last = table.rows[0]
    assert (last.value, last.beside, last.failed) == (2.0, "TRL; then failed: gone", True)


def test_a_file_holds_hardware_versions_commit_date_and_rows_and_is_never_overwritten(tmp_path):
    first, second = (RecordFile(tmp_path / "gpu", HARDWARE, "0123abc").write([RAN, NOT]) for _ in range(2))
    today = date.today().isoformat()
    assert (first.name, second.name) == (f"{today}-nvidia-h200.json", f"{today}-nvidia-h200-2.json")
    record = json.loads(first.read_text())
    assert (record["date"], record["commit"], record["hardware"]) == (today, "0123abc", HARDWARE)
    assert record["versions"]["torch"] != "absent" and "transformer-engine" in record["versions"]
    assert [(row["value"], row["not_run"]) for row in record["rows"]] == [(12345.6, ""), (None, "no CUDA device")]


def test_one_run_has_one_file_and_none_before_something_ran(tmp_path):
    file = RecordFile(tmp_path / "gpu", HARDWARE, "0123abc")
    assert file.write([NOT]) is None and not (tmp_path / "gpu").exists()
    assert file.write([NOT, RAN]) == file.write([NOT, RAN, RAN]) == file.path
    assert list((tmp_path / "gpu").iterdir()) == [file.path]
    assert len(json.loads(file.path.read_text())["rows"]) == 3
