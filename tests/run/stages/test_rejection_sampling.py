"""`stage=sample` from the command line to the data set: kills, processes, mixing, contamination, reuse, damage."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from r1_lightning.artefacts import data_set, lineage, store
from r1_lightning.model.backbone import DeepSeekBackbone
from r1_lightning.rollout import sampled_rows
from r1_lightning.run.stages import rejection_sampling as sampling
from r1_lightning.run.stages.kinds import run_stage
from r1_lightning.text.answers import final_answer
from r1_lightning.text.chat_template import PLAIN
from r1_lightning.types.processes import Processes
from tests.run.conftest import REAL_CONFIGS, Command, Outcome
from tests.support.commands import ROOT
from tests.support.miniature import CharTokenizer, Sums
from tests.support.processes import in_processes
from tests.support.sampling import base_artefact, overrides, parts

Sample = Callable[..., Outcome]


@pytest.fixture
def sample(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sample:
    """`sample("stage.samples=3", root="a")` runs the stage with the miniature for a model."""
    monkeypatch.setattr(sampling, "build_parts", parts)
    base = base_artefact(tmp_path / "given")

    def run(*more: str, root: str = "runs") -> Outcome:
        return command(*overrides(tmp_path / root, base, *more), recorder=run_stage, configs=REAL_CONFIGS)

    return run


def _folder(root: Path) -> Path:
    (folder,) = root.glob("sample-*")
    return folder


def _bytes(folder: Path) -> dict[str, bytes]:
    """Blocks and parts: what must not depend on kills and processes."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted([*folder.glob("blocks/*"), *folder.glob("data/*")])
    }


def test_from_the_command_line_to_the_data_set(sample: Sample, tmp_path: Path) -> None:
    done = sample()
    assert done.code == 0, done.err
    artefact = store.open_artefact(_folder(tmp_path / "runs"))
    store.verify(artefact)
    rows = [row for part in data_set.parts_of(artefact.folder) for row in data_set.read_lines(part)]
    counts = json.loads((artefact.folder / data_set.COUNTS).read_text())
    assert len(rows) == counts["rows"] == counts["kept"] > 0
    assert counts["problems"] == 20 and counts["samples"] == 120 == sum(counts["samples_by_fate"].values())
    assert artefact.metrics["sample/rows"] == len(rows) and artefact.inputs["base"]["stage"] == "grpo"
    assert {row["question"] for row in rows} <= {parts_problem(index) for index in range(20)}
    assert max(sum(row["index"] == index for row in rows) for index in range(20)) <= 4
    card = (artefact.folder / data_set.CARD).read_text()
    assert f"{len(rows)} rows; 120 samples of 20 problems" in card
    assert artefact.fingerprint[:10] in card and "python train.py stage=sample" in card and "grpo  bbbbbbbbbb" in card
    assert "└─ base: grpo" in lineage.render(artefact)
    assert f"rows of the data set  {len(rows)}" in done.out
    before = _bytes(artefact.folder)
    again = sample()
    assert again.code == 0 and "reusing" in again.out and _bytes(artefact.folder) == before


def parts_problem(index: int) -> str:
    return f"{10 + (7 * index) % 90}+{(11 * index) % 10}="


def test_a_run_killed_between_blocks_goes_on_to_the_same_bytes(
    sample: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert sample(root="whole").code == 0
    write, made = data_set.write_lines, []

    def dying(path: Path, rows: object) -> None:
        if len(made) == 2:
            raise KeyboardInterrupt
        made.append(path.name)
        write(path, rows)

    with monkeypatch.context() as patch:
        patch.setattr(data_set, "write_lines", dying)
        assert sample(root="killed").code == 130
    folder = _folder(tmp_path / "killed")
    assert made == ["block-00000.jsonl", "block-00001.jsonl"] and not store.is_complete(folder)
    (folder / "blocks" / ".block-00002.jsonl.1.tmp").write_text(
        '{"half'
    )  # what kill -9 leaves while a block is written
    kept = folder.joinpath("blocks", made[0]).stat().st_mtime_ns
    after = sample(root="killed")
    assert after.code == 0 and "resuming" in after.out
    assert folder.joinpath("blocks", made[0]).stat().st_mtime_ns == kept, "a block that is there is not made again"
    (folder / "blocks" / ".block-00002.jsonl.1.tmp").unlink()
    assert _bytes(folder) == _bytes(_folder(tmp_path / "whole"))


def test_a_run_killed_while_the_parts_are_written(
    sample: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert sample(root="whole").code == 0
    with monkeypatch.context() as patch:
        patch.setattr(sampling, "render_card", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        assert sample(root="killed").code == 130
    folder = _folder(tmp_path / "killed")
    assert not store.is_complete(folder) and data_set.parts_of(folder)
    data_set.part_path(folder, 7).write_text("of another life\n")
    assert sample(root="killed").code == 0
    assert _bytes(folder) == _bytes(_folder(tmp_path / "whole"))


def test_shares_of_the_work_give_the_same_data_set(sample: Sample, tmp_path: Path) -> None:
    assert sample(root="one").code == 0
    for order in ((0, 1, 2), (2, 0, 1)):
        root = f"three-{order[0]}"
        outcomes = [sample(f"stage.shard={shard}", "stage.shards=3", root=root) for shard in order]
        assert [outcome.code for outcome in outcomes] == [0, 0, 0]
        folder = _folder(tmp_path / root)
        assert [store.digits_of(folder) in outcome.out for outcome in outcomes] == [True] * 3
        assert f"shard {order[0]} of 0..2 is done, others are not" in outcomes[0].out
        assert "rows of the data set" in outcomes[2].out and "rows of the data set" not in outcomes[1].out
        assert folder.name == _folder(tmp_path / "one").name, "who does the work is not in the fingerprint"
        assert _bytes(folder) == _bytes(_folder(tmp_path / "one"))
    late = sample("stage.shard=1", "stage.shards=3", root="three-0")
    assert late.code == 0 and "reusing" in late.out


def test_one_process_takes_over_what_others_left(sample: Sample, tmp_path: Path) -> None:
    assert sample("stage.shard=1", "stage.shards=2").code == 0
    blocks = sorted(path.name for path in _folder(tmp_path / "runs").glob("blocks/*"))
    assert blocks == ["block-00001.jsonl", "block-00003.jsonl"]  # 5 blocks, every second
    assert sample().code == 0 and store.is_complete(_folder(tmp_path / "runs"))


def test_contaminated_and_repeated_problems_are_not_sampled(sample: Sample, tmp_path: Path) -> None:
    """Sums' held-out question i is its training question i + 30 (7 * 30 = 30000 * 3 modulo 90): of 20..39, 30..39 leak."""
    outcome = sample("stage.first_problem=20", "stage.held_out_questions=10")
    assert outcome.code == 0, outcome.err
    folder = _folder(tmp_path / "runs")
    counts = json.loads((folder / data_set.COUNTS).read_text())
    assert counts["not_sampled"]["contaminated"] == 10 and counts["samples"] == 60
    assert counts["contaminated_by"] == {sampling.OWN_TASK: 10} and counts["benchmarks"] == {sampling.OWN_TASK: 10}
    indices = {row["index"] for part in data_set.parts_of(folder) for row in data_set.read_lines(part)}
    assert indices and indices <= set(range(20, 30))


def test_prompts_without_room_are_counted_and_the_first_is_named(
    sample: Sample, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before anything is sampled; here all twenty, so that nothing is."""
    made = sampling._block_maker
    monkeypatch.setattr(sampling, "_block_maker", lambda *given: replace(made(*given), max_prompt_tokens=3))
    outcome = sample()
    assert "prompts: 20 problems leave no room for" in outcome.out and "(model.max_positions=" in outcome.out
    assert "are left out; the first: " in outcome.out and "none was drawn" in outcome.err


def test_a_short_run_of_words_leaves_nothing(sample: Sample) -> None:
    """All sums ask in the same words, so that with runs of one word every problem is contaminated."""
    assert "none was drawn" in sample("stage.held_out_questions=10", "stage.contamination_ngram=1").err
    assert "contamination_ngram=0" in sample("stage.held_out_questions=10", "stage.contamination_ngram=0").err


def test_a_benchmark_by_name(sample: Sample, tmp_path: Path) -> None:
    """Another task's held-out questions, composed into `stage.benchmarks`."""
    sums = "{source: {_target_: tests.support.miniature.Sums}}"
    assert sample(f"+stage.benchmarks.sums={sums}", "stage.first_problem=30", "stage.held_out_questions=5").code == 0
    counts = json.loads((_folder(tmp_path / "runs") / data_set.COUNTS).read_text())
    assert counts["benchmarks"] == {sampling.OWN_TASK: 5, "sums": 5} and counts["not_sampled"]["contaminated"] == 5


def _general(folder: Path, count: int) -> str:
    rows = [{"question": f"Say {number}", "completion": f"{number}."} for number in range(count)]
    (folder / "general.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    target = "r1_lightning.tasks.answered_file.AnsweredFile"
    return f"+stage.sources.general={{_target_: {target}, folder: {folder}, name: general.jsonl, domain: chat}}"


def test_sources_are_mixed_to_their_shares(sample: Sample, tmp_path: Path) -> None:
    general = _general(tmp_path, 4)
    assert sample(general, "+stage.shares={reasoning: 3, general: 1}").code == 0
    folder = _folder(tmp_path / "runs")
    counts = json.loads((folder / data_set.COUNTS).read_text())
    rows = [row for part in data_set.parts_of(folder) for row in data_set.read_lines(part)]
    assert counts["kept"] > 12, "general rows are the scarce ones: 4 of them go with 12"
    assert [row["source"] for row in rows] == ["reasoning"] * 12 + ["general"] * 4
    assert rows[-1]["domain"] == "chat" and counts["sources"]["general"] == {
        "available": 4,
        "contaminated": 0,
        "rows": 4,
    }
    assert [row["index"] for row in rows[:12]] == sorted(row["index"] for row in rows[:12])
    written = counts["data_set"]
    assert written["source"] == {"general": 4, "reasoning": 12} and written["domain"] == {"chat": 4, "reasoning": 12}
    lengths = Counter(len(row["completion"]).bit_length() for row in rows)
    assert list(written["completion_characters"].values()) == [lengths[bits] for bits in sorted(lengths)]
    assert sum(written["language"].values()) == counts["rows"] == 16 and "task" not in written
    assert counts["by"]["domain"]["reasoning"]["kept"] == counts["kept"], "the pool's own counts stay"
    assert "| chat | 4 | 25.0 % |" in (folder / data_set.CARD).read_text(encoding="utf-8")
    assert "the sources are reasoning, general" in sample(general, "+stage.shares={poems: 1}", root="bad").err


def test_samples_rewritten_in_r1_form(sample: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The data set and its card say so; the records keep what was sampled (here words without any form)."""
    monkeypatch.setattr(sampled_rows, "in_r1_form", lambda problem, text, key: f"{problem.answer} from {key}: {text}")
    assert sample("stage.rewrite_as=r1").code == 0
    folder = _folder(tmp_path / "runs")
    rows = [row for path in data_set.parts_of(folder) for row in data_set.read_lines(path)]
    assert rows and all(
        row["completion"].startswith(f"{row['answer']} from {row['index']}/{row['sample']}: ") for row in rows
    )
    assert "| kept samples rewritten in the form | r1 |" in (folder / data_set.CARD).read_text(encoding="utf-8")
    assert " from " not in sampling.block_path(folder, 0).read_text(encoding="utf-8")


def test_samples_that_rewriting_would_change_are_dropped_and_counted(
    sample: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of every problem the sample whose answer no box can hold is left out; the block keeps what was sampled."""
    answers = ("7", "{7")

    def record(index: int) -> dict:
        problem = {"question": f"q{index}", "answer": "7", "problem_id": f"p{index}", "language": "en", "level": 1}
        told = {"tokens": 9, "right": True, "fate": "kept"}
        samples = [{**told, "completion": f" <think>a</think><answer>{answer}</answer>"} for answer in answers]
        given = {"index": index, "problem": {**problem, "metadata": {}}, "samples": samples}
        return {**given, "skipped": None, "benchmark": None}

    monkeypatch.setattr(sampling, "_block_maker", lambda *_: Made(record))
    done = sample("stage.rewrite_as=r1")
    assert done.code == 0, done.err
    folder = _folder(tmp_path / "runs")
    rows = [row for path in data_set.parts_of(folder) for row in data_set.read_lines(path)]
    assert [(row["index"], row["sample"]) for row in rows] == [(index, 0) for index in range(20)]
    assert all(final_answer(row["completion"], "r1") == "7" for row in rows)
    counts = json.loads((folder / data_set.COUNTS).read_text())
    fates = {fate: number for fate, number in counts["samples_by_fate"].items() if number}
    assert fates == {"kept": 20, "changed by rewriting": 20} and counts["kept"] == counts["rows"] == 20
    assert counts["sources"]["reasoning"] == {"available": 20, "contaminated": 0, "rows": 20}
    assert "| changed by rewriting | 20 |" in (folder / data_set.CARD).read_text(encoding="utf-8")
    assert sampling.block_path(folder, 0).read_text(encoding="utf-8").count("{7") == 4


class Made:
    """In place of a `BlockMaker`: records by number."""

    source, template, max_prompt_tokens = Sums(), PLAIN, 1_000
    tokenizer = CharTokenizer()

    def __init__(self, record: Callable[[int], dict]) -> None:
        self.record = record

    def __call__(self, block: range, first_of: object) -> list[dict]:
        return [self.record(index) for index in block]


def test_a_data_set_is_a_source_and_no_model(sample: Sample, tmp_path: Path) -> None:
    assert sample("stage.problems=8", root="first").code == 0
    first = _folder(tmp_path / "first")
    second = sample("stage.first_problem=50", f"+stage.inputs.more.folder={first}", root="second")
    assert second.code == 0, second.err
    counts = json.loads((_folder(tmp_path / "second") / data_set.COUNTS).read_text())
    assert counts["sources"]["more"]["rows"] == json.loads((first / data_set.COUNTS).read_text())["rows"]
    assert "more: sample" in lineage.render(store.open_artefact(_folder(tmp_path / "second")))


def _nothing_was_sampled(outcome: Outcome, root: Path, message: str) -> None:
    assert outcome.code == 2 and message in outcome.err, outcome.err
    assert not list(root.glob("sample-*")), "the corrected command would begin in another folder"


def test_a_source_that_is_none_is_refused_before_anything_is_sampled(sample: Sample, tmp_path: Path) -> None:
    """A model, a name for two, and a name that is taken: known as soon as the inputs are there."""
    model = base_artefact(tmp_path / "model")
    shares = sample(f"+stage.inputs.more.folder={model}", "+stage.shares={reasoning: 3, more: 1}")
    _nothing_was_sampled(shares, tmp_path / "runs", "stage.shares.more=1 is not allowed: the sources are reasoning")
    assert sample("stage.problems=8", root="first").code == 0
    first, general = _folder(tmp_path / "first"), _general(tmp_path, 2)
    for role, more in (("general", [general]), ("reasoning", [])):
        clash = sample(f"+stage.inputs.{role}.folder={first}", *more)
        expected = f"stage.inputs.{role}={str(first)!r} is not allowed: another source has this name"
        _nothing_was_sampled(clash, tmp_path / "runs", expected)


def test_a_damaged_block_is_named(sample: Sample, tmp_path: Path) -> None:
    sample("stage.shard=0", "stage.shards=2")
    block = _folder(tmp_path / "runs") / "blocks" / "block-00002.jsonl"
    block.write_text("".join(block.read_text().splitlines(keepends=True)[:-1]))
    refused = sample()
    assert (
        refused.code == 2 and "block-00002.jsonl is damaged: it should hold problems 8 to 11; remove it" in refused.err
    )
    block.unlink()
    assert sample().code == 0


@pytest.mark.parametrize(
    "override, message",
    [
        ("stage.shard=2", "stage.shard=2 is not allowed: it must be a whole number of at least 0 and at most 0"),
        ("stage.samples=0", "stage.samples=0 is not allowed"),
        ("stage.rules.min_edit_distance=2", "stage.rules.min_edit_distance=2 is not allowed"),
        ("~reward", "reward=None is not allowed: stage RejectionSampling needs it"),
        ("~reward.rewards.accuracy", "reward"),
        ("+stage.shares={reasoning: 0}", "one of them must be above 0"),
    ],
)
def test_bad_input_is_one_line(sample: Sample, override: str, message: str, tmp_path: Path) -> None:
    outcome = sample(override)
    assert outcome.code == 2 and len(outcome.err.strip().splitlines()) == 1 and message in outcome.err, outcome.err
    assert not (tmp_path / "runs").exists()


def test_with_shares_fresh_is_refused(sample: Sample) -> None:
    refused = sample("fresh=true", "stage.shards=2")
    assert refused.code == 2 and "fresh=True is not allowed: with stage.shards above 1" in refused.err


def test_where_nothing_is_kept_the_reasons_are_told(sample: Sample, tmp_path: Path) -> None:
    refused = sample("stage.problems=4", "stage.samples=1", "stage.rules.readable.max_paragraph_chars=1")
    assert refused.code == 2 and "stage.rules keep none of 4 samples (unfinished: 4)" in refused.err
    assert not store.is_complete(_folder(tmp_path / "runs"))


def _start(root: Path, base: Path, *more: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "tests.support.sampling", *overrides(root, base, *more)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.slow
def test_two_processes_at_once_and_a_kill_9(sample: Sample, tmp_path: Path) -> None:
    """Both begin in an empty root; one is killed as soon as it has a block, and begun again."""
    assert sample("stage.problems=80", root="one").code == 0
    root, base = tmp_path / "two", base_artefact(tmp_path / "base")
    both = [_start(root, base, "stage.problems=80", "stage.shards=2", f"stage.shard={shard}") for shard in (0, 1)]
    while both[0].poll() is None and not list(root.glob("sample-*/blocks/block-*0.jsonl")):
        time.sleep(0.01)
    both[0].send_signal(signal.SIGKILL)
    both[0].communicate()
    assert both[1].communicate(timeout=300)[1].count("error") == 0 and both[1].returncode == 0
    again = _start(root, base, "stage.problems=80", "stage.shards=2", "stage.shard=0")
    _, err = again.communicate(timeout=300)
    assert again.returncode == 0, err
    folder = _folder(root)
    store.verify(store.open_artefact(folder))
    for path in folder.glob("blocks/.*.tmp"):
        path.unlink()
    assert _bytes(folder) == _bytes(_folder(tmp_path / "one"))


