"""A graph of real stages, killed by SIGKILL in each of them and started again by the same command: the bits are the same."""

from __future__ import annotations

import csv
import json
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from r1_lightning.artefacts import data_set, store
from tests.support.commands import folder
from tests.support.kills import LIMIT_S, Killed, random_pauses
from tests.support.stage_graph import STAGES, start, write_configs

# What each stage leaves of its work: weights, blocks and parts of a data set, measures.
RESULTS = ("weights.safetensors", "blocks/*.jsonl", "data/*.jsonl", "counts.json", "models/*.json", "table.txt")


@pytest.fixture(scope="module")
def configs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_configs(tmp_path_factory.mktemp("graph") / "configs")


@pytest.fixture(scope="module")
def uninterrupted(configs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The root of a graph that was made by one command at once."""
    root = tmp_path_factory.mktemp("uninterrupted")
    assert start(configs, root).wait(timeout=LIMIT_S) == 0
    return root


def results(root: Path) -> dict[str, bytes]:
    """The bytes of all results by their place below `root`; what a kill left half written has another name."""
    found = [path for stage in STAGES for pattern in RESULTS for path in folder(root, stage).glob(pattern)]
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in found if not path.name.startswith(".")}


def metrics(root: Path) -> dict[str, object]:
    """Of every stage its final metrics, and of those that train each step's; without what depends on the clock."""
    told: dict[str, object] = {}
    for stage in STAGES:
        final = store.open_artefact(folder(root, stage)).metrics
        told[stage] = {name: value for name, value in final.items() if not name.startswith("perf/")}
        for path in folder(root, stage).glob("tensorboard/metrics.csv"):
            with path.open(newline="") as file:
                rows = [{k: v for k, v in row.items() if not k.startswith("perf/")} for row in csv.DictReader(file)]
            told[f"{stage} by step"] = rows
    return told


def assert_same_graph(root: Path, expected: Path) -> None:
    wanted, made = results(expected), results(root)
    assert made.keys() == wanted.keys()
    assert [name for name in wanted if made[name] != wanted[name]] == []
    assert metrics(root) == metrics(expected)
    for stage in STAGES:
        here, there = (store.open_artefact(folder(each, stage)) for each in (root, expected))
        store.verify(here)
        assert here.fingerprint == there.fingerprint
        roles = {role: source["fingerprint"] for role, source in there.inputs.items()}
        assert {role: source["fingerprint"] for role, source in here.inputs.items()} == roles


@pytest.mark.slow
def test_the_graph_makes_of_every_kind_what_later_stages_take(uninterrupted: Path) -> None:
    """Otherwise equal bytes would show nothing."""
    made = results(uninterrupted)
    weights = [
        made[f"{folder(uninterrupted, stage).name}/weights.safetensors"] for stage in ("pretrain", "grpo", "sft")
    ]
    assert len(set(weights)) == 3, "each stage has trained"
    sampled = folder(uninterrupted, "sample")
    assert len(list(sampled.glob("blocks/*.jsonl"))) == 4
    rows = [row for part in data_set.parts_of(sampled) for row in data_set.read_lines(part)]
    assert len(rows) == json.loads((sampled / data_set.COUNTS).read_text())["kept"] >= 8
    compared = folder(uninterrupted, "compare")
    values = {name: json.loads((compared / "models" / f"{name}.json").read_text()) for name in ("zero", "student")}
    assert values["zero"].keys() == values["student"].keys() and values["zero"] != values["student"]


# In every stage, and where one has handed over to the next: the file that is half written when the process dies, and which of its
# kind it is in the life of that process.
HALF_WRITTEN = (
    ("pretrain", "2 pretrain-*/checkpoints/last.ckpt"),
    ("grpo", "2 grpo-*/checkpoints/last.ckpt"),
    ("grpo", "1 grpo-*/artefact.json"),
    ("sample", "2 sample-*/blocks/block-*.jsonl"),
    ("sample", "1 sample-*/*/part-*.jsonl"),
    ("sft", "2 sft-*/checkpoints/last.ckpt"),
    ("compare", "1 compare-*/models/student.json"),
)


def half_written(root: Path, moment: str) -> list[Path]:
    """What was left of the moment's file beside its place."""
    place, name = moment.split()[1].rsplit("/", 1)
    return list(root.glob(f"{place}/.{name}.*.tmp"))


@pytest.mark.slow
def test_killed_while_it_writes_in_every_stage_the_bits_are_the_same(
    configs: Path, uninterrupted: Path, tmp_path: Path
) -> None:
    """The earlier stages are whole then and never made again, the later ones have not begun."""
    whole: dict[str, int] = {}
    for stage, moment in HALF_WRITTEN:
        assert start(configs, tmp_path, moment).wait(timeout=LIMIT_S) == -signal.SIGKILL, moment
        (left,) = half_written(tmp_path, moment)
        assert left.stat().st_size > 0
        there = [name for name in STAGES if list(tmp_path.glob(f"{name}-*"))]
        assert there == list(STAGES[: STAGES.index(stage) + 1]), moment
        finished = [name for name in there if store.is_complete(folder(tmp_path, name))]
        assert finished == there[:-1], moment
        now = {name: (folder(tmp_path, name) / store.MARKER).stat().st_mtime_ns for name in finished}
        assert {name: now[name] for name in whole} == whole
        whole = now
    assert start(configs, tmp_path).wait(timeout=LIMIT_S) == 0
    assert_same_graph(tmp_path, uninterrupted)


# Which file has just been written, and where the command then is; each kill follows after a random pause.
MOMENTS = {
    "pretraining": "pretrain-*/checkpoints/last.ckpt",
    "GRPO": "grpo-*/checkpoints/last.ckpt",
    "between GRPO and sampling": "grpo-*/artefact.json",
    "sampling": "sample-*/blocks/block-*.jsonl",
    "between sampling and SFT": "sample-*/*/part-*.jsonl",
    "SFT": "sft-*/checkpoints/last.ckpt",
    "comparing": "compare-*/models/*.json",
}


@pytest.mark.long
@pytest.mark.parametrize("seed", range(5))
def test_killed_again_and_again_the_graph_is_the_same(
    configs: Path, uninterrupted: Path, tmp_path: Path, seed: int, record_property: Callable[[str, object], None]
) -> None:
    """One kill per moment of `MOMENTS` at most; which of them hit a running process is recorded (`--junitxml`).

    Sampling and comparing take parts of a second, so that a kill there may come when the next stage is at work, or too late.
    """
    pauses = random_pauses(seed)
    run = Killed(tmp_path, lambda: start(configs, tmp_path))
    hits = {moment: run.until(file, next(pauses)) for moment, file in MOMENTS.items()}
    run.finish()
    for moment, hit in hits.items():
        record_property(moment, int(hit))
    assert_same_graph(tmp_path, uninterrupted)
    assert sum(hits.values()) >= 4, hits
