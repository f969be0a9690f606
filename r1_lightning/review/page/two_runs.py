"""Two runs beside each other: the settings in which they differ, and prompts that both policies answered."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from r1_lightning.review.page.curve import number
from r1_lightning.review.page.inert_text import brief, inert, json_block
from r1_lightning.review.page.rollouts import Numbers, columns
from r1_lightning.review.page.samples import mean_reward, text_block
from r1_lightning.review.rollout_records import RolloutRecord

WHERE = ("paths.", "launcher.", "logger.")  # settings that say where a run was made and not what
ABSENT = "-"
LONGEST = 2_000  # characters of a setting
OPENED = 2  # pairs that are shown at once, those with the largest differences
SHOWN_ENDING = 120  # characters that a line shows of a question, or of the end of a prompt, where it stands


@dataclass(frozen=True)
class Pair:
    """The newest answers of two runs to the same prompt of the same source."""

    prompt: str
    source: str
    own: Sequence[RolloutRecord]
    other: Sequence[RolloutRecord]

    @property
    def gain(self) -> float:
        """The mean reward of the first run above that of the second."""
        return mean_reward(self.own) - mean_reward(self.other)


def differences(own: Mapping[str, str], other: Mapping[str, str]) -> list[tuple[str, str, str]]:
    """Return (setting, value in the first run, value in the second) where they differ, by the order of the settings."""
    names = [name for name in {**own, **other} if not name.startswith(WHERE)]
    rows = [(name, own.get(name, ABSENT), other.get(name, ABSENT)) for name in names]
    return [row for row in rows if row[1] != row[2]]


def answered_by_both(own: Iterable[RolloutRecord], other: Iterable[RolloutRecord]) -> list[Pair]:
    """Return the prompts that both runs have records of, those first of which the mean rewards differ most."""
    first, second = _newest(own), _newest(other)
    pairs = [Pair(*key, first[key], second[key]) for key in first if key in second]
    return sorted(pairs, key=lambda pair: -abs(pair.gain) if pair.gain == pair.gain else 0.0)


def settings_table(rows: Sequence[tuple[str, str, str]]) -> str:
    """Return the differing settings as HTML."""
    if not rows:
        return "<p>The settings of both runs are the same.</p>"
    body = "".join(f"<tr>{''.join(f'<td>{brief(cell, LONGEST)}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table><thead><tr><th>setting</th><th>this run</th><th>the other</th></tr></thead>{body}</table>"


def section(pairs: Sequence[Pair], room: int, known: Numbers) -> str:
    """Return as many pairs as fit into `room` bytes, each prompt with the answers of both runs side by side."""
    if not pairs:
        return "<p>No prompt has records in both runs: with other seeds, rollouts have other prompts.</p>"
    parts: list[str] = []
    for pair in pairs:
        before = len(known.samples)
        text = _pair(pair, known, len(parts) < OPENED)
        room -= len(text.encode()) + len(json_block(known.samples[before:]))
        if room < 0:
            del known.samples[before:]
            break
        parts.append(text)
    told = f"{len(parts):,} of {len(pairs):,} prompts that both have records of, the largest differences of mean reward first."
    return f"<p>{told}</p>{''.join(parts)}"


def _pair(pair: Pair, known: Numbers, is_open: bool) -> str:
    sides = _side("this run", pair.own, known) + _side("the other", pair.other, known)
    ending = inert(pair.own[0].question[:SHOWN_ENDING] or " ".join(pair.prompt.split())[-SHOWN_ENDING:])
    rewards = [number(mean_reward(records)) for records in (pair.own, pair.other)]
    head = f'{rewards[0]} here, {rewards[1]} there ({pair.gain:+.3g}), {pair.source}: <bdi class="code">{ending}</bdi>'
    tag = "<details open>" if is_open else "<details>"
    return f'{tag}<summary>{head}</summary>{text_block(pair.prompt)}<div class="both">{sides}</div></details>'


def _side(word: str, records: Sequence[RolloutRecord], known: Numbers) -> str:
    head = f"{word} after {records[0].step} steps: mean reward {number(mean_reward(records))}"
    return f"<div><h4>{head}</h4>{columns(records, known, named=False)}</div>"


def _newest(records: Iterable[RolloutRecord]) -> dict[tuple[str, str], list[RolloutRecord]]:
    """Return the samples of the last step at which each prompt was answered, by prompt and source."""
    by_prompt: dict[tuple[str, str], dict[int, dict[tuple[int, int], RolloutRecord]]] = defaultdict(
        lambda: defaultdict(dict)
    )
    for record in records:
        by_prompt[record.prompt, record.source][record.step][record.prompt_index, record.sample] = record
    return {key: list(steps[max(steps)].values()) for key, steps in by_prompt.items()}
