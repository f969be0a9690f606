"""A run's records: the numbers of the very update, the same after an interruption, bounded, and without a trace in the weights."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch

from r1_lightning.artefacts.checkpoint_file import checkpoint_to_resume
from r1_lightning.callbacks.checkpoint import ResumeCheckpoint
from r1_lightning.callbacks.rollout_records import RolloutRecords
from r1_lightning.review.record_file import RecordFile
from r1_lightning.review.rollout_records import NEWEST, ROLLOUTS, RolloutRecord, read_records
from r1_lightning.rollout.scoring import completion_index, score_completions
from r1_lightning.types.errors import InvalidInput
from r1_lightning.types.processes import ONE, Processes
from tests.support.miniature import CharTokenizer, Miniature, Spy, fingerprint, ppo_rollouts, rollout_config, trainer
from tests.support.processes import in_processes

STEPS = 6
KINDS: dict[str, Callable[[], Miniature]] = {
    "two minibatches": lambda: Miniature(max_steps=STEPS),
    "one minibatch": lambda: Miniature(max_steps=STEPS, rollout=rollout_config(minibatches_per_rollout=1)),
    "micro-batches": lambda: Miniature(
        max_steps=STEPS, rollout=rollout_config(minibatches_per_rollout=3, micro_batches=2)
    ),
    "dynamic sampling": lambda: Miniature(max_steps=STEPS, rollout=rollout_config(dynamic_sampling_attempts=2)),
    "ppo": lambda: Miniature(max_steps=STEPS, rollout=ppo_rollouts(minibatches_per_rollout=3, micro_batches=2)),
}


def fit(
    kind: str, folder: Path, *callbacks: L.Callback, stop: int = STEPS, records: bool = True, **settings: Any
) -> Miniature:
    """Train to step `stop`, from the checkpoint in `folder` if there is one."""
    folder.mkdir(exist_ok=True)
    miniature = KINDS[kind]()
    module = (miniature.ppo if kind == "ppo" else miniature.grpo)()
    ours = [RolloutRecords(groups=2, folder=folder)] if records else []
    halt = Spy("on_train_batch_end", lambda fit, *_: setattr(fit, "should_stop", fit.global_step >= stop))
    saver = ResumeCheckpoint(folder / "checkpoints", 1)
    path = checkpoint_to_resume(folder / "checkpoints")
    made = trainer(
        STEPS,
        folder,
        [*ours, *callbacks, halt, saver],
        accumulate_grad_batches=miniature.rollout.micro_batches,
        **settings,
    )
    made.fit(module, datamodule=miniature.rollouts(), ckpt_path=path, weights_only=True if path else None)
    return miniature


def content(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in (ROLLOUTS, NEWEST)}


class Forwards(L.Callback):
    """Scores every batch as the training step will, by the text of each completion's row: what records must agree with."""

    def __init__(self) -> None:
        self.found: dict[tuple[str, int], tuple[list[float], list[float]]] = {}

    @torch.no_grad()
    def on_train_batch_start(self, fit: L.Trainer, module: Any, batch: Any, batch_idx: int) -> None:
        scored = score_completions(module.backbone, batch, module.sampling_temperature)
        index = completion_index(batch)
        sequences, ids = batch.sequence_ids.flatten()[index], batch.tokens.token_ids.flatten()
        for sequence in sequences.unique().tolist():
            places = index[sequences == sequence]
            whole = ids[batch.sequence_ids.flatten() == sequence].tolist()  # prompt and completion
            text = CharTokenizer().decode_batch([whole])[0]
            chosen = torch.isin(index, places)
            numbers = (scored.logprobs[chosen].tolist(), scored.entropies[chosen].tolist())
            self.found[text, batch.policy_version] = numbers


@pytest.mark.parametrize(
    "kind", ["micro-batches", *(pytest.param(k, marks=pytest.mark.slow) for k in KINDS if k != "micro-batches")]
)
def test_they_hold_the_numbers_of_the_update_and_leave_no_trace(kind: str, tmp_path: Path) -> None:
    forwards = Forwards()
    with_them = fit(kind, tmp_path, forwards)
    found = list(read_records(tmp_path))
    per_rollout = with_them.rollout.minibatches_per_rollout
    # Two of three groups of 4 of every rollout, and all of the last one.
    assert [record.step for record in found] == [
        *(step for step in range(0, STEPS, per_rollout) for _ in range(8)),
        *[STEPS - per_rollout] * 4,
    ]
    assert {record.prompt_index for record in found[:8]} == {0, 1}
    for record in found:
        logprobs, entropies = forwards.found[record.prompt + record.completion, record.step]
        assert record.tokens.policy_logprob == pytest.approx(logprobs, abs=6e-5)
        assert record.tokens.entropy == pytest.approx(entropies, abs=6e-5)
    assert fingerprint(with_them.model) == fingerprint(fit(kind, tmp_path / "bare", records=False).model)


