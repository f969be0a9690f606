"""The student's own text: at the drawn share of steps, by the weights of that step, its completions alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from r1_lightning.data.on_policy_data import OnPolicyDataModule, OnPolicySteps
from r1_lightning.rollout.groups import rollout_keys
from r1_lightning.text.chat_template import PLAIN
from r1_lightning.types.errors import InvalidInput
from r1_lightning.types.tensors import DistillBatch
from tests.support.miniature import CharTokenizer, Miniature, Spy, Sums, fingerprint, rollout_config, trainer


def steps(fraction: float, miniature: Miniature, taken: list[int]) -> OnPolicySteps:
    module = miniature.on_policy(fraction)
    return OnPolicySteps(module.text(), module.prompts, module.generate, 0, fraction, lambda: taken[0])


def test_a_step_is_one_completion_of_each_of_its_problems() -> None:
    miniature = Miniature()
    found = steps(1.0, miniature, [2])(2)
    prompts = [CharTokenizer().encode(PLAIN.render(Sums().train_problem(0, 12 + n).question)) for n in range(6)]
    generation = miniature.sampler()(prompts, 1, rollout_keys(2, 6, 1))
    assert found.is_on_policy and len(found.rows) == 6
    for number, (row, prompt) in enumerate(zip(found.rows, prompts, strict=True)):
        length = int(generation.completion_mask[number].sum())
        assert list(row.ids) == prompt + generation.completion_ids[number, :length].tolist()
        assert row.first_target == len(prompt) and row.n_targets == length > 0


def test_the_share_is_drawn_from_seed_and_step() -> None:
    half = steps(0.5, Miniature(), [0])
    drawn = [half.is_on_policy(step) for step in range(1000)]
    assert 450 < sum(drawn) < 550  # 500 +- 3 standard deviations of 15.8
    assert drawn == [steps(0.5, Miniature(), [0]).is_on_policy(step) for step in range(1000)]
    assert not any(steps(0.0, Miniature(), [0]).is_on_policy(step) for step in range(100))
    assert all(steps(1.0, Miniature(), [0]).is_on_policy(step) for step in range(100))


def test_the_other_steps_are_text() -> None:
    miniature = Miniature()
    none = steps(0.0, miniature, [5])(1)
    assert not none.is_on_policy and none.rows == miniature.traces().text()(1).rows


def test_text_of_another_moment_is_refused() -> None:
    with pytest.raises(RuntimeError, match="text for step 3 asked for after 2 optimizer steps"):
        steps(1.0, Miniature(), [2])(3)


def test_each_step_learns_what_the_weights_of_that_step_wrote(tmp_path: Path) -> None:
    """Two micro-batches per step: the second is of the same completions, and after the step others are written."""
    miniature = Miniature(max_steps=3)
    module = miniature.on_policy(1.0, micro_batches=2)
    asked: list[int] = []
    original = module.generate

    def generate(*arguments: Any, **keywords: Any) -> Any:
        asked.append(fingerprint(miniature.model))
        return original(*arguments, **keywords)

    module.generate = generate
    at_start: list[int] = []
    batches: list[DistillBatch] = []
    spies = [
        Spy("on_train_batch_start", lambda _, stage, batch, __: batches.append(batch)),
        Spy("on_train_batch_start", lambda _, stage, *__: at_start.append(fingerprint(stage.backbone))),
    ]
    trainer(3, tmp_path, spies, accumulate_grad_batches=2).fit(miniature.distill(), datamodule=module)
    assert len(asked) == 3 and len(set(asked)) == 3
    assert asked == at_start[::2] == at_start[1::2]
    assert len({batch.n_tokens for batch in batches[:2]}) == 1 and all(batch.is_on_policy for batch in batches)
    assert sum(int(batch.target_mask.sum()) for batch in batches[:2]) == batches[0].n_tokens


def test_a_row_too_short_is_refused_before_anything_is_sampled() -> None:
    module = Miniature(rollout=rollout_config(max_new_tokens=20)).on_policy(1.0)
    with pytest.raises(
        InvalidInput, match=r"data.row_tokens=24 is not allowed: .*a prompt of \d tokens with max_new_tokens = 20"
    ):
        module.setup("fit")
    Miniature(rollout=rollout_config(max_new_tokens=20)).on_policy(0.0).setup("fit")  # nothing is sampled here


def test_the_fraction_is_checked() -> None:
    with pytest.raises(InvalidInput, match=r"data.on_policy_fraction=1.5 is not allowed"):
        Miniature().on_policy(1.5)


def test_a_prompt_is_never_learned() -> None:
    found: OnPolicyDataModule = Miniature().on_policy(1.0)
    found._optimizer_steps = lambda: 0  # type: ignore[method-assign]
    found.setup("fit")
    assert found.dataset is not None
    batch = found.dataset[0]
    prompt = len(PLAIN.render(Sums().train_problem(0, 0).question))
    assert not batch.target_mask[batch.tokens.position_ids < prompt].any()
    assert torch.equal(batch.target_mask, batch.tokens.is_token & (batch.tokens.position_ids >= prompt))
