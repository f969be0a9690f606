"""Turns completions of a rollout into records: parts of the reward with their reasons, and each token's text and numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from r1_lightning.review.rollout_records import ROLLOUT, Numbers, Part, RolloutRecord, Tokens, known
from r1_lightning.rollout.results import Rollout
from r1_lightning.text.answers import given_answer
from r1_lightning.text.code_tests import TESTS
from r1_lightning.text.language import is_mixed
from r1_lightning.text.readability import spoken

MOST_TOGETHER = 8  # tokens that make one character; a model may sample bytes that make none


class TokenTexts:
    """The text of each token of a completion; together they are its text, with the spelling of the token that ended it.

    A character of several tokens, which byte-level tokenizers have in most scripts, stands at the last of them.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        # After another token: some tokenizers drop the space before the first word of a text.
        self.before = tokenizer.encode("0")[-1]
        self.known: dict[tuple[int, ...], str] = {}

    def __call__(self, ids: Sequence[int]) -> tuple[str, ...]:
        """Return a text for each of `ids`."""
        texts: list[str] = []
        open_ids: tuple[int, ...] = ()
        for number, token in enumerate(ids, start=1):
            open_ids += (token,)
            text = self._of(open_ids)
            is_whole = not text.endswith("\ufffd") or len(open_ids) == MOST_TOGETHER or number == len(ids)
            texts.append(text if is_whole else "")
            open_ids = () if is_whole else open_ids
        return tuple(texts)

    def _of(self, ids: tuple[int, ...]) -> str:
        if ids not in self.known:
            rows = [[self.before], [self.before, *ids]]
            before, both = self.tokenizer.decode_batch(rows, skip_special=False)
            self.known[ids] = both.removeprefix(before)
        return self.known[ids]


def records_of(
    rollout: Rollout,
    rows: Sequence[int],
    weights: Mapping[str, float],
    texts: TokenTexts,
    scored: Mapping[int, Tensor],
    most_tokens: int,
) -> list[RolloutRecord]:
    """Return the records of the completions `rows`, with numbers of at most `most_tokens` tokens of each.

    `scored` holds the log-probs and entropies of the update (2 x length) of those rows of which they are known.
    """
    prompts = {row // rollout.group_size for row in rows}
    ids = {number: list(rollout.prompts[number]) for number in prompts}
    asked = dict(zip(ids, texts.tokenizer.decode_batch(list(ids.values()), skip_special=False), strict=True))
    return [
        _record(rollout, row, asked[row // rollout.group_size], weights, texts, scored.get(row), most_tokens)
        for row in rows
    ]


def _record(
    rollout: Rollout,
    row: int,
    prompt: str,
    weights: Mapping[str, float],
    texts: TokenTexts,
    scored: Tensor | None,
    most_tokens: int,
) -> RolloutRecord:
    number, sample = divmod(row, rollout.group_size)
    problem, text = rollout.problems[number], rollout.texts[row]
    length = int(rollout.generation.completion_mask[row].sum())
    advantages = rollout.advantages[row, :length]
    is_code = TESTS in problem.metadata
    return RolloutRecord(
        step=rollout.policy_version,
        source=ROLLOUT,
        prompt_index=number,
        sample=sample,
        prompt=prompt,
        completion=text,
        reward=known(float(rollout.rewards[number, sample])),
        parts=_parts(rollout, row, weights),
        extracted=None if is_code else given_answer(text, rollout.form),
        advantage=known(float(advantages.mean())) if length else None,
        tokens=_tokens(rollout, row, min(length, most_tokens), texts, scored),
        finished=bool(rollout.generation.finished[row]),
        length=length,
        mixed_language=is_mixed(spoken(text, is_code)),
        problem_id=problem.problem_id,
        question=problem.question,
        reference=problem.answer,
    )


def _parts(rollout: Rollout, row: int, weights: Mapping[str, float]) -> tuple[Part, ...]:
    place = divmod(row, rollout.group_size)
    why = {name: reasons[row] for name, reasons in rollout.reasons.items()}
    return tuple(
        Part(name, known(float(scores[place])), weights.get(name, 1.0), str(why.get(name, "")))
        for name, scores in rollout.parts.items()
    )


def _tokens(rollout: Rollout, row: int, count: int, texts: TokenTexts, scored: Tensor | None) -> Tokens:
    generation = rollout.generation
    drawn, old = generation.sampler_logprobs[row, :count], generation.policy_logprobs[row, :count]
    advantages = rollout.advantages[row, :count]
    differ = bool((advantages != advantages[:1]).any())  # else the record's own advantage says it
    return Tokens(
        text=texts(generation.completion_ids[row, :count].tolist()),
        sampler_logprob=rounded(drawn),
        old_logprob=None if torch.equal(drawn, old) else rounded(old),
        policy_logprob=None if scored is None else rounded(scored[0, :count]),
        entropy=None if scored is None else rounded(scored[1, :count]),
        advantage=rounded(advantages) if differ else None,
    )


def rounded(numbers_T: Tensor) -> Numbers:
    """Return numbers for a record, to four decimals, without -0; None for one that is not finite."""
    values: list[float] = (numbers_T.double().round(decimals=4) + 0.0).tolist()
    if bool(numbers_T.isfinite().all()):
        return tuple(values)
    return tuple(value if math.isfinite(value) else None for value in values)
