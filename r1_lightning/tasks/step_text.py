"""How steps of thinking read as one line: `First 7*8=56, then 56-19=37, so 37+42=79.`

Three manners of a corpus, because what a base model has read decides what reinforcement learning can find in it:

- **sparing**: often without any word, always in one language. A policy may fall silent, so there is little to mix.
- **mixed**: words at every joint, and in `SWITCH_SHARE` of the lines each joint in a language of its own, as people write who
  know both. This is what R1-Zero's base model has to offer, and what a language reward is there for.
- **clean**: words at every joint, all in one language, as in the readable traces of a cold start.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Literal, get_args

from r1_lightning.text.language import LANGUAGES

Manner = Literal["sparing", "mixed", "clean"]
MANNERS: tuple[Manner, ...] = get_args(Manner)
SWITCH_SHARE = 0.4
WAIT = {"en": ". Wait, ", "zh": "。等等，"}  # between a step gone wrong and the right one
OTHER_LANGUAGE_SHARE = 0.2  # thinking that is not begun in the question's language on purpose

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
    """Steps such as `17+25=42` as one line of reasoning that begins in `language`."""
    styles = _SPARING if manner == "sparing" else _WORDED
    style = rng.randrange(len(styles[language]))
    switches = manner == "mixed" and rng.random() < SWITCH_SHARE
    text, last = "", len(steps) - 1
    for number, step in enumerate(steps):
        opening, middle, final, _ = styles[rng.choice(LANGUAGES) if switches else language][style]
        text += (opening if number == 0 else final if number == last else middle) + step
    return text + styles[language][style][3]


def thinking_language(rng: random.Random, language: str, manner: Manner = "sparing") -> str:
    """Mostly the question's language; unless the manner is clean, now and then the other one."""
    if manner == "clean":
        return language
    return rng.choice(LANGUAGES) if rng.random() < OTHER_LANGUAGE_SHARE else language
