"""One sampled completion: as HTML that is read without JavaScript, and as the numbers that JavaScript filters and colours by.

The text stands once in the page, in the HTML. The numbers of its tokens are lists; where a token begins in the text follows from
the lengths of those before it (`inert_text.shown_units`). Where tokens do not add up to the text (a letter of several bytes is cut
into pieces that are no letters), their own texts stand beside it, hidden until somebody colours tokens.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

from r1_lightning.review.page.curve import number
from r1_lightning.review.page.inert_text import brief, inert, inert_lines, shown_units
from r1_lightning.review.rollout_records import EVALUATION, Part, RolloutRecord

LONGEST_TEXT = 1_200_000  # characters that are shown whole
LONGEST_HTML = 3_000_000  # and bytes of HTML that they may become; a longer text is shown by its ends
ENDS = 50_000  # characters of each end
FORM, RIGHT = "format", "accuracy"  # names of the parts of a reward that judge form and answer
LONGEST_NAME = 40  # characters of the name of a reward or an evaluation
LONGEST_REASON = 5_000  # characters of a reason, or of an answer: tests of programs are long
LOGPROB_UNIT, DIFFERENCE_UNIT = 1e-3, 1e-4  # of the whole numbers in the page


def anchor(record: RolloutRecord) -> str:
    """Return the name by which a link finds the sample: step-12-prompt-3-sample-4, or evaluation-val-12-..."""
    return f"{group_anchor(record)}-sample-{record.sample}"


def group_anchor(record: RolloutRecord) -> str:
    """Return the name by which a link finds the samples of one prompt."""
    return f"{step_anchor(record)}-prompt-{record.prompt_index}"


def step_anchor(record: RolloutRecord) -> str:
    """Return the name by which a link finds a step's samples; of an evaluation's own name letters, digits and hyphens are left."""
    if record.source != EVALUATION:
        return f"step-{record.step}"
    name = re.sub(r"[^a-z0-9]+", "-", record.evaluation[:LONGEST_NAME].lower()).strip("-")
    return "-".join(word for word in ("evaluation", name, str(record.step)) if word)


def article(record: RolloutRecord, index: int, name: str | None = None) -> str:
    """Return the sample as HTML; `index` is its place among the numbers, `name` its anchor where it has one."""
    kind = "right" if is_right(record) else "wrong"
    head = f"sample {record.sample}" if name is None else f'<a href="#{name}">sample {record.sample}</a>'
    place = "" if name is None else f' id="{name}" tabindex="-1"'
    facts = [f"reward <b>{score(record.reward)}</b>"]
    if record.advantage is not None:
        facts.append(f"advantage {_signed(record.advantage)}")
    facts += [f"{record.length} tokens", *notes(record)]
    judged = "".join(map(_judged, record.parts))
    extracted = (
        ""
        if record.extracted is None
        else f'<p>answer taken: <bdi class="code">{brief(record.extracted, LONGEST_REASON)}</bdi></p>'
    )
    return (
        f'<article class="{kind}" data-i="{index}"{place}><header>{head}: {", ".join(facts)}</header>'
        f"{judged}{extracted}{completion(record)}</article>"
    )


def _judged(part: Part) -> str:
    name, reason = brief(part.name, LONGEST_NAME), brief(part.reason, LONGEST_REASON)
    return f"<p><b>{name} {score(part.score)}</b> × {number(part.weight)}: {reason}</p>"


def score(value: float | None) -> str:
    """Return a reward or a score as text; one that was no number says so."""
    return "no number" if value is None else number(value)


def mean_reward(records: Sequence[RolloutRecord]) -> float:
    """Return the mean of the rewards that are numbers; not a number if there are none."""
    rewards = [record.reward for record in records if record.reward is not None]
    return sum(rewards) / len(rewards) if rewards else math.nan


def notes(record: RolloutRecord) -> list[str]:
    """Return what sets a sample apart, in words."""
    said = [] if record.finished else ["cut off at the limit of length"]
    return [*said, "mixed languages"] if record.mixed_language else said


def is_right(record: RolloutRecord) -> bool:
    """Whether the part of the reward that judges the answer gave all; without such a part, whether the reward is positive."""
    scores = [part.score or 0.0 for part in record.parts if part.name == RIGHT]
    return scores[0] >= 1 if scores else (record.reward or 0.0) > 0


def is_well_formed(record: RolloutRecord) -> bool:
    """Whether the form is the one asked for; where no part of the reward judges form, whether the text ended by itself."""
    scores = [part.score or 0.0 for part in record.parts if part.name == FORM]
    return scores[0] >= 1 if scores else record.finished


def completion(record: RolloutRecord) -> str:
    """Return the text, and after it the end token, if the tokens have one; or the text beside those tokens that are known."""
    whole, text = "".join(record.tokens.text), record.completion
    if is_long(text):
        return text_block(text)
    if text.startswith(whole):  # all tokens, or the first that are recorded
        return text_block(text)
    if whole.startswith(text):
        rest = whole[len(text) :]
        end = f'<i class="end">{inert(rest)}</i>' if rest else ""
        return f'<pre class="text" dir="auto">\n{inert_lines(text)}{end}</pre>'
    pieces = f'<pre class="pieces" dir="auto" hidden>\n{inert_lines(whole)}</pre>' if whole else ""
    return f"{text_block(text)}{pieces}"


def text_block(text: str) -> str:
    """Return a text of any length, whole where the page can bear it, else by its ends with a line that says what is left out."""
    if is_long(text):
        left_out = f"<b>{len(text) - 2 * ENDS:,} characters are left out here</b>"
        shown = f"{inert_lines(text[:ENDS])}\n{left_out}\n{inert_lines(text[-ENDS:])}"
    else:
        shown = inert_lines(text)
    return f'<pre class="text" dir="auto">\n{shown}</pre>'  # a parser drops the newline after the tag


def is_long(text: str) -> bool:
    """Whether a text is too long for the page."""
    return len(text) > LONGEST_TEXT or (len(text) > 2 * ENDS and len(inert(text)) > LONGEST_HTML)


def numbers(record: RolloutRecord) -> dict[str, Any]:
    """Return what JavaScript needs: reward, advantage, length, the filters that the sample passes, and columns of its tokens."""
    return {
        "r": _rounded(record.reward),
        "a": _rounded(record.advantage),
        "n": record.length,
        "w": int(not is_right(record) and is_well_formed(record)),
        "m": int(bool(record.mixed_language)),
        "u": int(not record.finished),
        **({} if is_long(record.completion) else token_columns(record)),
    }


def token_columns(record: RolloutRecord) -> dict[str, Any]:
    """Return lengths, sampler's log-probs, trainer minus sampler, entropies and advantages of the tokens, those that are known.

    Log-probs and entropies are in thousandths of a nat, differences in ten-thousandths. A column of one value is that value.
    """
    tokens = record.tokens
    if not tokens.text:
        return {}
    columns: dict[str, Any] = {"t": [shown_units(text) for text in tokens.text]}
    columns["s"] = _scaled(tokens.sampler_logprob, LOGPROB_UNIT)
    if tokens.policy_logprob is not None and tokens.sampler_logprob is not None:
        pairs = zip(tokens.policy_logprob, tokens.sampler_logprob, strict=False)
        columns["d"] = _scaled([_minus(policy, sampler) for policy, sampler in pairs], DIFFERENCE_UNIT)
    columns["e"] = _scaled(tokens.entropy, LOGPROB_UNIT)
    columns["A"] = _scaled(tokens.advantage, LOGPROB_UNIT)
    return {name: column for name, column in columns.items() if column is not None}


def _minus(first: float | None, second: float | None) -> float | None:
    return None if first is None or second is None else first - second


def _scaled(values: Sequence[float | None] | None, unit: float) -> list[int | None] | int | None:
    if values is None or not values:
        return None
    whole = [None if value is None or not math.isfinite(value / unit) else round(value / unit) for value in values]
    return whole[0] if len(set(whole)) == 1 else whole


def _rounded(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(f"{value:.5g}")


def _signed(value: float) -> str:
    return f"{'+' if value > 0 else ''}{number(value)}"
