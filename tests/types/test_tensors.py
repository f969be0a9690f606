"""Dataclasses of tensors: all fields move to a device together, instances are frozen, and padding is not a token."""

from __future__ import annotations

import dataclasses
import inspect

import pytest
import torch

from r1_lightning.model.backbone import DeepSeekBackbone
from r1_lightning.model.kv_cache import LatentKVCache
from r1_lightning.rollout.mtp_drafts import DraftingSampler
from r1_lightning.rollout.sampler import Sampler
from r1_lightning.rollout.vllm_sampler import VLLMSampler
from r1_lightning.types.tensors import (
    Backbone,
    BackboneOutput,
    Balanced,
    ChatBatch,
    DraftingBackbone,
    Drafts,
    GenerateFn,
    Generation,
    GRPOBatch,
    LatentCache,
    LossOutput,
    TokenBatch,
)
from tests.support.miniature import backbone


def token_batch() -> TokenBatch:
    """Documents of two tokens and one, and a place of padding."""
    return TokenBatch(torch.tensor([[5, 6, 7, 0]]), torch.tensor([[0, 1, 0, 0]]), torch.tensor([[1, 1, 2, 0]]))


def grpo_batch() -> GRPOBatch:
    numbers = torch.zeros(1, 4)
    return GRPOBatch(
        tokens=token_batch(),
        completion_mask=torch.tensor([[False, True, False, False]]),
        old_logprobs=numbers,
        sampler_logprobs=numbers - 1,
        sequence_ids=torch.tensor([[0, 0, 1, -1]]),
        advantages=torch.tensor([[0.0, 1.0, 0.0, 0.0]]),
        completion_tokens=torch.tensor([1.0, 0.0]),
        n_sequences=2,
        n_tokens=1,
        policy_version=7,
    )


def test_padding_is_no_token() -> None:
    assert token_batch().is_token.tolist() == [[True, True, True, False]]
    # A token is told by its document, never by its id: padding's id is a token like any other inside a document.
    zeros = torch.zeros(1, 4, dtype=torch.long)
    assert TokenBatch(zeros, zeros, torch.tensor([[1, 1, 0, 0]])).is_token.tolist() == [[True, True, False, False]]


def test_all_fields_that_are_there_change_alike() -> None:
    plain, shared = token_batch(), dataclasses.replace(token_batch(), prefix_ids=torch.tensor([[0, 0, 1, 0]]))
    assert plain.map(lambda ids_BT: ids_BT[:, 1:]).prefix_ids is None
    cut = shared.map(lambda ids_BT: ids_BT[:, 2:])
    assert (cut.token_ids.tolist(), cut.document_ids.tolist(), cut.prefix_ids.tolist()) == (
        [[7, 0]],
        [[2, 0]],
        [[1, 0]],
    )


def test_everything_moves_and_what_is_no_tensor_stays() -> None:
    """The `meta` device stands for any other: it is on every machine."""
    batch = grpo_batch()
    moved = batch.to("meta")
    tensors = [
        field.name for field in dataclasses.fields(GRPOBatch) if isinstance(getattr(batch, field.name), torch.Tensor)
    ]
    assert len(tensors) == 6
    assert {getattr(moved, name).device.type for name in tensors} == {"meta"}
    inner = (moved.tokens.token_ids, moved.tokens.position_ids, moved.tokens.document_ids)
    assert {tensor.device.type for tensor in inner} == {"meta"}
    assert (moved.n_sequences, moved.n_tokens, moved.policy_version) == (2, 1, 7)
    assert type(moved) is GRPOBatch and type(moved.tokens) is TokenBatch
    assert batch.advantages.device.type == batch.tokens.token_ids.device.type == "cpu"  # the original stays


