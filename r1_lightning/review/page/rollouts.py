"""The browser of rollouts: a line per step, behind it the groups of its prompts, and in each its samples side by side.

All of it is HTML that opens without JavaScript; `page.js` adds search, filters, keys and colours of tokens.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from r1_lightning.review.page.choosing import fitting
from r1_lightning.review.page.curve import number
from r1_lightning.review.page.inert_text import brief, json_block
from r1_lightning.review.page.samples import (
    LONGEST_NAME,
    LONGEST_REASON,
    anchor,
    article,
    group_anchor,
    is_right,
    mean_reward,
    numbers,
    step_anchor,
    text_block,
)
from r1_lightning.review.rollout_records import EVALUATION, RolloutRecord

Step = tuple[int, str, str]  # optimizer step, source, name of the evaluation
LARGEST_GROUP = (
    3_000_000  # bytes of a group and its numbers: beyond, its other samples are left out; less than a step may have
)


@dataclass
class Numbers:
    """The numbers of all samples of a page, in the order of their `data-i`."""

    samples: list[dict[str, Any]] = field(default_factory=list)

    def add(self, record: RolloutRecord) -> int:
        self.samples.append(numbers(record))
        return len(self.samples) - 1


def by_step(records: Iterable[RolloutRecord]) -> dict[Step, list[list[RolloutRecord]]]:
    """Return the groups of each step, in the order of steps, prompts and samples; of a sample recorded twice the later counts."""
    newest = {record.key: record for record in records}
    steps: dict[Step, dict[int, list[RolloutRecord]]] = defaultdict(lambda: defaultdict(list))
    for record in sorted(newest.values(), key=lambda record: (record.step, record.key)):
        steps[record.step, record.source, record.evaluation][record.prompt_index].append(record)
    return {step: list(groups.values()) for step, groups in steps.items()}


def section(records: Iterable[RolloutRecord], room: int, known: Numbers) -> str:
    """Return the steps that fit into `room` bytes, and what is left out; numbers of the samples are added to `known`."""
    steps = by_step(records)
    chosen = fitting(steps, _size, room)
    total, before = sum(len(group) for groups in steps.values() for group in groups), len(known.samples)
    text = "".join(_step(step, groups, len(steps[step]), known) for step, groups in reversed(chosen.items()))
    shown = len(known.samples) - before
    told = f"<p>{shown:,} of {total:,} recorded completions, {len(chosen):,} of {len(steps):,} recorded steps.</p>"
    return told + text


def columns(group: Sequence[RolloutRecord], known: Numbers, named: bool = True) -> str:
    """Return the samples of a group side by side, as many as there is room for."""
    parts: list[str] = []
    used = 0
    for record in group:
        index = known.add(record)
        part = article(record, index, anchor(record) if named else None)
        used += len(part.encode()) + len(json_block(known.samples[index]))
        if parts and used > LARGEST_GROUP:
            known.samples.pop()
            break
        parts.append(part)
    left = len(group) - len(parts)
    more = f"<p>{left} more samples are too long for this page.</p>" if left else ""
    return f'<div class="samples">{"".join(parts)}</div>{more}'


def _size(group: Sequence[RolloutRecord]) -> int:
    """Return the bytes of a group in the page, its numbers included."""
    known = Numbers()
    return len(_group(group, known).encode()) + len(json_block(known.samples))


def _group(group: Sequence[RolloutRecord], known: Numbers) -> str:
    name, first = group_anchor(group[0]), group[0]
    head = f'<a href="#{name}">prompt {first.prompt_index}</a>: {sum(map(is_right, group))} of {len(group)} right, '
    head += f"mean reward {number(mean_reward(group))}"
    if first.question:
        head += f', <bdi class="code">{brief(first.question, LONGEST_REASON)}</bdi>'
    if first.reference:
        head += f', right answer <bdi class="code">{brief(first.reference, LONGEST_REASON)}</bdi>'
    return (
        f'<section class="group" id="{name}"><h4>{head}</h4>{text_block(first.prompt)}{columns(group, known)}</section>'
    )


def _step(step: Step, groups: Sequence[Sequence[RolloutRecord]], recorded: int, known: Numbers) -> str:
    records = [record for group in groups for record in group]
    name, (count, source, evaluation) = step_anchor(records[0]), step
    word = f"held-out evaluation {brief(evaluation, LONGEST_NAME)} after" if source == EVALUATION else "rollout after"
    more = "" if len(groups) == recorded else f" (of {recorded} recorded)"
    head = f"{word} {count} steps: {len(groups)} prompts{more}, {len(records)} completions, "
    head += f"{sum(map(is_right, records)) / len(records):.0%} right, mean reward {number(mean_reward(records))}"
    inner = "".join(_group(group, known) for group in groups)
    link = f'<p><a href="#{name}">link to this step</a></p>'
    return f'<details class="step" id="{name}"><summary>{head}</summary>{link}{inner}</details>'
