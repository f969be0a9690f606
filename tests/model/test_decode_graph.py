"""A decoding step on a GPU, rehearsed on a CPU: its shapes stay, and what is recorded takes all that changes from its tensors.

A stand-in for the CUDA graph runs the step again on the tensors of the recording, as a replay does. A number that the step took
from anywhere else would be that of the recording, and the tokens would be others.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from r1_lightning.model import decode_graph, kv_cache
from r1_lightning.model.config import ModelConfig
from r1_lightning.model.decode_graph import StepGraph
from r1_lightning.model.gqa import GQAKind
from r1_lightning.model.hf_model import HFBackbone, HFModelConfig
from r1_lightning.rollout.sampler import Sampler, SamplerSettings, SamplingConfig
from r1_lightning.types.tensors import Generation
from tests.model.tiny import backbone, randomise, tiny
from tests.rollout.fakes import keys_of
from tests.support.hf_folders import DENSE

BLOCK = 8
PROMPTS = [[3, 7, 9], [4], [8, 8, 1, 30, 12]]
HEADS = ModelConfig(vocab_size=61, d_model=32, n_layers=3, n_dense_layers=1, n_heads=4, d_ff_dense=40, d_ff_expert=16,
                    n_routed_experts=8, n_shared_experts=1, n_activated_experts=2, max_positions=64,
                    attention_kind=GQAKind(2, 8))  # fmt: skip
QWEN = HFModelConfig({"model_type": "qwen2", **DENSE, "vocab_size": 61})
HYBRID = tiny(n_layers=4, attention_kind="lightning", softmax_attention_every=2)


@pytest.fixture
def in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Caches as on a GPU, with small blocks."""
    monkeypatch.setattr(kv_cache, "columns_per_block", lambda device: BLOCK)


