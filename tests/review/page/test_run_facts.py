"""What a run's files say of it, and that a broken one says nothing."""

from __future__ import annotations

import json
import os
from datetime import date
from pathlib import Path

import pytest

from r1_lightning.artefacts.locks import locked
from r1_lightning.artefacts.work import Work
from r1_lightning.review.page.run_facts import LARGEST_BYTES, LONGEST_SETTING, MOST_INPUTS, dotted, read_facts
from tests.review.page.examples import COMMIT, make_run, write_marker


def test_a_complete_run(tmp_path: Path) -> None:
    facts = read_facts(make_run(tmp_path))
    assert (facts.label, facts.state, facts.work) == ("grpo-x-seed0", "complete", Work(20.0, 1))
    assert facts.settings["rollout.group_size"] == "4" and facts.settings["optim.lr"] == "0.0001"
    assert facts.environment == {"python": "3.11.7", "platform": "Linux <x>"}
    assert facts.table == "pass_at_1  0.25  <b>0.75</b>\n"
    (depth, own), (base_depth, base) = facts.lineage
    assert (depth, base_depth) == (0, 1)
    assert own.startswith(
        f"grpo  aaaaaaaaaa  seed 0  commit {COMMIT[:12]}, then {COMMIT[:12]}-dirty  2026-11-29T18:43:30"
    )
    assert base.startswith("base:  pretrain  ffffffffff  seed ?")


def test_a_run_at_work_and_one_that_was_interrupted(tmp_path: Path) -> None:
    folder = make_run(tmp_path, "grpo-mine-0123456789", name="own")
    (folder / "experiment.txt").write_text("r1_zero_tiny\n")
    (folder / "artefact.json").unlink()
    (folder / "commits.txt").write_text(f"{COMMIT}\n")
    assert read_facts(folder).state == "interrupted" and read_facts(folder).label == "grpo-r1_zero_tiny-own-seed0"
    assert COMMIT[:12] in read_facts(folder).lineage[0][1]
    with locked(folder):
        assert read_facts(folder).state == "running"


@pytest.mark.parametrize(
    "broken", [b"", b"[1, 2]", b"{", b"\xff\xfe", b"a: [", b"null", b"x" * (LARGEST_BYTES + 1), b"[" * 500]
)
def test_a_broken_file_says_nothing(tmp_path: Path, broken: bytes) -> None:
    folder = make_run(tmp_path)
    for name in ("config.yaml", "artefact.json", "work.txt", "table.txt", "commits.txt"):
        (folder / name).write_bytes(broken)
    facts = read_facts(folder)
    assert facts.state == "interrupted" and facts.settings == {} and facts.environment == {} and len(facts.lineage) == 1


@pytest.mark.parametrize(
    "value", [[], "x", 3, None, {"base": 3}, {"base": []}, {"base": {"folder": "."}}, {"base": {}}]
)
def test_inputs_of_another_kind(tmp_path: Path, value: object) -> None:
    folder = make_run(tmp_path)
    record = json.loads((folder / "artefact.json").read_text())
    record["inputs"] = record["environment"] = record["commits"] = value
    (folder / "artefact.json").write_text(json.dumps(record))
    assert len(read_facts(folder).lineage) == 1


def test_a_lineage_that_goes_in_circles_or_is_without_end(tmp_path: Path) -> None:
    folder = make_run(tmp_path)
    many = {f"r{i}": {"stage": "s", "fingerprint": "0", "folder": f"../other-{i}"} for i in range(3 * MOST_INPUTS)}
    write_marker(folder, "grpo", {"self": {"folder": f"../{folder.name}"}, **many})
    assert len(read_facts(folder).lineage) == MOST_INPUTS


def test_settings_by_dotted_names() -> None:
    config = {"a": {"b": [1, {"c": 2}], "d": {}}, "e": None, 3: "x"}
    assert dict(dotted(config)) == {"a.b": '[1, {"c": 2}]', "a.d": "{}", "e": "None", "3": "x"}


@pytest.mark.parametrize("name", ["a\0b", "a" * 5000, "\ud800"])
def test_an_input_in_a_folder_that_can_be_none(tmp_path: Path, name: str) -> None:
    folder = make_run(tmp_path)
    write_marker(folder, "grpo", {"base": {"folder": name}})
    assert read_facts(folder).lineage[0][1].startswith("grpo")


def test_a_list_that_is_long_without_end_is_cut() -> None:
    """Nine lists of nine each make 9^9 leaves; one that holds itself, or has a date as key, is no JSON."""
    node: list[object] = ["x"] * 9
    for _ in range(8):
        node = [node] * 9
    loop: list[object] = []
    loop.append(loop)
    found = dict(dotted({"grown": node, "loop": loop, "dates": [{date(2001, 1, 1): 1}]}))
    assert len(found["grown"]) == LONGEST_SETTING + 3 and found["grown"].endswith("...")
    assert found["loop"].endswith("...") and found["dates"].endswith("...")


def test_pipes_are_not_waited_for_and_odd_times_say_nothing(tmp_path: Path) -> None:
    folder = make_run(tmp_path)
    (folder / "work.txt").write_text("begin\nend nan\n")
    for name in ("artefact.json", "experiment.txt", ".lock", "table.txt"):
        (folder / name).unlink(missing_ok=True)
        os.mkfifo(folder / name)
    facts = read_facts(folder)
    assert facts.state == "interrupted" and facts.work is None and facts.table == ""
