"""What a run keeps of the completions it sampled: one record each, with the reward of every part and why, and numbers per token.

    rollouts.jsonl          completions of training: sampled steps, evenly spaced over the run (`review/record_file.py`)
    rollouts_newest.jsonl   all completions of the newest rollout
    evaluations.jsonl       completions of held-out evaluations, during training and at its end
    samples.jsonl           what `scripts/evaluate.py` writes, with its questions.jsonl

`read_records` reads whichever of them a folder holds. A model wrote the text in them, and the files may come from anywhere: each
line is bounded and checked, and the first bad one is named. A line that a kill cut off at the end of a file is left out.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Final, Literal

from r1_lightning.review.json_lines import Row, lines_of
from r1_lightning.review.record_file import HEAD
from r1_lightning.types.errors import InvalidInput

ROLLOUTS, NEWEST, EVALUATIONS = "rollouts.jsonl", "rollouts_newest.jsonl", "evaluations.jsonl"
SAMPLES, QUESTIONS = "samples.jsonl", "questions.jsonl"  # of `scripts/evaluate.py` (`evaluation/records.py`)
Source = Literal["rollout", "evaluation"]
ROLLOUT: Final = "rollout"
EVALUATION: Final = "evaluation"
TOKEN_BYTES = 48  # of a line, for one token with four numbers; more for long words
Numbers = tuple[float | None, ...]


@dataclass(frozen=True, slots=True)
class Part:
    """One reward function's judgement: its `score` counts `weight` times; `reason` says why. None: the score was no number."""

    name: str
    score: float | None
    weight: float = 1.0
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Tokens:
    """The first tokens of a completion, as columns of equal length; a column that is not known is None.

    `text` of all tokens makes the completion, with the spelling of the token that ended it, if it has one; a character of several
    tokens stands at the last of them. Log-probs and entropies are in nats: `sampler_logprob` of the distribution drawn from,
    `old_logprob` of the policy at sampling, `policy_logprob` and `entropy` of the policy in the update that learned from it.
    """

    text: tuple[str, ...] = ()
    sampler_logprob: Numbers | None = None
    old_logprob: Numbers | None = None
    policy_logprob: Numbers | None = None
    entropy: Numbers | None = None
    advantage: Numbers | None = None

    def first(self, count: int) -> Tokens:
        """Return the columns of the first `count` tokens."""
        cut = {item.name: getattr(self, item.name) for item in fields(self)}
        return Tokens(**{name: column and column[:count] for name, column in cut.items()})


COLUMNS = tuple(item.name for item in fields(Tokens) if item.name != "text")


