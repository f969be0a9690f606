"""Does the model think in the language of the question? R1's answer to R1-Zero's mixing.

    Reward_language = Num(Words_target) / Num(Words)          (DeepSeek-R1, arXiv:2501.12948, eq 7)
over the chain of thought, added to the other rewards as it is. The paper is silent on four points. We decided:

- **Words** are counted as `text/language.py` does: a Chinese word is one Han character, digits and formulas are neutral.
- **The target** is the language of the question (`Problem.language`: a generator knows it, an adaptor counts the question's words).
- **A thinking without words** (pure calculation) is in no wrong language and scores 1. So a policy can earn the reward by
  falling silent; `thinking_words` tells an evaluation whether it did.
- **Where the prompt has opened the think block**, `form` says so (`r1_opened`); the form is not asked for otherwise.
- **Where a completion has no single think block**, the whole of it is counted, so that leaving the tags out does not help.
"""

from __future__ import annotations

from dataclasses import dataclass

from r1_lightning.text.language import count_words, language_share
from r1_lightning.text.reasoning_format import FORMS, FormName, parse
from r1_lightning.types.errors import require_choice
from r1_lightning.types.text import Completion, Problem, Verdict


@dataclass(slots=True)
class LanguageConsistencyReward:
    """The share of words in the problem's language, 0..1; 1 for a thinking without words (pure calculation)."""

    name: str = "language"
    form: FormName | None = None

    def __post_init__(self) -> None:
        require_choice("form", self.form, (None, *FORMS))

    def __call__(self, problem: Problem, completion: Completion) -> Verdict:
        share = language_share(thinking_of(completion, self.form), problem.language)
        return Verdict(share, f"{share:.0%} of the words are {problem.language}")


def thinking_of(completion: Completion, form: FormName | None = None) -> str:
    """The think block's body, or the whole text where there is no single one."""
    thinking = (parse if form is None else FORMS[form].parse)(completion.text).think
    return completion.text if thinking is None else thinking


def thinking_words(completion: Completion) -> int:
    """How many words, of any language, the thinking holds."""
    return sum(count_words(thinking_of(completion)).values())
