"""Muon beside AdamW: who gets which update, torch's own Muon and AdamW as references, and resuming from a state_dict."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from r1_lightning.model.hf_model import HFBackbone, HFModelConfig
from r1_lightning.model.reward_head import RewardModel
from r1_lightning.stages import muon
from r1_lightning.stages.base import AdamWConfig
from r1_lightning.stages.muon import MuonConfig, state_bytes
from r1_lightning.types.errors import InvalidInput
from tests.model.tiny import backbone, tiny
from tests.support.hf_folders import DENSE


def _with_gradients(module: nn.Module, seed: int) -> nn.Module:
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)
    return module


def test_hidden_matrices_take_muon_and_the_rest_adamw() -> None:
    model = backbone(tiny())
    matrices, other, vectors = MuonConfig(lr=0.1).build(model).param_groups
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    assert matrices["matrix"] and not other["matrix"] and not vectors["matrix"]
    assert {names[id(p)].split(".")[-2] for p in other["params"]} == {"embedding", "head", "router"}
    assert all(p.dim() == 1 for p in vectors["params"]) and vectors["weight_decay"] == 0
    assert any(p.dim() == 3 for p in matrices["params"])  # the stacked experts
    assert sum(len(group["params"]) for group in (matrices, other, vectors)) == len(names)


@pytest.mark.parametrize("kind", ["qwen2", "llama"])
def test_a_reward_model_of_transformers_moves_its_embedding_and_heads_as_with_adamw(kind: str) -> None:
    def made() -> RewardModel:
        fields = {"model_type": kind, **DENSE, "tie_word_embeddings": kind == "qwen2"}
        return RewardModel(HFBackbone(HFModelConfig(fields)))

    ours, theirs = made(), made()
    mine, reference = MuonConfig(lr=0.01).build(ours), AdamWConfig(lr=0.01).build(theirs)
    for step in range(2):
        _with_gradients(ours, step), _with_gradients(theirs, step)
        mine.step(), reference.step()
    kept = {name for name, p in ours.named_parameters() if p.dim() == 1 or "embed" in name or "head" in name}
    assert "score.weight" not in kept and "backbone.model.model.embed_tokens.weight" in kept
    for name, parameter in ours.named_parameters():
        is_adamw = name in kept or name == "score.weight"
        assert torch.equal(parameter, theirs.get_parameter(name)) == is_adamw, name


def test_a_matrix_moves_as_with_torchs_muon() -> None:
    """torch orthogonalises in BF16, so that updates agree to about one part in a hundred."""
    ours, theirs = nn.Linear(12, 20, bias=False), nn.Linear(12, 20, bias=False)
    theirs.load_state_dict(ours.state_dict())
    start = ours.weight.detach().clone()
    mine = MuonConfig(lr=0.1, matrix_lr=0.05, weight_decay=0.1).build(ours)
    reference = torch.optim.Muon(
        theirs.parameters(), lr=0.05, weight_decay=0.1, momentum=0.95, nesterov=True, adjust_lr_fn="match_rms_adamw"
    )
    for step in range(3):
        _with_gradients(ours, step), _with_gradients(theirs, step)
        mine.step(), reference.step()
    moved, wanted = ours.weight - start, theirs.weight - start
    assert (moved - wanted).norm() / wanted.norm() < 0.02


def test_a_stack_moves_as_its_matrices() -> None:
    class Stack(nn.Module):
        def __init__(self, weight: torch.Tensor) -> None:
            super().__init__()
            self.weight = nn.Parameter(weight.clone())

    weight = torch.randn(3, 4, 6, generator=torch.Generator().manual_seed(0))
    gradient = torch.randn(3, 4, 6, generator=torch.Generator().manual_seed(1))
    stack, singles = Stack(weight), [Stack(matrix) for matrix in weight]
    stack.weight.grad = gradient
    MuonConfig(lr=0.1).build(stack).step()
    for single, matrix in zip(singles, gradient, strict=True):
        single.weight.grad = matrix
        MuonConfig(lr=0.1).build(single).step()
    assert torch.allclose(stack.weight, torch.stack([single.weight for single in singles]), atol=1e-6)


def test_matrices_of_one_shape_move_together_as_each_alone() -> None:
    """Three layers in one optimizer, and each in an optimizer of its own."""
    together = nn.ModuleList(nn.Linear(12, 20, bias=False) for _ in range(3))
    alone = copy.deepcopy(together)
    mine, others = MuonConfig(lr=0.1).build(together), [MuonConfig(lr=0.1).build(layer) for layer in alone]
    for step in range(3):
        for layer, other in zip(together, alone, strict=True):
            _with_gradients(layer, step), _with_gradients(other, step)
        for optimizer in (mine, *others):
            optimizer.step()
    for layer, other in zip(together, alone, strict=True):
        torch.testing.assert_close(layer.weight, other.weight, rtol=1e-6, atol=1e-7)


def test_stacks_hold_one_shape_and_no_more_than_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(muon, "STACK_ELEMENTS", 24)  # two of 3 x 4
    wide = [torch.zeros(3, 4) for _ in range(5)]
    tall, large, half = torch.zeros(4, 3), torch.zeros(5, 7), torch.zeros(3, 4, dtype=torch.bfloat16)
    made = muon.stacks([wide[0], tall, wide[1], large, *wide[2:], half])
    assert [len(stack) for stack in made] == [2, 2, 1, 1, 1, 1]
    assert all(given is wanted for given, wanted in zip(made[0] + made[1] + made[2], wide, strict=True))
    assert made[3][0] is tall and made[4][0] is large and made[5][0] is half


def test_other_parameters_move_as_with_adamw() -> None:
    ours, theirs = backbone(tiny()), backbone(tiny())
    mine, reference = MuonConfig(lr=0.01).build(ours), AdamWConfig(lr=0.01).build(theirs)
    for step in range(3):
        _with_gradients(ours, step), _with_gradients(theirs, step)
        mine.step(), reference.step()
    for name in ("embedding.weight", "head.weight", "norm.weight"):
        assert torch.equal(ours.get_parameter(name), theirs.get_parameter(name)), name


def test_a_state_dict_goes_on_with_the_same_bits() -> None:
    straight = backbone(tiny())
    optimizer = MuonConfig(lr=0.01).build(straight)
    for step in range(2):
        _with_gradients(straight, step)
        optimizer.step()
    resumed = copy.deepcopy(straight)
    again = MuonConfig(lr=0.01).build(resumed)
    again.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for model, its_optimizer in ((straight, optimizer), (resumed, again)):
        _with_gradients(model, 9)
        its_optimizer.step()
    for left, right in zip(straight.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(left, right)


@pytest.mark.parametrize(
    "settings", [{"matrix_lr": 0.0}, {"momentum": -0.1}, {"momentum": 1.0}, {"momentum": 1.5}, {"lr": -1.0}]
)
def test_bad_settings_are_named(settings: dict[str, float]) -> None:
    with pytest.raises(InvalidInput, match=next(iter(settings))):
        MuonConfig(**{"lr": 0.1, **settings})


@pytest.mark.parametrize("optim", [AdamWConfig(lr=0.1), MuonConfig(lr=0.1)])
def test_the_state_takes_the_bytes_that_were_counted_before(optim: AdamWConfig) -> None:
    model = backbone(tiny())
    idle = list(model.mtp_modules.parameters())
    optimizer = optim.build(_with_gradients(model, 0))
    for parameter in idle:
        parameter.grad = None
    counted, all_of_them = state_bytes(optimizer, idle), state_bytes(optimizer)
    optimizer.step()
    tensors = [value for state in optimizer.state.values() for name, value in state.items() if name != "step"]
    assert counted == sum(tensor.numel() * tensor.element_size() for tensor in tensors) < all_of_them
