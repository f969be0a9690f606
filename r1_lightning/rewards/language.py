"""Does the model think in the language of the question? R1's answer to R1-Zero's mixing.

    Reward_language = Num(Words_target) / Num(Words)          (DeepSeek-R1, arXiv:2501.12948, eq 7)
over the chain of thought. How words are counted is `text/language.py`'s choice; where a completion has no single think
block, the whole of it is counted, so that leaving the tags out does not help. The paper adds it to the other rewards as it is.
"""

from __future__ import annotations

from dataclasses import dataclass

from r1_lightning.text.language import language_share
from r1_lightning.text.reasoning_format import parse
from r1_lightning.types.text import Completion, Problem, Verdict


@dataclass(slots=True)
class LanguageConsistencyReward:
    """The share of words in the problem's language, 0..1; 1 for a thinking without words (pure calculation)."""

    name: str = "language"

    def __call__(self, problem: Problem, completion: Completion) -> Verdict:
        thinking = parse(completion.text).think
        share = language_share(completion.text if thinking is None else thinking, problem.language)
        return Verdict(share, f"{share:.0%} of the words are {problem.language}")
