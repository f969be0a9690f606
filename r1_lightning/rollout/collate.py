"""From a rollout to minibatches: shuffle the completions, divide them into minibatches, and pack these into rows.

(seed, rollout) draws the order of the completions, as R1 splits 8,192 outputs "randomly" into 16 minibatches. The old log-probs
are those that the sampler stored, without a second forward; the self-check at step 0 shows that they equal a training forward's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace

import torch
from torch import Tensor

from r1_lightning.rollout.groups import RolloutConfig
from r1_lightning.rollout.keyed_random import keyed_uniforms
from r1_lightning.rollout.packing import PackedRows
from r1_lightning.rollout.results import Rollout
from r1_lightning.types.errors import InvalidInput
from r1_lightning.types.tensors import GRPOBatch, TokenBatch

# Shape legend: R completions of the rollout, S of them in a minibatch.


def minibatch_rows(seed: int, number: int, n_rows: int, n_minibatches: int) -> list[Tensor]:
    """Return each minibatch's completion indices, S each: a permutation drawn from (seed, rollout number), in equal pieces."""
    keys = torch.tensor([[number]])
    order = keyed_uniforms(seed, keys, n_rows)[0].argsort(stable=True)
    return list(order.chunk(n_minibatches))


def collate(rollout: Rollout, rows: Tensor, row_tokens: int, pad_id: int, train_on_truncated: bool = True) -> GRPOBatch:
    """Pack prompt + completion of the chosen `rows` (S) into one minibatch.

    Without `train_on_truncated`, a completion that did not finish is masked out of the loss; it counts in `n_sequences`, as in
    TRL, but not in `n_tokens`.

    Raises InvalidInput if a prompt with its completion is longer than a row.
    """
    generation = rollout.generation
    lengths = generation.completion_mask.sum(1)
    chosen = rows.tolist()
    trained = generation.finished[rows] | train_on_truncated
    prompts = [list(rollout.prompts[row // rollout.group_size]) for row in chosen]
    documents = [
        prompt + generation.completion_ids[row, : lengths[row]].tolist()
        for prompt, row in zip(prompts, chosen, strict=True)
    ]
    longest = max(map(len, documents))
    if longest > row_tokens:
        raise InvalidInput(
            f"rollout.row_tokens={row_tokens} is not allowed: a prompt with its completion takes {longest} tokens here"
        )
    packed = PackedRows(documents, row_tokens, pad_id)
    shape = packed.token_ids.shape
    starts = [column + len(prompt) for (_, column), prompt in zip(packed.spans, prompts, strict=True)]

    def placed(numbers_RT: Tensor) -> Tensor:
        """Numbers of each completion token, in the packed rows."""
        rows_BT = torch.zeros(shape)
        for row, (line, _), start in zip(chosen, packed.spans, starts, strict=True):
            rows_BT[line, start : start + lengths[row]] = numbers_RT[row, : lengths[row]]
        return rows_BT

    mask = torch.zeros(shape, dtype=torch.bool)
    sequence_ids = torch.full(shape, -1, dtype=torch.long)
    for sequence, (line, column) in enumerate(packed.spans):
        end = column + len(documents[sequence])
        mask[line, starts[sequence] : end] = trained[sequence]
        sequence_ids[line, column:end] = sequence
    routes = packed_routes(rollout, chosen, prompts, packed) if generation.routes.numel() else None
    return GRPOBatch(
        tokens=packed.batch(slice(None)),
        completion_mask=mask,
        old_logprobs=placed(generation.policy_logprobs),
        sampler_logprobs=placed(generation.sampler_logprobs),
        sequence_ids=sequence_ids,
        advantages=placed(rollout.advantages),
        completion_tokens=lengths[rows].float(),
        n_sequences=len(chosen),
        n_tokens=int(mask.sum()),
        policy_version=rollout.policy_version,
        routes=routes,
        targets=rollout.targets and rollout.targets.map(placed),
    )


def packed_routes(
    rollout: Rollout, chosen: Sequence[int], prompts: Sequence[Sequence[int]], packed: PackedRows
) -> Tensor:
    """Return the sampler's routes at each position of the packed rows, L x B x T x K; -1 on padding and on last tokens."""
    generation = rollout.generation
    layers, _, _, n_chosen = generation.routes.shape
    routes = torch.full((layers, *packed.token_ids.shape, n_chosen), -1, dtype=torch.long)
    lengths = generation.completion_mask.sum(1).tolist()
    for row, prompt, (line, column) in zip(chosen, prompts, packed.spans, strict=True):
        start = column + len(prompt) - 1  # the prompt's last token predicts the completion's first
        routes[:, line, start : start + lengths[row]] = generation.routes[:, row, : lengths[row]]
        if len(prompt) > 1:
            routes[:, line, column:start] = generation.prompt_routes[:, row, 1 - len(prompt) :]
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
        tokens=TokenBatch(*(getattr(batch.tokens, item.name)[rows, :used] for item in fields(TokenBatch))),
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
    shuffled = minibatch_rows(seed, rollout.number, n_rows, config.minibatches_per_rollout)
    return [collate(rollout, rows, config.row_tokens, pad_id, config.train_on_truncated) for rows in shuffled]
