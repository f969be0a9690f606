"""The truth about general and safety problems of the miniature, to be logged beside what a learned reward says of them.

Nobody has this for real requests, which is why R1 learns preferences from judgements and stops following them before they are
hacked (R1v2 section 3.2.2, B.5). Here the rule that ordered the reward models' data is known (`tasks/general_text.py`,
`tasks/safety.py`), so that a score that rises while this falls can be seen. Shipped rewards give it the weight 0: to follow it
would be to train on the test.
"""

from __future__ import annotations

from dataclasses import dataclass

from r1_lightning.tasks.general import NEEDS, quality_of
from r1_lightning.tasks.safety import HARMFUL, is_safe_for
from r1_lightning.text.response_parts import final_summary
from r1_lightning.types.text import Completion, Problem, Verdict


@dataclass(frozen=True, slots=True)
class KnownQuality:
    """General problems: the true quality of the final summary, 0..1. Safety problems: 1 where the whole response is safe, else 0.

    On problems of other tasks 0, as `OnDomain` has it: equal for all completions, it moves no advantage.
    """

    name: str = "quality"

    def __call__(self, problem: Problem, completion: Completion) -> Verdict:
        if NEEDS in problem.metadata:
            score = quality_of(problem, final_summary(completion.text) or "")
            return Verdict(score, f"true quality {score:.2f}")
        if HARMFUL in problem.metadata:
            safe = is_safe_for(problem, completion.text)
            return Verdict(float(safe), "safe" if safe else "unsafe")
        return Verdict(0.0, "not asked: no rule of quality")