def test_moving_to_where_it_is_keeps_the_values() -> None:
    batch = grpo_batch()
    same = batch.to(torch.device("cpu"), non_blocking=True)
    assert torch.equal(same.sampler_logprobs, batch.sampler_logprobs)
    assert torch.equal(same.tokens.token_ids, batch.tokens.token_ids)


@pytest.mark.parametrize("kind", [TokenBatch, BackboneOutput, LossOutput, GRPOBatch, Generation])
def test_values_are_frozen(kind: type) -> None:
    first = dataclasses.fields(kind)[0].name
    value = kind(*[None] * len(dataclasses.fields(kind)))
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(value, first, 1)


@pytest.mark.parametrize(
    ("protocol", "kind"),
    [
        (Backbone, DeepSeekBackbone),
        (Balanced, DeepSeekBackbone),
        (LatentCache, LatentKVCache),
        (GenerateFn, Sampler),
        (GenerateFn, VLLMSampler),
        (GenerateFn, DraftingSampler),
        (DraftingBackbone, DeepSeekBackbone),
    ],
)
def test_our_parts_fit_their_protocols(protocol: type, kind: type) -> None:
    """Every method of the Protocol is there, with its parameters in its order; more may follow if they have defaults."""
    methods = [name for name in vars(protocol) if name in ("__call__",) or not name.startswith("_")]
    assert methods
    for name in methods:
        if isinstance(vars(protocol)[name], property):
            assert isinstance(vars(kind)[name], property), name
            continue
        wanted = list(inspect.signature(vars(protocol)[name]).parameters)
        given = inspect.signature(getattr(kind, name)).parameters
        assert list(given)[: len(wanted)] == wanted, name
        more = list(given.values())[len(wanted) :]
        assert all(parameter.default is not inspect.Parameter.empty for parameter in more), name


def test_our_objects_are_instances_and_a_dense_model_has_an_empty_bias() -> None:
    mixture, dense = backbone(), backbone(n_dense_layers=2)
    for model in (mixture, dense):
        assert isinstance(model, Backbone) and isinstance(model, Balanced)
        assert isinstance(model.new_cache(1, 2), LatentCache)
    assert mixture.expert_bias().shape == (2, 4)  # one layer and the MTP module, four experts each
    assert dense.expert_bias().shape[0] == 0
    dense.set_expert_bias(dense.expert_bias())
    assert not isinstance(torch.nn.Linear(1, 1), Balanced)


def test_a_generation_moves_whole() -> None:
    tensors = [torch.zeros(1, 2) for _ in dataclasses.fields(Generation)]
    moved = Generation(*tensors).to("meta")
    assert {getattr(moved, field.name).device.type for field in dataclasses.fields(Generation)} == {"meta"}


def test_whole_rows_are_documents_from_position_0() -> None:
    batch = TokenBatch.of_whole_rows(torch.tensor([[7, 8, 9], [1, 2, 3]]))
    assert batch.token_ids.tolist() == [[7, 8, 9], [1, 2, 3]]
    assert batch.position_ids.tolist() == [[0, 1, 2], [0, 1, 2]]
    assert batch.document_ids.tolist() == [[1, 1, 1], [1, 1, 1]]


def test_drafts_add_up() -> None:
    assert Drafts(3, 1) + Drafts(4, 4) == Drafts(7, 5)


def test_targets_of_a_step_by_hand() -> None:
    """Prompts of 3, 1 and 0 tokens in documents of 5, 2 and 2: tokens 3, 4 | 1 | 0, 1 are completion.

    One place ahead all but the last document's first have a token to be predicted from: 2 + 1 + 1. Two places ahead: 3, 4 | none |
    none. Four: 4. Five: none.
    """
    lengths = torch.tensor([[3, 5], [1, 2], [0, 2]])
    batch = ChatBatch(token_batch(), torch.zeros(1, 4, dtype=torch.bool), lengths)
    assert [int(batch.n_targets(places)) for places in (1, 2, 3, 4, 5, 6)] == [4, 2, 2, 1, 0, 0]
