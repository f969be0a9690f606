"""DPO: the loss by loops over single texts, the first step, accumulation, what learns, adapters, and data of the wrong kind."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from r1_lightning.functional.preference_loss import DPO, IPO, BradleyTerry
from r1_lightning.model.hf_model import HFBackbone, HFModelConfig
from r1_lightning.model.lora import LoraSettings
from r1_lightning.rollout.preference_rows import PreferenceRow, collate_preferences
from r1_lightning.stages.base import AdamWConfig
from r1_lightning.stages.dpo import DPOModule
from r1_lightning.stages.reference import BaseAsReference
from r1_lightning.types.errors import InvalidInput
from r1_lightning.types.tensors import PreferenceBatch, TokenBatch
from tests.support.hf_folders import DENSE
from tests.support.miniature import EOS, PAD, Backward, Batches, CharTokenizer, backbone, backwards, trainer

# Prompts of two tokens, one, one and one; the responses of a pair differ in length, too.
PAIRS = [
    PreferenceRow(((1, 2, 3, EOS), (1, 2, 4, 4, EOS)), (1.0, 0.0), 2),
    PreferenceRow(((5, 6, EOS), (5, 7, 7, EOS)), (1.0, 0.0), 1),
    PreferenceRow(((8, 2, EOS), (8, 1, EOS)), (1.0, 0.0), 1),
    PreferenceRow(((9, EOS), (9, 9, EOS)), (1.0, 0.0), 1),
]
LR = AdamWConfig(lr=0.01, weight_decay=0.0)


def batch(rows: list[PreferenceRow] = PAIRS, row_tokens: int = 10) -> PreferenceBatch:
    return collate_preferences(rows, row_tokens, PAD)


def module(objective: Any = None, apart: bool = True, **settings: Any) -> DPOModule:
    """With a reference that is another model (`apart`), so that log-ratios are not 0."""
    model = settings.pop("model", None) or backbone()
    made = DPOModule(model, LR, objective or DPO(kl_coef=0.5), **{"max_steps": 1, **settings})
    if apart:
        made.reference.backbone.load_state_dict(backbone(seed=9).state_dict())
    return made


def step(made: DPOModule, batches: list[PreferenceBatch], folder: Path, **settings: Any) -> Backward:
    return backwards(made, batches, folder, **settings)[0]


@torch.no_grad()
def alone(model: Any, text: tuple[int, ...], prompt: int) -> float:
    """log pi(response | prompt) of a text by itself: nats, one product per token."""
    hidden = copy.deepcopy(model).eval().hidden(TokenBatch.of_whole_rows(torch.tensor([text]))).hidden[0]
    logprobs = model.unembed(hidden).double().log_softmax(-1)
    return math.fsum(float(logprobs[place - 1, text[place]]) for place in range(prompt, len(text)))


def by_loops(made: DPOModule) -> list[tuple[float, float, float, float]]:
    """Of each pair log pi and log pi_ref of chosen and rejected."""
    models = (made.backbone, made.reference.backbone)
    return [tuple(alone(m, text, row.prompt_tokens) for m in models for text in row.documents) for row in PAIRS]  # type: ignore[misc]


def test_the_loss_by_loops_over_single_texts(tmp_path: Path) -> None:
    made = module()
    pairs = by_loops(made)
    margins = [0.5 * ((good - ref_good) - (bad - ref_bad)) for good, bad, ref_good, ref_bad in pairs]
    assert min(abs(margin) for margin in margins) > 0.01 and len({margin > 0 for margin in margins}) == 2
    done = step(made, [batch()], tmp_path)
    assert done.loss == pytest.approx(math.fsum(math.log1p(math.exp(-m)) for m in margins) / 4, rel=2e-6)
    metrics = {
        "dpo/reward_accuracy": sum(margin > 0 for margin in margins) / 4,
        "dpo/margin": math.fsum(margins) / 4,
        "dpo/chosen_reward": math.fsum(0.5 * (good - ref) for good, _, ref, _ in pairs) / 4,
        "dpo/rejected_reward": math.fsum(0.5 * (bad - ref) for _, bad, _, ref in pairs) / 4,
        "dpo/chosen_logprob": math.fsum(good for good, *_ in pairs) / 4,
        "dpo/rejected_logprob": math.fsum(bad for _, bad, *_ in pairs) / 4,
    }
    assert {name: done.metrics[name] for name in metrics} == pytest.approx(metrics, abs=1e-5)


def test_ipo_counts_the_tokens_of_each_response(tmp_path: Path) -> None:
    """Lengths by hand, EOS included, the prompt not: 2 and 3, 2 and 3, 2 and 2, 1 and 2."""
    made = module(IPO(kl_coef=0.5))
    lengths = [(2, 3), (2, 3), (2, 2), (1, 2)]
    per_token = [
        (good - ref_good) / n - (bad - ref_bad) / m
        for (good, bad, ref_good, ref_bad), (n, m) in zip(by_loops(made), lengths, strict=True)
    ]
    loss = math.fsum((margin - 1.0) ** 2 for margin in per_token) / 4
    assert step(made, [batch()], tmp_path).loss == pytest.approx(loss, rel=2e-6)


def test_the_first_step_begins_at_the_reference_to_the_bit(tmp_path: Path) -> None:
    done = step(module(apart=False), [batch()], tmp_path)
    assert done.metrics["dpo/margin"] == 0.0 and done.metrics["dpo/chosen_reward"] == 0.0
    assert done.metrics["dpo/reward_accuracy"] == 0.5 and done.loss == pytest.approx(math.log(2), abs=1e-7)
    assert max(float(gradient.abs().max()) for gradient in done.gradients.values()) > 1e-3


@pytest.mark.parametrize("objective", [DPO(kl_coef=0.5, label_smoothing=0.1), IPO()])
def test_two_micro_batches_are_one_batch(tmp_path: Path, objective: Any) -> None:
    whole = step(module(objective), [batch()], tmp_path / "a")
    halves = step(module(objective), [batch(PAIRS[:2]), batch(PAIRS[2:])], tmp_path / "b", accumulate_grad_batches=2)
    assert whole.gradients.keys() == halves.gradients.keys()
    for name, gradient in whole.gradients.items():
        torch.testing.assert_close(halves.gradients[name], gradient, rtol=1e-4, atol=1e-6, msg=name)
    for name in ("train/loss", "dpo/margin", "dpo/chosen_logprob", "dpo/rejected_reward"):
        assert halves.metrics[name] == pytest.approx(whole.metrics[name], rel=1e-5, abs=1e-6)


def test_it_learns_what_it_is_shown_and_the_reference_stays(tmp_path: Path) -> None:
    made = module(apart=False, max_steps=30)
    before, head = copy.deepcopy(made.reference.backbone.state_dict()), made.backbone.head.weight.detach().clone()
    trainer(30, tmp_path).fit(made, Batches([batch()] * 30))
    rewards = made.rewards(batch()).view(-1, 2)
    assert float((rewards[:, 0] - rewards[:, 1]).min()) > 1.0  # sigmoid(1) = 0.73 at least, from 0.5
    margins = [0.5 * (good - ref_good - bad + ref_bad) for good, bad, ref_good, ref_bad in by_loops(made)]
    assert (rewards[:, 0] - rewards[:, 1]).tolist() == pytest.approx(margins, abs=1e-4)
    after = made.reference.backbone.state_dict()
    assert all(torch.equal(tensor, before[name]) for name, tensor in after.items())
    assert not torch.equal(made.backbone.head.weight, head)


def test_mtp_stays_and_experts_are_balanced_where_asked(tmp_path: Path) -> None:
    made = module(bias_update_speed=0.25)
    before = made.backbone.expert_bias()
    done = step(made, [batch()], tmp_path)
    assert not any(name.startswith("mtp") for name in done.gradients)
    moved = (made.backbone.expert_bias() - before).abs()
    # Every bias of the trunk's mixture moves by the speed, or stays where its load is the mean; MTP's have no load.
    assert set(moved.flatten().tolist()) <= {0.0, 0.25} and moved[0].max() == 0.25


def test_adapters_alone_learn_and_their_base_is_the_reference(tmp_path: Path) -> None:
    pytest.importorskip("peft")
    shape = {"model_type": "qwen2", **DENSE, "vocab_size": CharTokenizer.vocab_size, "max_position_embeddings": 64}
    model = HFBackbone(HFModelConfig({**shape, "tie_word_embeddings": True}, LoraSettings(4, 16)), seed=1)
    made = module(model=model, apart=False, max_steps=20)
    assert isinstance(made.reference, BaseAsReference)
    done = backwards(made, [batch()] * 20, tmp_path)
    assert all("lora" in name for name in done[0].gradients) and done[0].metrics["dpo/margin"] == 0.0
    assert done[-1].metrics["dpo/margin"] > 0.5 and done[-1].metrics["dpo/reward_accuracy"] == 1.0


def test_losses_of_scores_are_refused() -> None:
    """`BradleyTerry` would be DPO of beta 1 without its metrics."""
    with pytest.raises(InvalidInput, match=r"stage.objective='BradleyTerry' is not allowed: .* objective=dpo or"):
        module(BradleyTerry())


def test_single_responses_are_refused(tmp_path: Path) -> None:
    single = PreferenceRow(((1, 2, EOS),), (1.0,), 1)
    with pytest.raises(InvalidInput, match="stage=dpo needs pairs"):
        step(module(), [batch([single])], tmp_path)