@pytest.mark.parametrize("kind", ["one minibatch", "micro-batches"])
def test_the_first_minibatch_of_a_rollout_shows_the_samplers_own_numbers(kind: str, tmp_path: Path) -> None:
    """No weight has moved yet, so trainer and sampler agree; in later minibatches they do not."""
    fit(kind, tmp_path)
    gaps = [
        max(abs(a - b) for a, b in zip(r.tokens.policy_logprob, r.tokens.sampler_logprob, strict=True))
        for r in read_records(tmp_path)
    ]
    assert (max(gaps) < 2e-4) == (kind == "one minibatch") and min(gaps) < 2e-4


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_ended_after_every_step_and_resumed_the_bytes_are_the_same(kind: str, tmp_path: Path) -> None:
    for stop in range(1, STEPS + 1):
        fit(kind, tmp_path / "parts", stop=stop)
    fit(kind, tmp_path / "whole")
    assert content(tmp_path / "parts") == content(tmp_path / "whole")


def test_a_fault_leaves_the_newest_rollout_and_the_resumed_run_the_same_bytes(tmp_path: Path) -> None:
    class Fault(Exception):
        pass

    def fail(made: L.Trainer, *_: Any) -> None:
        if made.global_step == 3:
            raise Fault

    folder = tmp_path / "parts"
    with pytest.raises(Fault):
        fit("two minibatches", folder, Spy("on_train_batch_start", fail))
    newest = [json.loads(line) for line in (folder / NEWEST).read_bytes().splitlines()]
    assert {row["step"] for row in newest} == {2} and len(newest) == 12
    assert {record.step for record in read_records(folder)} == {0, 2}
    known = [row["tokens"]["policy_logprob"] is not None for row in newest]
    assert sum(known) == 6, "of the minibatch of step 2, and not of that of step 3"
    fit("two minibatches", folder)
    fit("two minibatches", tmp_path / "whole")
    assert content(folder) == content(tmp_path / "whole")


def small(folder: Path, limit: int) -> Callable[[], RolloutRecords]:
    def make() -> RolloutRecords:
        callback = RolloutRecords(groups=2, folder=folder)
        callback.file = RecordFile(folder / ROLLOUTS, limit)
        return callback

    return make


def test_the_file_keeps_below_its_limit_and_completions_lose_their_columns(tmp_path: Path) -> None:
    fit("one minibatch", tmp_path, small(tmp_path, 10_000)(), records=False)
    found = [record for record in read_records(tmp_path) if record.step < STEPS - 1]
    assert (tmp_path / ROLLOUTS).stat().st_size <= 10_000 and {record.step for record in found} == set(range(STEPS - 1))
    # An eighth of it, 1,237 bytes, holds one group of 4 at best: 279 bytes a line, too few for any column.
    assert {record.prompt_index for record in found} == {0} and all(not record.tokens.text for record in found)


def test_a_folder_that_cannot_be_written_ends_the_records_and_not_the_run(tmp_path: Path) -> None:
    (tmp_path / ROLLOUTS).mkdir()
    with pytest.warns(UserWarning, match="rollout records: .*training goes on without them"):
        with_it = fit("one minibatch", tmp_path)
    assert list(read_records(tmp_path)) == []
    assert fingerprint(with_it.model) == fingerprint(fit("one minibatch", tmp_path / "bare", records=False).model)


def test_other_stages_and_no_folder_write_nothing(tmp_path: Path) -> None:
    miniature = Miniature(max_steps=2)
    trainer(2, tmp_path, [RolloutRecords(folder=tmp_path)]).fit(miniature.pretrain(), datamodule=miniature.text())
    trainer(2, tmp_path, [RolloutRecords()]).fit(miniature.grpo(), datamodule=miniature.rollouts())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("settings", "field"),
    [({"groups": 0}, "groups=0"), ({"megabytes": 0}, "megabytes=0"), ({"megabytes": 129}, "megabytes=129")],
)
def test_bad_settings_are_named(settings: dict[str, int], field: str) -> None:
    with pytest.raises(InvalidInput, match=rf"callbacks\.rollout_records\.{field}"):
        RolloutRecords(**settings)


def test_a_record_reads_as_what_was_sampled(tmp_path: Path) -> None:
    fit("one minibatch", tmp_path)
    record: RolloutRecord = next(read_records(tmp_path))
    assert "".join(record.tokens.text) == record.completion and record.length == len(record.tokens.text)
    assert record.parts[0].reason == "a hash" and record.tokens.advantage == (record.advantage,) * record.length


def _of_processes(processes: Processes, folder: Path) -> dict[str, bytes]:
    miniature = Miniature(max_steps=4, processes=processes)
    callback = RolloutRecords(groups=2, folder=folder, processes=processes)
    settings = {"accumulate_grad_batches": 1}
    trainer(4, folder, [callback], processes, **settings).fit(miniature.grpo(), datamodule=miniature.rollouts())
    processes.barrier()
    return content(folder)


@pytest.mark.slow
def test_several_processes_put_their_numbers_together(tmp_path: Path) -> None:
    """Each computes its share of the rows; the records are those of one process, but for the last digits."""
    first, second = in_processes(2, _of_processes, tmp_path)
    assert first == second and list(first) == [ROLLOUTS, NEWEST]
    found = list(read_records(tmp_path))
    (tmp_path / "alone").mkdir()
    _of_processes(ONE, tmp_path / "alone")
    alone = list(read_records(tmp_path / "alone"))
    assert [record.key for record in found] == [record.key for record in alone] and len(found) == 20
    for one, other in zip(found, alone, strict=True):
        assert (one.completion, one.reward) == (other.completion, other.reward)
        assert one.tokens.policy_logprob == pytest.approx(other.tokens.policy_logprob, abs=3e-4)
        assert one.tokens.entropy == pytest.approx(other.tokens.entropy, abs=3e-4)