@dataclass(frozen=True, slots=True)
class RolloutRecord:
    """One sampled completion.

    `step` counts the optimizer steps that the policy had taken; `prompt_index` and `sample` are the places in the rollout or
    evaluation. `reward` is the weighted sum of the `parts`, None if it was no number; that of an evaluation is 1 for a right answer
    in the form asked for. `extracted` is the answer that was read from it, `reference` the right one. `advantage` is the mean over
    its tokens; `length` counts all of its tokens, of which `tokens` has the first. `finished` is False if the length limit cut it
    off. `evaluation` names the evaluation: that of a benchmark, "val" during training, "eval" at its end.
    """

    step: int
    source: Source
    prompt_index: int
    sample: int
    prompt: str
    completion: str
    reward: float | None
    parts: tuple[Part, ...] = ()
    extracted: str | None = None
    advantage: float | None = None
    tokens: Tokens = field(default_factory=Tokens)
    finished: bool = True
    length: int = 0
    mixed_language: bool | None = None
    problem_id: str = ""
    question: str = ""
    reference: str = ""
    evaluation: str = ""

    @property
    def key(self) -> tuple[str, str, int, int, int]:
        """What no two completions of a run share."""
        return (self.source, self.evaluation, self.step, self.prompt_index, self.sample)

    def row(self) -> dict[str, Any]:
        """Return the record as its line's JSON object: `tokens` with its columns, `parts` as a list of objects."""
        # dataclasses.asdict does the same, and copies every number of every token one by one.
        return {**_plain(self), "parts": [_plain(part) for part in self.parts], "tokens": _plain(self.tokens)}

    def line(self, most_bytes: int) -> bytes:
        """Return the line of a file, in at most `most_bytes` bytes (1,000 or more): columns are cut first, then texts."""
        line = _encoded(self.row())
        if len(line) <= most_bytes:
            return line
        shorter = replace(self, tokens=self.tokens.first(most_bytes // 2 // TOKEN_BYTES))
        line = _encoded(shorter.row())
        room = most_bytes
        while len(line) > most_bytes and room:  # a character takes up to 6 bytes
            room //= 2
            shorter = shorter._with_texts_of(room // 12)
            line = _encoded(shorter.row())
        return line

    def _with_texts_of(self, most: int) -> RolloutRecord:
        """Return the record with no text longer than `most` characters and few tokens."""
        names = ("completion", "prompt", "question", "reference", "problem_id")
        texts: dict[str, Any] = {name: shortened(getattr(self, name), most) for name in names}
        extracted = self.extracted and shortened(self.extracted, most)
        parts = tuple(replace(part, reason=shortened(part.reason, most)) for part in self.parts)
        return replace(self, **texts, extracted=extracted, parts=parts, tokens=self.tokens.first(most // TOKEN_BYTES))


def _plain(item: Any) -> dict[str, Any]:
    return {name: getattr(item, name) for name in NAMES[type(item)]}


NAMES = {kind: tuple(item.name for item in fields(kind)) for kind in (Part, Tokens, RolloutRecord)}


def shortened(text: str, most: int) -> str:
    """Return `text`, or its beginning and end with the number of characters left out between, about `most` in all."""
    if len(text) <= most:
        return text
    left_out = len(text) - most
    return f"{text[: most // 2]} [{left_out} characters left out] {text[len(text) - most // 4 :]}"


def _encoded(row: Mapping[str, Any]) -> bytes:
    text = json.dumps(row, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.encode("utf-8", "backslashreplace") + b"\n"


def read_records(folder: Path) -> Iterator[RolloutRecord]:
    """Yield the records in `folder`: those of training, then those of evaluations; none twice, none at all if there are none.

    Raises `InvalidInput` that names the file and the first line which is too long, no JSON, or no record.
    """
    seen: set[tuple[str, str, int, int, int]] = set()
    for name in (ROLLOUTS, NEWEST, EVALUATIONS):
        for row in lines_of(folder / name):
            if HEAD in row.values:
                continue
            record = _record(row)
            if record.key not in seen:
                seen.add(record.key)
                yield record
    yield from _evaluated(folder)


def _record(row: Row) -> RolloutRecord:
    source: Source = EVALUATION if row.text("source") == EVALUATION else ROLLOUT
    advantage = row.number("advantage")
    tokens = _tokens(row.object("tokens"), advantage)
    return RolloutRecord(
        step=row.count("step"),
        source=source,
        prompt_index=row.count("prompt_index"),
        sample=row.count("sample"),
        prompt=row.text("prompt"),
        completion=row.text("completion"),
        reward=row.number("reward"),
        parts=tuple(_part(part) for part in row.objects("parts", 100)),
        extracted=row.text_or_none("extracted"),
        advantage=advantage,
        tokens=tokens,
        finished=row.flag("finished"),
        length=row.count("length"),
        mixed_language=row.flag_or_none("mixed_language"),
        problem_id=row.text("problem_id", ""),
        question=row.text("question", ""),
        reference=row.text("reference", ""),
        evaluation=row.text("evaluation", ""),
    )


def _part(row: Row) -> Part:
    weight = row.number("weight", 1.0)
    return Part(row.text("name"), row.number("score"), 1.0 if weight is None else weight, row.text("reason", ""))


def _tokens(row: Row | None, advantage: float | None) -> Tokens:
    """Read the columns; all tokens of a completion have its advantage where the line says no other."""
    if row is None:
        return Tokens()
    text = row.texts("text")
    columns = {name: row.numbers(name, len(text)) for name in COLUMNS}
    if text and columns["advantage"] is None and advantage is not None:
        columns["advantage"] = (advantage,) * len(text)
    return Tokens(text, **columns)


def _evaluated(folder: Path) -> Iterator[RolloutRecord]:
    """Yield the samples of an evaluation's own records (`evaluation/records.py`), as far as they name their questions."""
    asked = list(lines_of(folder / QUESTIONS))
    benchmark = ""
    for row in lines_of(folder / SAMPLES):
        if "protocol" in row.values:
            protocol = row.object("protocol")
            benchmark = "" if protocol is None else protocol.text("benchmark", "")
            continue
        question = row.count("question")
        if question >= len(asked):
            raise InvalidInput(f"{row.where}: question={question} is not allowed: {QUESTIONS} has {len(asked)}")
        yield _of_sample(row, asked[question], question, benchmark)


def _of_sample(row: Row, asked: Row, question: int, benchmark: str) -> RolloutRecord:
    right = row.flag("strict")
    form = Part("format", float(row.flag("well_formed")), 1.0, "")
    reason = why(row.text("reason"), row.flag("accurate"), row.flag("lenient"))
    return RolloutRecord(
        step=0,
        source=EVALUATION,
        prompt_index=question,
        sample=row.count("sample"),
        prompt=asked.text("text"),
        completion=row.text("completion"),
        reward=float(right),
        parts=(Part("accuracy", float(row.flag("accurate")), 1.0, reason), form),
        extracted=row.text_or_none("answer"),
        finished=row.flag("finished"),
        length=row.count("tokens"),
        mixed_language=row.flag("mixed"),
        problem_id=asked.text("problem_id"),
        question=asked.text("text"),
        reference=asked.text("reference"),
        evaluation=benchmark,
    )


def why(reason: str, accurate: bool, lenient: bool) -> str:
    """Return an evaluation's reason, of its last verdict: on the answer in any form, unless that in its place was right."""
    return f"{reason}, but not in its place" if lenient and not accurate else reason


def known(value: float, digits: int = 6) -> float | None:
    """Return a number for a record, to `digits` decimals; None if it is not finite."""
    return round(value, digits) + 0.0 if math.isfinite(value) else None
