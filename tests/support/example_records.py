"""Example records of sampled completions, as a run writes them: groups with right, wrong, mixed and cut-off completions."""

from __future__ import annotations

import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from r1_lightning.review.record_file import RecordFile
from r1_lightning.review.rollout_records import EVALUATIONS, ROLLOUTS, Part, RolloutRecord, Tokens

KINDS = (
    # completion, its answer, scores of accuracy and format, their reasons, finished, mixed language
    ("<think>17+25=42</think> <answer>42</answer>", "42", 1.0, "right", 1.0, "well formed", True, False),
    (
        "<think>17+25=43</think> <answer>43</answer>",
        "43",
        0.0,
        "answered '43', expected '42'",
        1.0,
        "well formed",
        True,
        False,
    ),
    ("the sum 是 42", "42", 0.0, "no answer in its place", 0.0, "no think block", True, True),
    ("<think>17+25=17+25=", "25", 0.0, "no answer in its place", 0.0, "cut off by the length limit", False, False),
)


def example_record(step: int = 0, group: int = 0, sample: int = 0, **changes: Any) -> RolloutRecord:
    """One record; its kind goes by `sample`, its numbers are drawn from (step, group, sample)."""
    draw = random.Random(f"{step} {group} {sample}")
    text, answer, right, why, formed, broken, finished, mixed = KINDS[sample % len(KINDS)]
    tokens = [*text, "<eos>"] if finished else [*text]
    columns = {
        name: tuple(round(-draw.random(), 4) for _ in tokens)
        for name in ("sampler_logprob", "policy_logprob", "entropy")
    }
    advantage = round(draw.uniform(-1, 1), 6)
    values: dict[str, Any] = {
        "step": step,
        "source": "rollout",
        "prompt_index": group,
        "sample": sample,
        "prompt": f"User: What is 17+25? ({group}) Assistant:",
        "completion": text,
        "reward": right + formed,
        "parts": (Part("accuracy", right, 1.0, why), Part("format", formed, 1.0, broken)),
        "extracted": answer,
        "advantage": advantage,
        "tokens": Tokens(tuple(tokens), **columns, advantage=(advantage,) * len(tokens)),
        "finished": finished,
        "length": len(tokens),
        "mixed_language": mixed,
        "problem_id": f"sum-{group}",
        "question": f"What is 17+25? ({group})",
        "reference": "42",
    }
    return RolloutRecord(**{**values, **changes})


def example_records(steps: Iterable[int], groups: int = 4, samples: int = 4, **changes: Any) -> list[RolloutRecord]:
    """All records of `groups` groups of `samples` completions at each of `steps`."""
    numbers = [(step, group, sample) for step in steps for group in range(groups) for sample in range(samples)]
    return [example_record(*places, **changes) for places in numbers]


def write_example_records(
    folder: Path,
    steps: Iterable[int],
    groups: int = 4,
    samples: int = 4,
    evaluated: Iterable[int] = (),
    **changes: Any,
) -> None:
    """Write rollouts.jsonl and, at the steps `evaluated`, evaluations.jsonl, as a run in `folder` does."""
    files = ((ROLLOUTS, steps, {}), (EVALUATIONS, evaluated, {"source": "evaluation", "evaluation": "val"}))
    for name, numbers, kind in files:
        file = RecordFile(folder / name, 100 * 10**6)
        for step in numbers:
            made = example_records([step], groups, samples, **{**kind, **changes})
            file.add(step, [record.line(2**20) for record in made])
