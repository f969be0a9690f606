"""Joins reasoning steps into one line: `First 7*8=56, then 56-19=37, so 37+42=79.`

A corpus has one of three manners, because a base model's pre-training text decides what reinforcement learning can find in it:

- **sparing**: often no words between steps, always one language. A policy may learn to leave words out, so few languages mix.
- **mixed**: words between all steps; in `SWITCH_SHARE` of the lines each joint has its own language, as bilingual people write.
  This is what R1-Zero's base model has to offer, and why R1 needs a language reward.
- **clean**: words between all steps, all in one language, as in the readable traces of a cold start.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Literal, get_args

from r1_lightning.text.language import LANGUAGES

Manner = Literal["sparing", "mixed", "clean"]
MANNERS: tuple[Manner, ...] = get_args(Manner)
SWITCH_SHARE = 0.4
WAIT = {"en": ". Wait, ", "zh": "。等等，"}  # between a wrong step and its correction
OTHER_LANGUAGE_SHARE = 0.2  # the share of reasoning that begins in the other language on purpose

# Opening of the first step, joint before a middle step, joint before the last step, end.
_SPARING = {
    "en": (("", ". ", ". ", "."), ("First ", ", then ", ", so ", "."), ("", ", ", ", ", ".")),
    "zh": (("", "。", "。", "。"), ("先算", "，再算", "，所以", "。"), ("", "，", "，", "。")),
}
_WORDED = {
    "en": (("First ", ", then ", ", so ", "."), ("We get ", ", next ", ", and finally ", ".")),
    "zh": (("先算", "，再算", "，所以", "。"), ("得到", "，接着", "，最后", "。")),
}


def join_steps(rng: random.Random, steps: Sequence[str], language: str, manner: Manner = "sparing") -> str:
    """Return steps such as `17+25=42` as one line of reasoning that begins in `language`."""
    styles = _SPARING if manner == "sparing" else _WORDED
    style = rng.randrange(len(styles[language]))
    switches = manner == "mixed" and rng.random() < SWITCH_SHARE
    text, last = "", len(steps) - 1
    for number, step in enumerate(steps):
        opening, middle, final, _ = styles[rng.choice(LANGUAGES) if switches else language][style]
        text += (opening if number == 0 else final if number == last else middle) + step
    return text + styles[language][style][3]


def thinking_language(rng: random.Random, language: str, manner: Manner = "sparing") -> str:
    """Draw the language in which reasoning begins: the question's, or unless the manner is clean sometimes the other one."""
    if manner == "clean":
        return language
    return rng.choice(LANGUAGES) if rng.random() < OTHER_LANGUAGE_SHARE else language
