"""Runs by their labels: a link per run, none twice, new runs added; TensorBoard reads through the links and ends with us."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from r1_lightning.artefacts.run_label import note_experiment
from r1_lightning.review.page import charts
from r1_lightning.run.commands.board import FIRST, labels, link, pinned, show
from r1_lightning.types.errors import InvalidInput


def make(root: Path, name: str, experiment: str | None = None, seed: int = 0, age_s: float = 0.0) -> Path:
    run = root / name
    (run / "tensorboard").mkdir(parents=True)
    (run / "config.yaml").write_text(f"seed: {seed}\nname: null\n")
    note_experiment(run, experiment)
    os.utime(run / "config.yaml", (1e9 - age_s, 1e9 - age_s))
    return run


def links_in(folder: Path) -> dict[str, str]:
    found = (Path(top, name) for top, names, _ in os.walk(folder) for name in names)
    return {str(path.relative_to(folder)): path.readlink().parent.name for path in found if path.is_symlink()}


def test_each_run_has_a_link_by_its_label(tmp_path: Path) -> None:
    root, links = tmp_path / "runs", tmp_path / "links"
    make(root, "grpo-tiny-arithmetic-0000000001", "r1_zero_tiny", 0, age_s=9)
    make(root, "grpo-tiny-arithmetic-0000000002", "r1_zero_tiny", 1)
    make(root, "grpo-tiny-arithmetic-0000000003", "r1_zero_tiny", 0, age_s=5)  # with another learning rate, say
    make(root, "report/seed0/pretrain-tiny-arithmetic-0000000004")
    (root / "multirun").mkdir()
    link(root, links)
    expected = {
        "grpo-r1_zero_tiny-seed0": "grpo-tiny-arithmetic-0000000001",
        "grpo-r1_zero_tiny-seed1": "grpo-tiny-arithmetic-0000000002",
        "grpo-r1_zero_tiny-seed0-0000000003": "grpo-tiny-arithmetic-0000000003",
        "report/seed0/pretrain-tiny-arithmetic-seed0": "pretrain-tiny-arithmetic-0000000004",
    }
    assert links_in(links) == expected
    make(root, "sft-tiny-arithmetic-0000000005", seed=2)
    (root / "grpo-tiny-arithmetic-0000000002" / "config.yaml").unlink()
    link(root, links)
    del expected["grpo-r1_zero_tiny-seed1"]
    assert links_in(links) == {**expected, "sft-tiny-arithmetic-seed2": "sft-tiny-arithmetic-0000000005"}


def test_one_run_may_be_named(tmp_path: Path) -> None:
    run = make(tmp_path, "grpo-tiny-arithmetic-0000000001", "r1_zero_tiny", 3)
    assert labels(run) == {"grpo-r1_zero_tiny-seed3": run}


def test_an_address_that_begins_with_the_main_curves() -> None:
    """What TensorBoard reads there: cards of a plugin and a tag; a quotation mark would end the address in a terminal."""
    address = pinned(["a/b", 'odd "&#'])
    parts = urlsplit(f"http://localhost:6006/{address}")
    (cards,) = parse_qs(parts.query)["pinnedCards"]
    assert [card["tag"] for card in json.loads(cards)] == ["a/b", 'odd "&#']
    assert parts.fragment == "timeseries" and not set("\"' ") & set(address)
    assert {*FIRST} <= {*charts.FIRST}  # the page of a run shows them first, too


def test_nothing_to_show_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="there is no such folder"):
        show(tmp_path / "absent", [])
    with pytest.raises(InvalidInput, match="there are no runs in it"):
        show(tmp_path, [])


@pytest.mark.slow
def test_tensorboard_shows_the_labels_and_ends_with_the_command(tmp_path: Path, repo_root: Path) -> None:
    from torch.utils.tensorboard import SummaryWriter

    run = make(tmp_path / "runs", "grpo-tiny-arithmetic-0000000001", "r1_zero_tiny")
    with SummaryWriter(str(run / "tensorboard")) as writer:
        writer.add_scalar("train/loss", 1.0, 0)
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    command = [sys.executable, "scripts/board.py", str(tmp_path / "runs"), "--port", "0"]
    environment = {**os.environ, "TMPDIR": str(temporary)}
    log = tmp_path / "log"
    with log.open("w") as output:
        board = subprocess.Popen(command, cwd=repo_root, env=environment, stdout=output, stderr=output)
        try:
            port = _port(log)
            address = "/".join((f"http://127.0.0.1:{port}", "data", "runs"))
            assert _read(address) == '["grpo-r1_zero_tiny-seed0"]'
        finally:
            board.send_signal(signal.SIGTERM)
            code = board.wait(30)
    assert code == 143 and not list(temporary.glob("r1-board-*"))


def _port(log: Path) -> int:
    for _ in range(600):
        words = log.read_text().split("http://")
        if len(words) > 1:
            return int(words[1].partition(":")[2].partition("/")[0])
        time.sleep(0.1)
    raise AssertionError(log.read_text())


def _read(address: str) -> str:
    text = ""
    for _ in range(100):  # TensorBoard reads the files after it has begun to answer
        with urllib.request.urlopen(address, timeout=10) as answer:
            text = answer.read().decode()
        if text != "[]":
            return text
        time.sleep(0.2)
    return text