@pytest.fixture
def recordings(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Replays that run the step again on the recorded tensors; lists the number of replays of each recording."""
    replays: list[int] = []

    def record(step: Callable[[], tuple[Tensor, ...]]) -> tuple[Callable[[], None], tuple[Tensor, ...]]:
        outputs, place = tuple(torch.full_like(x, 7) for x in step()), len(replays)
        replays.append(0)

        def replay() -> None:
            replays[place] += 1
            for kept, new in zip(outputs, step(), strict=True):
                kept.copy_(new)

        return replay, outputs

    monkeypatch.setattr(decode_graph, "record", record)
    monkeypatch.setattr(StepGraph, "is_possible", True)
    yield replays
    assert StepGraph.is_possible


def made(config: ModelConfig | HFModelConfig) -> Any:
    if isinstance(config, ModelConfig):
        return backbone(config)
    model = HFBackbone(config).eval()
    randomise(model, 3)
    return model


def drawn(
    config: ModelConfig | HFModelConfig, eos: int = -1, tokens: int = 40, prompts: list[list[int]] = PROMPTS
) -> Generation:
    settings = SamplerSettings(SamplingConfig(max_new_tokens=tokens), [eos], 0, seed=7, record_routes=True)
    return Sampler(made(config), settings)(prompts, 4, keys_of(3, 4))


def check_same(found: Generation, expected: Generation) -> None:
    assert torch.equal(found.completion_ids, expected.completion_ids)
    assert torch.equal(found.routes, expected.routes)
    torch.testing.assert_close(found.policy_logprobs, expected.policy_logprobs, atol=1e-5, rtol=0)


@pytest.mark.parametrize("config", [tiny(), HEADS, HYBRID, QWEN], ids=["latents", "heads", "hybrid", "qwen2"])
@pytest.mark.parametrize("eos", [-1, 5])
def test_whole_blocks_behind_a_mask_give_the_same_tokens(config: Any, eos: int, request: Any) -> None:
    expected = drawn(config, eos)
    request.getfixturevalue("recordings")
    request.getfixturevalue("in_blocks")
    check_same(drawn(config, eos), expected)


@pytest.mark.usefixtures("recordings")
def test_long_prompts_see_their_own_columns_alone(request: Any) -> None:
    """Prompts of more than 256 tokens are read as documents; the cache hands back whole blocks, wider than the prompts."""
    config = HFModelConfig({"model_type": "qwen2", **DENSE, "vocab_size": 61, "max_position_embeddings": 512})
    prompts = [[7, *range(1, 60)] * 5, [4] * 261, [8, 8, 1]]
    expected = drawn(config, tokens=10, prompts=prompts)
    request.getfixturevalue("in_blocks")
    check_same(drawn(config, tokens=10, prompts=prompts), expected)


@pytest.mark.parametrize("config", [tiny(), HEADS, QWEN], ids=["latents", "heads", "qwen2"])
def test_a_recorded_step_takes_what_changes_from_its_tensors(config: Any, request: Any) -> None:
    """5 prompt tokens and 39 steps: widths of 8, 16, ... 45. Of each the first step is eager, and the second replayed twice."""
    expected = drawn(config)
    replays = request.getfixturevalue("recordings")
    request.getfixturevalue("in_blocks")
    check_same(drawn(config), expected)
    assert replays == [3, 8, 8, 8, 8, 4]


@pytest.mark.usefixtures("in_blocks")
def test_dropped_rows_and_a_recurrent_state_are_not_replayed(recordings: list[int]) -> None:
    """Rows that leave change the shapes, and a state that takes its token twice would be another."""
    drawn(HYBRID)
    assert recordings == []
    drawn(tiny(), eos=5)
    assert len(recordings) > 6


class _Shapes(TorchDispatchMode):
    """Lists the operators with the shapes of what they take and give."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, ...]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        shapes = [str(tuple(x.shape)) for x in tree_leaves((args, kwargs, result)) if isinstance(x, Tensor)]
        self.seen.append((func._schema.name, *shapes))
        return result


@pytest.mark.parametrize("config", [tiny(), HEADS, HYBRID, QWEN], ids=["latents", "heads", "hybrid", "qwen2"])
@pytest.mark.usefixtures("in_blocks", "recordings")
@torch.no_grad()
def test_shapes_stay_from_token_to_token_within_a_block(config: Any) -> None:
    model = made(config)
    cache = model.new_cache(3, 40)
    model.step(torch.ones(3, 7, dtype=torch.long), torch.ones(3, 7, dtype=torch.bool), cache)
    steps = []
    for token in range(10):  # columns 8 to 17
        monkey = StepGraph.is_possible
        StepGraph.is_possible = False  # eager steps alone
        with _Shapes() as shapes:
            model.step(torch.full((3, 1), token), torch.ones(3, 1, dtype=torch.bool), cache)
        StepGraph.is_possible = monkey
        steps.append(shapes.seen)
    assert steps[0] != steps[1]  # column 8 is the last of the first block
    assert all(step == steps[1] for step in steps[1:9]) and len(steps[1]) > 50
    assert steps[9] != steps[8]


def test_a_cpu_reads_no_column_in_vain() -> None:
    cache = backbone(tiny()).new_cache(2, 1000)
    cache.advance(torch.ones(2, 300, dtype=torch.bool), has_rows=False)
    assert cache.width == 300 and cache.newest(4) == 296
    assert kv_cache.columns_per_block(torch.device("cuda", 0)) == kv_cache.COLUMN_BLOCK == 128


@pytest.mark.usefixtures("in_blocks")
def test_a_step_that_cannot_be_recorded_stays_eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """On this machine there is no CUDA: it is tried once, and said."""
    monkeypatch.setattr(StepGraph, "is_possible", True)
    with pytest.warns(UserWarning, match="decoding steps are not recorded as a CUDA graph"):
        found = drawn(tiny())
    assert not StepGraph.is_possible
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_same(drawn(tiny()), found)


@pytest.mark.parametrize("wrong", [lambda x: x + 1, lambda x: x * float("nan")])
def test_a_recording_that_computes_other_numbers_is_not_used(
    wrong: Callable[[Tensor], Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(StepGraph, "is_possible", True)
    monkeypatch.setattr(decode_graph, "record", lambda step: (lambda: None, (wrong(step()[0]),)))
    graph = StepGraph(lambda x: (2 * x,))
    assert graph(torch.ones(2))[0].tolist() == [2.0, 2.0]
    with pytest.warns(UserWarning, match="it computed other numbers"):
        assert graph(torch.full((2,), 3.0))[0].tolist() == [6.0, 6.0]
    assert graph(torch.full((2,), 4.0))[0].tolist() == [8.0, 8.0]


@torch.no_grad()
def test_a_recording_casts_its_weights_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """Autocast frees the casts that it keeps when its context ends, so a recording may neither read nor leave any."""
    weight, casts = torch.nn.Parameter(torch.eye(4)), []

    def record(step: Callable[[], tuple[Tensor, ...]]) -> tuple[Callable[[], None], tuple[Tensor, ...]]:
        with _Shapes() as shapes:
            outputs = step()
        casts.append(sum(name == "aten::_to_copy" and shape == "(4, 4)" for name, shape, *_ in shapes.seen))
        return lambda: None, outputs

    def step(x: Tensor) -> tuple[Tensor, ...]:
        return (torch.nn.functional.linear(x, weight),)

    monkeypatch.setattr(decode_graph, "record", record)
    monkeypatch.setattr(StepGraph, "is_possible", True)
    graph = StepGraph(step)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for _ in range(2):
            graph(torch.ones(1, 4))
        with _Shapes() as after:
            step(torch.ones(1, 4))
    assert casts == [1] and StepGraph.is_possible
    assert sum(name == "aten::_to_copy" and shape == "(4, 4)" for name, shape, *_ in after.seen) == 1
