"""The program of a worker process that scores answers to reasoning-gym's problems with the generators' own scorers.

`rewards.task_scorer` starts it through `verifiers.pool`, which limits its time and memory, because scorers search and parse
model-written text. One task is `[answer, recipe]`; the entry is regenerated from the recipe, because entries contain values that
JSON would change (tuples, keys that are numbers).

Generators whose scorers evaluate the answer as Python are excluded (`tasks.reasoning_gym_task.EXCLUDED`), except one whose answers
can be checked first: an answer to `countdown` must be plain arithmetic, without powers and floor division.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping

from r1_lightning.rewards.verifiers.worker import serve

# The pattern that an answer must match before a scorer that evaluates it may read it.
MUST_MATCH: Mapping[str, re.Pattern[str]] = {
    "countdown": re.compile(r"(?!.*(?:\*\s*\*|/\s*/))[0-9+\-*/() ]{1,200}"),
}


def judge(given: str, recipe: str) -> tuple[float, str, bool]:
    """Return the scorer's score in 0 .. 1, the reason, and whether this process may continue. No answer makes it raise."""
    from r1_lightning.tasks.reasoning_gym_task import EXCLUDED, entry_of

    name = json.loads(recipe)["generator"]
    if name in EXCLUDED:
        return 0.0, f"not scored: {EXCLUDED[name]}", True
    pattern = MUST_MATCH.get(name)
    if pattern is not None and pattern.fullmatch(given) is None:
        return 0.0, "not plain arithmetic", True
    try:
        generator, entry = entry_of(recipe)
        score = float(generator.score_answer(given, entry))
    except MemoryError:
        return 0.0, "out of memory", False
    except RecursionError:
        return 0.0, "too deeply nested", True
    except Exception as error:  # scorers pass parsing errors on; an answer that causes one is wrong
        return 0.0, f"not scored ({type(error).__name__})", True
    if not math.isfinite(score) or not 0.0 <= score <= 1.0:
        return 0.0, f"a score of {score} is none", True
    return score, f"scored {score:g} by {name}", True


def main() -> None:
    """Score answers until the input ends."""
    serve(_warm_up, judge)


def _warm_up() -> None:
    from r1_lightning.tasks.reasoning_gym_task import ReasoningGymTask

    ReasoningGymTask({"chain_sum": 1.0}, held_out=1).held_out_problems(1)


if __name__ == "__main__":
    main()
