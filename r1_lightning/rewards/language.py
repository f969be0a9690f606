"""The language-consistency reward: R1's remedy for R1-Zero's mixing of languages in its chain of thought.

    Reward_language = Num(Words_target) / Num(Words)          (DeepSeek-R1, arXiv:2501.12948, eq 7)
over the chain of thought, added to the other rewards unweighted. The paper leaves these points open; our decisions:

- **Words** are counted by `text/language.py`: a Chinese word is one Han character, digits and formulas are neutral.
- **The target** is the language of the question (`Problem.language`: a generator knows it, an adaptor counts the question's words).
- **Thinking without words** (pure calculation) is in no wrong language and scores 1. So a policy can earn the reward by writing no
  words; `thinking_words` shows in an evaluation whether it did.
- **If the prompt opens the think block**, `form` must say so (`r1_opened`); other formats make no difference here.
- **If a completion has no single think block**, all of its text is counted, so that leaving the tags out does not help.
"""

from __future__ import annotations

from dataclasses import dataclass

from r1_lightning.text.language import count_words, language_share
from r1_lightning.text.reasoning_format import FORMS, FormName, parse
from r1_lightning.types.errors import require_choice
from r1_lightning.types.text import Completion, Problem, Verdict


@dataclass(slots=True)
class LanguageConsistencyReward:
    """The share of the thinking's words that are in the problem's language, 0..1; 1 without words (pure calculation)."""

    name: str = "language"
    form: FormName | None = None

    def __post_init__(self) -> None:
        require_choice("form", self.form, (None, *FORMS))

    def __call__(self, problem: Problem, completion: Completion) -> Verdict:
        share = language_share(thinking_of(completion, self.form), problem.language)
        return Verdict(share, f"{share:.0%} of the words are {problem.language}")


def thinking_of(completion: Completion, form: FormName | None = None) -> str:
    """Return the think block's body, or the whole text if there is not exactly one block."""
    thinking = (parse if form is None else FORMS[form].parse)(completion.text).think
    return completion.text if thinking is None else thinking


def thinking_words(completion: Completion) -> int:
    """Count the thinking's words, of any language."""
    return sum(count_words(thinking_of(completion)).values())
