"""From a rollout to minibatches: shuffle the completions, divide them into minibatches, and pack these into rows.

(seed, rollout) draws the order of the completions, as R1 splits 8,192 outputs "randomly" into 16 minibatches, or that of whole
groups. Completions of a long prompt that meet in a minibatch share it (`rollout/shared_prompts.py`). The old log-probs
are those that the sampler stored, without a second forward; the self-check at step 0 shows that they equal a training forward's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from r1_lightning.rollout.groups import RolloutConfig
from r1_lightning.rollout.keyed_random import keyed_uniforms
from r1_lightning.rollout.results import Rollout
from r1_lightning.rollout.shared_prompts import PackedCompletions, packed_completions
from r1_lightning.types.errors import InvalidInput
from r1_lightning.types.tensors import GRPOBatch, TokenBatch

# Shape legend: R completions of the rollout, S of them in a minibatch.


def minibatch_rows(seed: int, number: int, n_rows: int, n_minibatches: int, together: int = 1) -> list[Tensor]:
    """Return each minibatch's completion indices, S each: a permutation drawn from (seed, rollout number), in equal pieces.

    Permuted are pieces of `together` neighbouring rows: 1, or the group size.
    """
    keys = torch.tensor([[number]])
    order = keyed_uniforms(seed, keys, n_rows // together)[0].argsort(stable=True)
    rows = order if together == 1 else (order[:, None] * together + torch.arange(together)).flatten()
    return list(rows.chunk(n_minibatches))


def collate(
    rollout: Rollout,
    rows: Tensor,
    row_tokens: int,
    pad_id: int,
    train_on_truncated: bool = True,
    share_from: int | None = None,
) -> GRPOBatch:
    """Pack prompt + completion of the chosen `rows` (S) into one minibatch; prompts of at least `share_from` tokens are shared.

    Without `train_on_truncated`, a completion that did not finish is masked out of the loss; it counts in `n_sequences`, as in
    TRL, but not in `n_tokens`.

    Raises InvalidInput if a prompt with its completion is longer than a row.
    """
    generation = rollout.generation
    length_S = generation.completion_mask.sum(1)[rows]
    chosen = rows.tolist()
    packed = _packed(rollout, chosen, length_S.tolist(), row_tokens, pad_id, share_from)
    shape = packed.tokens.token_ids.shape
    sampled = flat_places(rows * generation.completion_ids.shape[1], length_S)
    own_S = torch.tensor([place.own_prompt for place in packed.places])
    start_S = torch.tensor([place.row * shape[1] + place.start for place in packed.places])
    completed = flat_places(start_S, length_S)

    def placed(numbers_RT: Tensor) -> Tensor:
        """Numbers of each completion token, in the packed rows."""
        rows_BT = torch.zeros(shape)
        rows_BT.view(-1)[completed] = numbers_RT.reshape(-1)[sampled]
        return rows_BT

    sequence_ids = torch.full(shape, -1, dtype=torch.long)
    whole_S = own_S + length_S
    sequence_ids.view(-1)[flat_places(start_S - own_S, whole_S)] = torch.arange(len(chosen)).repeat_interleave(whole_S)
    trained_S = generation.finished[rows] | train_on_truncated
    mask = torch.zeros(shape, dtype=torch.bool)
    mask.view(-1)[completed] = trained_S.repeat_interleave(length_S)
    routes = packed_routes(rollout, chosen, packed) if generation.routes.numel() else None
    return GRPOBatch(
        tokens=packed.tokens,
        completion_mask=mask,
        old_logprobs=placed(generation.policy_logprobs),
        sampler_logprobs=placed(generation.sampler_logprobs),
        sequence_ids=sequence_ids,
        advantages=placed(rollout.advantages),
        completion_tokens=length_S.float(),
        n_sequences=len(chosen),
        n_tokens=int(mask.sum()),
        policy_version=rollout.policy_version,
        routes=routes,
        targets=rollout.targets and rollout.targets.map(placed),
    )


def _packed(
    rollout: Rollout,
    chosen: Sequence[int],
    lengths: Sequence[int],
    row_tokens: int,
    pad_id: int,
    share_from: int | None,
) -> PackedCompletions:
    """The prompts and completions (`lengths` tokens each) of the `chosen` rows, packed."""
    groups = [row // rollout.group_size for row in chosen]
    prompts = [rollout.prompts[group] for group in groups]
    ids = rollout.generation.completion_ids
    completions = [ids[row, :length].tolist() for row, length in zip(chosen, lengths, strict=True)]
    longest = max(len(prompt) + length for prompt, length in zip(prompts, lengths, strict=True))
    if longest > row_tokens:
        raise InvalidInput(
            f"rollout.row_tokens={row_tokens} is not allowed: a prompt with its completion takes {longest} tokens here"
        )
    return packed_completions(prompts, completions, groups, row_tokens, pad_id, share_from)


def flat_places(start_S: Tensor, length_S: Tensor) -> Tensor:
    """Places in a flat table, sequence by sequence: `length_S` of each from `start_S` on."""
    before_S = length_S.cumsum(0) - length_S
    return (start_S - before_S).repeat_interleave(length_S) + torch.arange(int(length_S.sum()))


def packed_routes(rollout: Rollout, chosen: Sequence[int], packed: PackedCompletions) -> Tensor:
    """Return the sampler's routes at each position of the packed rows, L x B x T x K; -1 on padding and on last tokens."""
    generation = rollout.generation
    layers, _, _, n_chosen = generation.routes.shape
    routes = torch.full((layers, *packed.tokens.token_ids.shape, n_chosen), -1, dtype=torch.long)
    lengths = generation.completion_mask.sum(1).tolist()
    for row, place in zip(chosen, packed.places, strict=True):
        start = place.start - 1  # the prompt's last token predicts the completion's first
        routes[:, place.row, start : start + lengths[row]] = generation.routes[:, row, : lengths[row]]
        if place.own_prompt > 1:
            routes[:, place.row, place.column : start] = generation.prompt_routes[:, row, 1 - place.own_prompt :]
    for sequence, line, column in packed.prefixes:
        row, own_prompt = chosen[sequence], packed.places[sequence].own_prompt
        prompt = len(rollout.prompts[row // rollout.group_size])
        shared = generation.prompt_routes[:, row, 1 - prompt : 1 - own_prompt]
        routes[:, line, column : column + prompt - own_prompt] = shared
    return routes


def split_rows(batch: GRPOBatch, parts: int) -> list[GRPOBatch]:
    """Divide a minibatch's packed rows into `parts` micro-batches; values per sequence and denominators stay the minibatch's.

    Rows of similar length go together, and columns that no row of a part uses are cut off. If there are fewer rows than parts,
    each remaining part is one position of padding: it adds nothing to the loss or to the load of an expert.
    """
    order = batch.tokens.is_token.sum(1).argsort(descending=True, stable=True)
    whole = [_take_rows(batch, chunk) for chunk in order.tensor_split(parts) if len(chunk)]
    return whole + [padding(batch)] * (parts - len(whole))


def padding(batch: GRPOBatch) -> GRPOBatch:
    """Return a micro-batch of one padding position: its forward makes the same tensors as any other, but no token counts."""
    numbers, nothing = torch.zeros((1, 1)), torch.zeros((1, 1), dtype=torch.long)
    return replace(
        batch,
        tokens=TokenBatch(batch.tokens.token_ids[:1, :1], position_ids=nothing, document_ids=nothing),
        completion_mask=nothing.bool(),
        old_logprobs=numbers,
        sampler_logprobs=numbers,
        sequence_ids=nothing - 1,
        advantages=numbers,
        routes=None if batch.routes is None else torch.full_like(batch.routes[:, :1, :1], -1),
        targets=batch.targets and batch.targets.map(lambda _: numbers),
    )


def _take_rows(batch: GRPOBatch, rows: Tensor) -> GRPOBatch:
    names = ("completion_mask", "old_logprobs", "sampler_logprobs", "sequence_ids", "advantages")
    used = int(batch.tokens.is_token[rows].sum(1).max())  # padding stands at the end of a row only
    return replace(
        batch,
        **{name: getattr(batch, name)[rows, :used] for name in names},
        tokens=batch.tokens.map(lambda ids_BT: ids_BT[rows, :used]),
        routes=None if batch.routes is None else batch.routes[:, rows, :used],
        targets=batch.targets and batch.targets.map(lambda numbers_BT: numbers_BT[rows, :used]),
    )


def micro_batches(rollout: Rollout, config: RolloutConfig, seed: int, pad_id: int) -> list[GRPOBatch]:
    """Return the micro-batches of a rollout in training order: `config.micro_batches` parts of each minibatch."""
    whole = minibatches(rollout, config, seed, pad_id)
    return [part for batch in whole for part in split_rows(batch, config.micro_batches)]


def minibatches(rollout: Rollout, config: RolloutConfig, seed: int, pad_id: int) -> list[GRPOBatch]:
    """Return all minibatches of a rollout, in training order."""
    n_rows = rollout.rewards.numel()
    shuffled = minibatch_rows(seed, rollout.number, n_rows, config.minibatches_per_rollout, config.dealt_together)
    how = (config.row_tokens, pad_id, config.train_on_truncated, config.share_prompts_from)
    return [collate(rollout, rows, *how) for rows in shuffled]
