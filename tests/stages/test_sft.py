"""Fine-tuning: the loss by loops over single texts and as transformers and TRL have it, accumulation, borders, and experts."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from r1_lightning.model.hf_model import HFBackbone, HFModelConfig
from r1_lightning.rollout.chat_rows import ChatRow, collate_chat
from r1_lightning.stages.base import AdamWConfig
from r1_lightning.stages.sft import SFTModule
from r1_lightning.types.errors import InvalidInput
from r1_lightning.types.tensors import ChatBatch, TokenBatch
from tests.model.tiny import hf_twin
from tests.support.hf_folders import DENSE
from tests.support.miniature import EOS, PAD, Backward, Batches, backbone, backwards, trainer

# Prompts of 3, 1, 4 and 2 tokens; completions, EOS included, of 2, 5, 1 and 3.
ROWS = [
    ChatRow((1, 2, 3), (4, EOS)),
    ChatRow((5,), (6, 7, 8, 9, EOS)),
    ChatRow((10, 11, 12, 13), (EOS,)),
    ChatRow((14, 3), (2, 2, EOS)),
]
LR = AdamWConfig(lr=0.01, weight_decay=0.0)


def batch(parts: list[list[ChatRow]] | None = None, part: int = 0, row_tokens: int = 12) -> ChatBatch:
    return collate_chat(parts or [ROWS], part, row_tokens, PAD)


def module(**settings: Any) -> SFTModule:
    model = settings.pop("model", None) or backbone(balance_loss_alpha=settings.pop("balance_loss_alpha", 0.0))
    return SFTModule(model, LR, **{"max_steps": 1, "mtp_loss_weight": 0.3, **settings})


def step(made: SFTModule, batches: list[ChatBatch], folder: Path, **settings: Any) -> Backward:
    return backwards(made, batches, folder, **settings)[0]


@torch.no_grad()
def alone(model: Any, row: ChatRow) -> list[list[tuple[float, bool]]]:
    """Per prediction depth: (-log-prob, whether it is the first choice) of each completion token, each text by itself."""
    ids = torch.tensor([[*row.prompt, *row.completion]])
    output = model.hidden(TokenBatch.of_whole_rows(ids))
    found = []
    for places, hidden in enumerate((output.hidden, *output.mtp), start=1):
        logits = model.unembed(hidden[0]).double()
        losses = -logits.log_softmax(-1)
        targets = [t for t in range(len(row.prompt), len(row)) if t >= places]
        found.append(
            [
                (float(losses[t - places, ids[0, t]]), int(logits[t - places].argmax()) == int(ids[0, t]))
                for t in targets
            ]
        )
    return found


def test_the_loss_by_loops_over_single_texts(tmp_path: Path) -> None:
    """Main head: 2 + 5 + 1 + 3 = 11 tokens; MTP, two ahead: 2 + 4 + 1 + 3 = 10, nothing predicts the second text's first."""
    made = module()
    depths = [[item for row in ROWS for item in alone(made.backbone, row)[depth]] for depth in (0, 1)]
    assert [len(items) for items in depths] == [11, 10]
    main, ahead = (math.fsum(loss for loss, _ in items) / len(items) for items in depths)
    done = step(made, [batch()], tmp_path)
    assert done.loss == pytest.approx(main + 0.3 * ahead, rel=2e-6)
    assert done.metrics["train/loss"] == pytest.approx(main, rel=2e-6)
    assert done.metrics["train/mtp_loss"] == pytest.approx(0.3 * ahead, rel=2e-6)
    assert done.metrics["train/token_accuracy"] == pytest.approx(sum(hit for _, hit in depths[0]) / 11)
    assert done.metrics["train/completion_tokens"] == 11


def labelled(row: ChatRow) -> tuple[Tensor, Tensor]:
    """Ids and labels as `transformers` takes them: -100 where nothing is to be learned."""
    return torch.tensor([[*row.prompt, *row.completion]]), torch.tensor([[-100] * len(row.prompt) + [*row.completion]])


def hf_loss(twin: Any, rows: list[ChatRow]) -> Tensor:
    """Each text by itself, weighed by its completion tokens."""
    losses = [twin(ids, labels=labels).loss * len(row.completion) for row in rows for ids, labels in [labelled(row)]]
    return torch.stack(losses).sum() / sum(len(row.completion) for row in rows)


