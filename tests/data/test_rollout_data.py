"""On-policy data: every rollout is made by the weights of exactly the step that trains on it, and can be resumed."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from torch import Tensor

from r1_lightning.data.rollout_data import RolloutDataset
from r1_lightning.types.errors import InvalidInput
from r1_lightning.types.tensors import Generation, GRPOBatch
from r1_lightning.types.text import Problem
from tests.support.miniature import Miniature, Spy, Sums, fingerprint, rollout_config, trainer


class WatchedSampler:
    """A sampler that notes the weights it samples with, and the key of the rollout it is asked for."""

    def __init__(self, miniature: Miniature) -> None:
        self.model, self.sampler = miniature.model, miniature.sampler()
        self.made: list[tuple[int, int]] = []  # (rollout number, fingerprint of the weights)

    def __call__(self, prompts: Any, copies: int, keys: Tensor, max_new_tokens: int | None = None) -> Generation:
        self.made.append((int(keys[0, 0]), fingerprint(self.model)))
        return self.sampler(prompts, copies, keys, max_new_tokens)


def refuses(*_: Any) -> Generation:
    raise AssertionError("nothing may be sampled here")


def dataset(miniature: Miniature, generate: Any = None, steps: Any = None) -> RolloutDataset:
    """A data set whose policy has taken as many steps as are asked for, unless `steps` says otherwise."""
    maker = miniature.maker(generate)
    result = RolloutDataset(maker, Sums(), miniature.seed, miniature.max_steps, steps or (lambda: result.asked))
    result.asked = 0
    return result


def item(data: RolloutDataset, step: int) -> GRPOBatch:
    data.asked = step
    return data[step]


def assert_same(left: Any, right: Any) -> None:
    """Two dataclasses of tensors and numbers are equal, bit for bit."""
    for entry in dataclasses.fields(left):
        a, b = getattr(left, entry.name), getattr(right, entry.name)
        if dataclasses.is_dataclass(a):
            assert_same(a, b)
        elif isinstance(a, Tensor):
            assert torch.equal(a, b), entry.name
        else:
            assert a == b, entry.name


def test_each_rollout_is_generated_by_the_weights_of_exactly_its_step(tmp_path: Path) -> None:
    miniature = Miniature(max_steps=6)  # two minibatches per rollout: rollouts 0, 1, 2 at steps 0, 2, 4
    sampler = WatchedSampler(miniature)
    module, data = miniature.grpo(), miniature.rollouts(sampler)
    at_step: dict[int, int] = {}
    batches: list[tuple[int, int, int]] = []

    def before(fit: L.Trainer, _: Any, batch: GRPOBatch, batch_idx: int) -> None:
        at_step[fit.global_step] = fingerprint(miniature.model)
        assert data.dataset.rollout is not None
        batches.append((fit.global_step, data.dataset.rollout.number, batch.policy_version))

    trainer(6, tmp_path, [Spy("on_train_batch_start", before)]).fit(module, datamodule=data)
    assert batches == [(0, 0, 0), (1, 0, 0), (2, 1, 2), (3, 1, 2), (4, 2, 4), (5, 2, 4)]
    assert sampler.made == [(0, at_step[0]), (1, at_step[2]), (2, at_step[4])]
    assert len(set(at_step.values())) == 6  # every step did change the weights, so that equal means the same moment


def test_the_batch_fetched_one_step_early_is_refused() -> None:
    miniature = Miniature()
    data = dataset(miniature, steps=lambda: 1)
    with pytest.raises(RuntimeError, match="rollout for step 2 asked for after 1 optimizer steps: it would be stale"):
        data[2]
    data = dataset(miniature, steps=lambda: 3)
    with pytest.raises(RuntimeError, match="stale"):
        data[2]


def test_minibatches_of_a_rollout_hold_each_completion_once() -> None:
    data = dataset(Miniature())
    first, second = item(data, 0), item(data, 1)
    rollout = data.rollout
    assert rollout is not None and rollout.number == 0
    advantages = torch.cat([batch.advantages[batch.completion_mask] for batch in (first, second)])
    mask = rollout.generation.completion_mask
    assert advantages.sort().values.tolist() == rollout.advantages[mask].sort().values.tolist()
    lengths = mask.sum(1)
    assert int(first.completion_mask.sum() + second.completion_mask.sum()) == int(lengths.sum())
    assert first.n_sequences == second.n_sequences == 6


def test_a_rollout_is_made_once_and_a_new_one_when_it_is_used_up() -> None:
    miniature = Miniature()
    sampler = WatchedSampler(miniature)
    data = dataset(miniature, sampler)
    versions = [item(data, step).policy_version for step in range(6)]
    assert [number for number, _ in sampler.made] == [0, 1, 2]
    assert versions == [0, 0, 2, 2, 4, 4] and len(data) == 6


def test_rollouts_walk_through_the_training_stream() -> None:
    data = dataset(Miniature(seed=5))
    ids = [problem.problem_id for number in range(3) for problem in data.problems(number)]
    assert ids == [str(index) for index in range(9)]
    assert data.problems(1)[0] == Sums().train_problem(5, 3)  # three prompts per rollout


def test_another_seed_draws_other_completions() -> None:
    ids = [item(dataset(Miniature(seed=seed)), 0).tokens.token_ids for seed in (0, 0, 1)]
    assert torch.equal(ids[0], ids[1])
    assert ids[0].shape != ids[2].shape or not torch.equal(ids[0], ids[2])


def test_a_rollout_in_use_is_resumed_without_its_weights() -> None:
    miniature = Miniature()
    data = dataset(miniature)
    item(data, 2)
    expected = item(data, 3)
    buffer = io.BytesIO()
    torch.save(data.state_dict(), buffer)
    buffer.seek(0)
    state = torch.load(buffer, weights_only=True)  # plain tensors and numbers, as checkpoints are read
    again = dataset(miniature, refuses)
    again.load_state_dict(state)
    assert_same(item(again, 3), expected)
    assert again.rollout is not None and data.rollout is not None
    assert again.rollout.summary() == data.rollout.summary()
    assert list(again.rollout.texts) == list(data.rollout.texts)
    assert again.rollout.reasons == data.rollout.reasons == {"accuracy": ["a hash"] * len(data.rollout.texts)}


def test_resumed_between_rollouts_it_samples_the_next_one() -> None:
    miniature = Miniature()
    data = dataset(miniature)
    item(data, 1)
    sampler = WatchedSampler(miniature)
    again = dataset(miniature, sampler)
    again.load_state_dict(data.state_dict())
    assert_same(item(again, 2), item(data, 2))
    assert [number for number, _ in sampler.made] == [1]


def test_nothing_is_saved_before_the_first_rollout() -> None:
    data = dataset(Miniature())
    assert data.state_dict() == {}
    data.load_state_dict({})
    assert data.rollout is None


def test_the_version_counted_is_the_trainers(tmp_path: Path) -> None:
    """A Trainer that has taken steps of its own (here: more than one per item) makes the data refuse, not go stale."""
    miniature = Miniature(rollout=rollout_config(minibatches_per_rollout=1))
    data = miniature.rollouts()
    fit = trainer(6, tmp_path, accumulate_grad_batches=2)
    with pytest.raises(RuntimeError, match="rollout for step 1 asked for after 0 optimizer steps"):
        fit.fit(miniature.grpo(), datamodule=data)


def test_a_prompt_too_long_anywhere_in_the_run_is_left_out_and_named_before_the_first_step() -> None:
    """Rollout 2 of 3 holds the long question: another problem stands in its place, and the line names it. Nothing is sampled."""

    class Growing(Sums):
        def train_problem(self, seed: int, index: int) -> Problem:
            problem = super().train_problem(seed, index)
            return dataclasses.replace(problem, question="1" * 20) if index == 7 else problem

    miniature = Miniature(max_steps=6)  # two minibatches per rollout: three rollouts of three problems
    data = RolloutDataset(miniature.maker(refuses), Growing(), miniature.seed, 6, lambda: 0)
    name = Growing().train_problem(miniature.seed, 7).problem_id
    assert data.check_prompts() == (
        "prompts: 1 problem leaves no room for 10 tokens of an answer (rollout.row_tokens=24) and is left out; "
        f"the first: {name}, 20 tokens"
    )
    found = data.problems(2)
    assert len(found) == 3 and all(len(problem.question) < 20 for problem in found)
    assert found[0] == Growing().train_problem(miniature.seed, 6) and found[2] == Growing().train_problem(
        miniature.seed, 8
    )
    data = RolloutDataset(miniature.maker(refuses), Growing(), miniature.seed, 4, lambda: 0)
    assert data.check_prompts() == ""  # not reached


def test_a_row_too_short_for_most_prompts_is_refused_before_the_first_step() -> None:
    class Long(Sums):
        def train_problem(self, seed: int, index: int) -> Problem:
            problem = super().train_problem(seed, index)
            return problem if index % 4 == 0 else dataclasses.replace(problem, question="1" * 20)

    miniature = Miniature(max_steps=6)
    data = RolloutDataset(miniature.maker(refuses), Long(), miniature.seed, 6, lambda: 0)
    with pytest.raises(
        InvalidInput, match=r"rollout\.row_tokens=24 .*: 6 of 9 prompts leave no room: .* needs a row of 30"
    ):
        data.check_prompts()


@pytest.mark.parametrize("parts", [2, 5])
def test_a_minibatch_computed_in_parts_is_the_same_step(tmp_path: Path, parts: int) -> None:
    """Weights after four steps and every metric of each agree with those of whole minibatches, to rounding."""

    def run(micro_batches: int) -> tuple[torch.nn.Module, list[dict[str, float]]]:
        miniature = Miniature(max_steps=4, rollout=rollout_config(micro_batches=micro_batches))
        data, rows = miniature.rollouts(), []

        def note(fit: L.Trainer, *_: Any) -> None:
            if fit.global_step > len(rows):
                rows.append({name: float(value) for name, value in fit.callback_metrics.items()})

        fit = trainer(4, tmp_path, [Spy("on_train_batch_end", note)], accumulate_grad_batches=data.micro_batches)
        fit.fit(miniature.grpo(), datamodule=data)
        assert fit.global_step == 4 and len(data.dataset) == 4 * micro_batches
        return miniature.model, rows

    (whole, rows), (split, split_rows) = run(1), run(parts)
    for expected, found in zip(whole.parameters(), split.parameters(), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)
    assert len(rows) == len(split_rows) == 4 and {"policy/entropy", "policy/clip_fraction", "train/loss"} <= set(
        rows[0]
    )
    for expected, found in zip(rows, split_rows, strict=True):
        assert found == pytest.approx(expected, rel=1e-3, abs=1e-4)


def test_a_source_that_changes_is_asked_for_the_step_at_which_the_rollout_begins() -> None:
    """Two minibatches per rollout and three attempts: draw 7 is the second attempt of rollout 2, which begins at step 4."""

    class Stepwise(Sums):
        def at_step(self, step: int) -> Sums:
            steps.append(step)
            return Sums()

    steps: list[int] = []
    miniature = Miniature(rollout=rollout_config(dynamic_sampling_attempts=3))
    data = RolloutDataset(miniature.maker(refuses), Stepwise(), 5, 8, lambda: 0)
    assert [data.problems(drawn) for drawn in (0, 2, 3, 7)][1] == [Sums().train_problem(5, i) for i in (6, 7, 8)]
    assert steps == [0, 0, 2, 4]
