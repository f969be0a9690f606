r"""Completions of a rollout as text that shows them as they are, for people who look at a run.

Dashboards read text as Markdown, which would turn 2*3*4 into italics and drop <think> as an unknown tag. So all that a model or a
data set wrote stands in code blocks: every line is indented by four spaces. Markdown breaks lines at `\r` as well, and a mark that
turns the direction of writing changes how the rest of a line reads: control and format characters are written as escapes.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

PROMPTS_SHOWN = 4
LONGEST = 4000  # characters of a text; what is longer loses its middle
WIDTH = 110  # columns of a line in a code block; characters of East Asia take two
FOLD = "↳ "
# Control, format (direction, width zero), surrogate, line and paragraph separator: none can be seen, some change what is seen.
UNSEEN = ("Cc", "Cf", "Cs", "Zl", "Zp")


@dataclass(frozen=True)
class Sample:
    """One completion with its prompt's question and answer; `rank` is its reward's place in its group, in words.

    `parts` are (name, score, reason) of each reward function; `length` counts tokens.
    """

    prompt: int
    rank: str
    question: str
    answer: str
    completion: str
    reward: float
    parts: Sequence[tuple[str, float, str]]
    length: int
    finished: bool


def shown_samples(rollout: Any) -> list[Sample]:
    """Return of each of the first prompts the completions with the highest and the lowest reward; one if all are equal."""
    return [
        _sample(rollout, prompt, place, rank)
        for prompt in range(min(PROMPTS_SHOWN, len(rollout.problems)))
        for place, rank in _places(rollout.rewards[prompt].tolist())
    ]


def _places(rewards: Sequence[float]) -> Iterator[tuple[int, str]]:
    """The first place of the highest and of the lowest reward; a group that could not be judged (NaN) shows its first."""
    best = max(range(len(rewards)), key=lambda place: rewards[place])
    worst = min(range(len(rewards)), key=lambda place: rewards[place])
    if rewards[worst] < rewards[best]:
        yield from ((best, "highest reward"), (worst, "lowest reward"))
    else:
        yield best, "all rewards equal"


def _sample(rollout: Any, prompt: int, place: int, rank: str) -> Sample:
    row = prompt * rollout.rewards.shape[1] + place
    problem, reasons = rollout.problems[prompt], rollout.reasons
    parts = [
        (name, float(scores[prompt, place]), str(reasons[name][row]) if name in reasons else "")
        for name, scores in rollout.parts.items()
    ]
    return Sample(
        prompt=prompt,
        rank=rank,
        question=str(problem.question),
        answer=str(problem.answer),
        completion=rollout.texts[row],
        reward=float(rollout.rewards[prompt, place]),
        parts=parts,
        length=int(rollout.generation.completion_mask[row].sum()),
        finished=bool(rollout.generation.finished[row]),
    )


def folded(text: str) -> str:
    """Return `text` with lines of at most WIDTH columns, for code blocks break none; a further piece begins with `FOLD`."""
    return "\n".join(piece for line in text.split("\n") for piece in _pieces(line))


def _pieces(line: str) -> Iterator[str]:
    piece, columns = "", 0
    for character in line:
        width = 2 if unicodedata.east_asian_width(character) in "WF" else 1
        if columns + width > WIDTH:
            yield piece
            piece, columns = FOLD, len(FOLD)
        piece, columns = piece + character, columns + width
    yield piece


def markdown(samples: Sequence[Sample]) -> str:
    """Return the samples as Markdown: a heading of our own each, and all else in code blocks."""
    return "\n\n".join(
        f"#### Prompt {sample.prompt + 1}, {sample.rank}\n\n{as_code(folded(plain(sample)))}" for sample in samples
    )


def plain(sample: Sample) -> str:
    """Return one sample as plain text: question, answer, reward by part with its reason, and the completion."""
    end = "ended" if sample.finished else "cut off"
    width = max((len(name) for name, _, _ in sample.parts), default=0)
    parts = [f"  {name:<{width}} {score:<6.4g} {reason}".rstrip() for name, score, reason in sample.parts]
    lines = [
        f"question  {sample.question}",
        f"answer    {sample.answer}",
        f"reward    {sample.reward:.4g}",
        *parts,
        f"completion of {sample.length} tokens, {end}:",
    ]
    return "\n".join(map(visible, lines)) + f"\n\n{visible(sample.completion)}"


def visible(text: str) -> str:
    r"""Return `text` with characters that cannot be seen as escapes, and without its middle if it is very long.

    Newlines and tabs stay; everything else that is shown is as it was written.
    """
    if len(text) > LONGEST:
        half = LONGEST // 2
        text = f"{text[:half]}\n[... {len(text) - 2 * half} characters ...]\n{text[-half:]}"
    return "".join(
        character if character in "\n\t" or unicodedata.category(character) not in UNSEEN else _escape(character)
        for character in text
    )


def _escape(character: str) -> str:
    number = ord(character)
    return f"\\x{number:02x}" if number < 256 else f"\\u{number:04x}" if number < 65536 else f"\\U{number:08x}"


def as_code(text: str) -> str:
    """Return `text` as a Markdown code block: every line indented, or TensorBoard would read tags in later lines as HTML."""
    return "\n".join(f"    {line}" for line in text.split("\n"))