def test_a_model_whose_cache_is_not_its_forward_samples_nothing(
    sample: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = DeepSeekBackbone.step

    def forgetful(*arguments: Any) -> Any:
        output = step(*arguments)
        return dataclasses.replace(output, hidden=output.hidden + 0.5)

    monkeypatch.setattr(DeepSeekBackbone, "step", forgetful)
    refused = sample()
    assert refused.code == 2 and "error: self-check: cached steps and the forward differ by " in refused.err
    monkeypatch.setattr(DeepSeekBackbone, "step", step)
    assert "cached steps with the forward to" in sample().out


@pytest.mark.slow
def test_the_processes_of_a_run_share_its_blocks(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Five blocks over 1, 2 and 3 processes: the same bytes, each block made by one of them, the data set by the first."""
    monkeypatch.setattr(sampling, "build_parts", parts)
    base = base_artefact(tmp_path / "given")

    def job(processes: Processes, given: tuple[Any, ...]) -> list[Any]:
        made: list[Any] = []
        write = data_set.write_lines
        monkeypatch.setattr(data_set, "write_lines", lambda path, lines: (made.append(path.name), write(path, lines)))
        return [sampling.run_sampling(*given), made]

    found = []
    for count in (1, 2, 3):
        given: list[tuple[Any, ...]] = []
        command(
            *overrides(tmp_path / str(count), base),
            recorder=lambda *arguments, given=given: given.append(arguments),
            configs=REAL_CONFIGS,
        )
        results = in_processes(count, job, given[0])
        metrics, names = [result[0] for result in results], [result[1] for result in results]
        assert all(own == metrics[0] for own in metrics) and metrics[0]["sample/problems"] == 20
        blocks = [[name for name in own if name.startswith("block")] for own in names]
        assert sorted(name for own in blocks for name in own) == [f"block-0000{number}.jsonl" for number in range(5)]
        assert [len(own) for own in blocks] == {1: [5], 2: [3, 2], 3: [2, 2, 1]}[count]
        assert all(own == block for own, block in zip(names[1:], blocks[1:], strict=True))
        found.append(_bytes(given[0][2]))
    assert found[0] == found[1] == found[2] and len(found[0]) == 6
