"""The format reward, of R1-Zero by default, or of R1 (`form: r1`).

Reward_format requires the thinking between <think> and </think> (DeepSeek-R1, arXiv:2501.12948, section 2.2); the template asks for
<answer> tags as well, and neither version of the paper prints the value. Ours is 1.0 for a completion that is well formed by the
strict rules of `r1_lightning.text.reasoning_format` and that the model itself ended, else 0.0. A completion that reaches the length
limit is never well formed; otherwise endless white space after the answer would cost nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

from r1_lightning.text.reasoning_format import FORMS, R1_ZERO_FORM, FormName
from r1_lightning.types.errors import require_choice
from r1_lightning.types.text import Completion, Problem, Verdict


@dataclass(slots=True)
class FormatReward:
    """1.0 for a well-formed, finished completion, else 0.0; the reason names every rule that is broken."""

    name: str = "format"
    allow_empty_think: bool = False
    form: FormName = R1_ZERO_FORM

    def __post_init__(self) -> None:
        require_choice("form", self.form, FORMS)

    def __call__(self, problem: Problem, completion: Completion) -> Verdict:
        del problem  # the format is the same for every question
        form = FORMS[self.form]
        reasons = [form.faults[fault] for fault in form.parse(completion.text, self.allow_empty_think).faults]
        if not completion.finished:
            reasons.append("cut off by the length limit")
        return Verdict(0.0, "; ".join(reasons)) if reasons else Verdict(1.0, "well formed")
