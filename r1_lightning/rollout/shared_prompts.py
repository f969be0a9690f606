"""Packed rows of completions in which those of one prompt share it: the prompt stands in the row once, before all of them.

Without sharing, a completion's document is its prompt and itself, and a group of G puts its prompt through the network G times, in
the forward and in the backward. With it, the tokens of the prompt but the last `OWN_PROMPT_TOKENS` are a document that those of the
group continue (`types/tensors.py:TokenBatch`): losses, gradients and expert load are those of separate documents, to rounding.
The last tokens stay with each completion: the very last predicts its first token, so losses find what they predict, and from
what, in one document as ever.

Only completions of one minibatch can share, and only as many as fit into a row beside their prompt: the longer
`rollout.row_tokens`, the more. A prompt that is shorter than `rollout.share_prompts_from` is not shared: there is little to save.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from r1_lightning.model.continued_rows import OWN_PROMPT_TOKENS
from r1_lightning.rollout.packing import pack_lengths
from r1_lightning.types.tensors import TokenBatch


@dataclass(frozen=True)
class Unit:
    """Sequences that stand together in a row, behind the first `shared` tokens of their prompt; 0 for a sequence alone."""

    shared: int
    sequences: tuple[int, ...]


@dataclass(frozen=True)
class Place:
    """The row and first column of a sequence's own document, which begins with the last `own_prompt` tokens of its prompt."""

    row: int
    column: int
    own_prompt: int

    @property
    def start(self) -> int:
        """The column of the first completion token."""
        return self.column + self.own_prompt


@dataclass(frozen=True)
class PackedCompletions:
    """Rows of `row_tokens` with prompts and completions: `places` of all sequences, and (sequence, row, column) of each prefix.

    The sequence is one of those that share the prefix.
    """

    tokens: TokenBatch
    places: tuple[Place, ...]
    prefixes: tuple[tuple[int, int, int], ...]


def units_of(
    prompts: Sequence[Sequence[int]],
    lengths: Sequence[int],
    groups: Sequence[int],
    row_tokens: int,
    share_from: int | None,
) -> list[Unit]:
    """Return who stands together, in the order of their first sequences; sequence s is of group `groups[s]`.

    `lengths` are those of the completions. Prompts of a group are equal.
    """
    members: dict[int, list[int]] = {}
    for sequence, group in enumerate(groups):
        members.setdefault(group, []).append(sequence)
    units = []
    for sequences in members.values():
        prompt = prompts[sequences[0]]
        shared = len(prompt) - OWN_PROMPT_TOKENS
        if share_from is None or len(prompt) < share_from or shared < 1:
            units += [Unit(0, (sequence,)) for sequence in sequences]
            continue
        # The longest first: fewer rows, and so fewer copies of the prompt.
        ordered = sorted(sequences, key=lambda sequence: -lengths[sequence])
        own = [OWN_PROMPT_TOKENS + lengths[sequence] for sequence in ordered]
        for chosen in pack_lengths(own, row_tokens - shared):
            together = tuple(sorted(ordered[place] for place in chosen))
            units.append(Unit(shared if len(together) > 1 else 0, together))
    return sorted(units, key=lambda unit: unit.sequences[0])


def packed_completions(
    prompts: Sequence[Sequence[int]],
    completions: Sequence[Sequence[int]],
    groups: Sequence[int],
    row_tokens: int,
    pad_id: int,
    share_from: int | None,
) -> PackedCompletions:
    """Pack each prompt with its completion; those of equal `groups` share a prompt of at least `share_from` tokens (None: never).

    Raises ValueError if a prompt with its completion is longer than a row.
    """
    lengths = list(map(len, completions))
    units = units_of(prompts, lengths, groups, row_tokens, share_from)
    sizes = [unit.shared + sum(len(prompts[s]) - unit.shared + lengths[s] for s in unit.sequences) for unit in units]
    placed = pack_lengths(sizes, row_tokens)
    token_ids = np.full((len(placed), row_tokens), pad_id, dtype=np.int64)
    position_ids, document_ids, prefix_ids = (np.zeros_like(token_ids) for _ in range(3))
    places, prefixes = [Place(0, 0, 0)] * len(prompts), []

    def write(row: int, column: int, ids: Sequence[int], first: int, number: int, prefix: int) -> int:
        end = column + len(ids)
        token_ids[row, column:end] = ids
        position_ids[row, column:end] = np.arange(first, first + len(ids))
        document_ids[row, column:end], prefix_ids[row, column:end] = number, prefix
        return end

    for row, chosen in enumerate(placed):
        column = number = 0
        for unit in (units[place] for place in chosen):
            shared, prefix = unit.shared, 0
            if shared:
                prefix = number = number + 1
                prefixes.append((unit.sequences[0], row, column))
                column = write(row, column, prompts[unit.sequences[0]][:shared], 0, number, 0)
            for sequence in unit.sequences:
                number += 1
                own = [*prompts[sequence][shared:], *completions[sequence]]
                places[sequence] = Place(row, column, len(prompts[sequence]) - shared)
                column = write(row, column, own, shared, number, prefix)
    arrays = [token_ids, position_ids, document_ids] + [prefix_ids] * bool(prefixes)
    return PackedCompletions(TokenBatch(*map(torch.from_numpy, arrays)), tuple(places), tuple(prefixes))