def test_the_loss_is_that_of_transformers_with_masked_labels(tmp_path: Path) -> None:
    made = module(mtp_loss_weight=0.0)
    made.backbone.eval()
    twin = hf_twin(made.backbone)
    expected = hf_loss(twin, ROWS)
    expected.backward()
    done = step(made, [batch()], tmp_path)
    assert done.loss == pytest.approx(expected.item(), rel=1e-5)
    gradient = twin.model.embed_tokens.weight.grad
    torch.testing.assert_close(done.gradients["embedding.weight"], gradient, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", ["qwen2", "llama"])
def test_the_loss_of_dense_students_is_that_of_transformers(tmp_path: Path, kind: str) -> None:
    model = HFBackbone(HFModelConfig({"model_type": kind, **DENSE}), seed=3)
    expected = hf_loss(copy.deepcopy(model.model), ROWS).item()
    done = step(module(model=model), [batch()], tmp_path)
    assert done.loss == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("sizes", [(2, 2), (1, 3), (3, 1)], ids=str)
def test_two_micro_batches_are_one_batch(tmp_path: Path, sizes: tuple[int, int]) -> None:
    """Also where they hold different numbers of tokens: each mean is over the whole step."""
    parts = [ROWS[: sizes[0]], ROWS[sizes[0] :]]
    whole = step(module(), [batch()], tmp_path / "a")
    halves = step(module(), [batch(parts, 0), batch(parts, 1)], tmp_path / "b", accumulate_grad_batches=2)
    assert whole.gradients.keys() == halves.gradients.keys()
    for name, gradient in whole.gradients.items():
        torch.testing.assert_close(halves.gradients[name], gradient, rtol=1e-4, atol=1e-6, msg=name)
    for name in ("train/loss", "train/mtp_loss", "train/token_accuracy", "train/completion_tokens"):
        assert halves.metrics[name] == pytest.approx(whole.metrics[name], rel=1e-5, abs=1e-6), name


def test_the_balance_loss_is_the_mean_of_the_micro_batches(tmp_path: Path) -> None:
    parts = [ROWS[:2], ROWS[2:]]
    losses = [
        step(module(balance_loss_alpha=0.5), [batch([part])], tmp_path / str(number)).metrics["train/balance_loss"]
        for number, part in enumerate(parts)
    ]
    made = module(balance_loss_alpha=0.5)
    done = step(made, [batch(parts, 0), batch(parts, 1)], tmp_path / "both", accumulate_grad_batches=2)
    assert min(losses) > 0.01
    assert done.metrics["train/balance_loss"] == pytest.approx(sum(losses) / 2, rel=1e-5)


@pytest.mark.parametrize("depth", [0, 1], ids=["main", "mtp"])
@torch.no_grad()
def test_no_document_sees_another(depth: int) -> None:
    """Two documents in one row: other tokens in the first leave the loss of the second as it was, to the last bit."""
    made = module().eval()
    second = ROWS[1]

    def loss_of_second(first: ChatRow) -> float:
        packed = batch([[first, second]])
        assert packed.tokens.token_ids.shape[0] == 1
        mask = packed.completion_mask & (packed.tokens.document_ids == 2)
        only = ChatBatch(packed.tokens, mask, packed.step_lengths)
        output = made.backbone.hidden(packed.tokens)
        return float(made._loss((output.hidden, *output.mtp)[depth], only, depth + 1))

    found = {loss_of_second(first) for first in (ROWS[0], ChatRow((9, 9, 9), (9, EOS)), ChatRow((0, 1, 2), (8, EOS)))}
    assert len(found) == 1 and found.pop() > 0.01


@torch.no_grad()
def test_prompts_are_read_and_not_learned() -> None:
    """The first token of a prompt changes the loss; a target in a prompt does not stand in it."""
    made = module().eval()
    packed = batch([[ROWS[0]]])
    targets = packed.completion_mask[0].nonzero().flatten().tolist()
    assert targets == [3, 4]  # of tokens 0 .. 4
    hidden = made.backbone.hidden(packed.tokens).hidden
    moved = hidden.clone()
    moved[0, :2] += 1.0  # what predicts tokens 1 and 2, both of the prompt
    assert float(made._loss(hidden, packed, 1)) == float(made._loss(moved, packed, 1))
    moved[0, 2] += torch.arange(moved.shape[-1])  # what predicts token 3
    assert float(made._loss(hidden, packed, 1)) != float(made._loss(moved, packed, 1))


@pytest.mark.parametrize("speed", [0.0, 0.25])
def test_expert_biases_move_where_asked(tmp_path: Path, speed: float) -> None:
    made = module(bias_update_speed=speed)
    before = made.backbone.expert_bias()
    step(made, [batch()], tmp_path)
    moved = (made.backbone.expert_bias() - before).abs()
    assert all(value == pytest.approx(speed, abs=1e-6) for value in moved.flatten().tolist() if value > 0)
    assert float(moved.max()) == pytest.approx(speed, abs=1e-6)


@pytest.mark.parametrize("weight", [0.0, 0.3])
def test_the_mtp_module_learns_where_asked(tmp_path: Path, weight: float) -> None:
    done = step(module(mtp_loss_weight=weight), [batch()], tmp_path)
    assert any(name.startswith("mtp") for name in done.gradients) == (weight > 0)
    assert (done.metrics["train/mtp_loss"] > 0) == (weight > 0)


def test_it_learns_what_it_is_shown(tmp_path: Path) -> None:
    made = module(max_steps=50)
    trainer(50, tmp_path).fit(made, Batches([batch()] * 50))
    hits = [hit for row in ROWS for _, hit in alone(made.backbone.eval(), row)[0]]
    assert sum(hits) == 11


def test_bad_settings() -> None:
    with pytest.raises(InvalidInput, match=r"stage\.mtp_loss_weight=-1"):
        module(mtp_loss_weight=-1.0)
