"""What a task makes of its rows: `r1 show-problems task=mbpp count=3`.

Prints the first problems as the model would be asked them, their reference answers and metadata, and how many there are by language
and level. `from=train` shows training problems in place of held-out ones; everything else is an override as `train.py` takes it
(`paths.data=FOLDER`, `task.source.test.file=FILE`). Nothing is written.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from r1_lightning.run.commands.base import own_keys, parse_int, run_command, task_of
from r1_lightning.run.config.program import usage
from r1_lightning.run.config.targets import find_own_modules
from r1_lightning.text.chat_template import INSTRUCTIONS, TEMPLATES, ChatTemplate, is_checkpoints
from r1_lightning.types.errors import require, require_choice
from r1_lightning.types.text import Problem

ARGUMENTS = "task=NAME [count=3] [from=test|train] [OVERRIDE ...]"
MAX_COUNT = 10_000
SHOWN_CHARS = 2_000  # of a prompt, an answer, a field of the metadata: tests of programs are long


def show(problems: Sequence[Problem], template: ChatTemplate) -> str:
    """Return the problems one after the other, and the counts, as text."""
    parts = [_one(number, problem, template) for number, problem in enumerate(problems, start=1)]
    by_kind = Counter((problem.language, problem.level) for problem in problems)
    counts = [f"{language}, level {level}: {count}" for (language, level), count in sorted(by_kind.items())]
    return "\n\n".join([*parts, f"{len(problems)} problems; {'; '.join(counts)}"])


def problems_of(arguments: Sequence[str]) -> tuple[list[Problem], ChatTemplate]:
    """Return the problems and the template that the command line asks for. Raises `InvalidInput`."""
    own, overrides = own_keys(arguments, {"count": "3", "from": "test"})
    require_choice("from", own["from"], ("test", "train"))
    count = parse_int("count", own["count"], 1, MAX_COUNT)
    config, source = task_of(overrides)
    name, instruction = config.task.template, config.task.get("instruction")
    require(not is_checkpoints(name), "task.template", name, "this command opens no checkpoint; use one of ours")
    template = replace(TEMPLATES[name], instruction=INSTRUCTIONS[instruction])
    if own["from"] == "train":
        return [source.train_problem(config.seed, index) for index in range(count)], template
    return list(source.held_out_problems(count)), template


def main() -> int:
    """The command line of `r1 show-problems`; returns the exit code."""
    find_own_modules()
    return run_command(__doc__, usage("show-problems", ARGUMENTS), lambda arguments: show(*problems_of(arguments)))


def _one(number: int, problem: Problem, template: ChatTemplate) -> str:
    head = f"--- {number}: {problem.problem_id}, {problem.language}, level {problem.level}"
    fields = [f"{name}: {_short(value)}" for name, value in problem.metadata.items() if value]
    return "\n".join([head, _short(template.render(problem.question)), f"answer: {_short(problem.answer)}", *fields])


def _short(text: str) -> str:
    return text if len(text) <= SHOWN_CHARS else f"{text[:SHOWN_CHARS]}... ({len(text)} characters)"
