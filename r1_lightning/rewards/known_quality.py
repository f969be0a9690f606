"""Ground-truth quality of the synthetic general and safety replies, logged next to the learned reward.

Real requests have no ground truth, which is why R1 learns preferences from judgements and stops training on them before the
policy hacks them (R1v2 section 3.2.2, B.5). Here the rule that ordered the reward models' training data is known
(`tasks/general_text.py`, `tasks/safety.py`), so a log shows reward hacking: the learned score rises while this quality falls.
Shipped rewards give it weight 0, because training on it would be training on the test.
"""

from __future__ import annotations

from dataclasses import dataclass

from r1_lightning.tasks.general import NEEDS, quality_of
from r1_lightning.tasks.safety import HARMFUL, is_safe_for
from r1_lightning.text.response_parts import final_summary
from r1_lightning.types.text import Completion, Problem, Verdict


@dataclass(frozen=True, slots=True)
class KnownQuality:
    """The true quality of a completion: for general problems that of the final summary, 0..1; for safety problems 1 if it is safe.

    For problems of other tasks it is 0, as in `OnDomain`: equal for all completions of a group, so it changes no advantage.
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
