"""What a task makes of its rows: `python scripts/show_problems.py task=mbpp count=3`.

Prints the first problems as the model would be asked them, their reference answers and metadata, and how many there are by language
and level. `from=train` shows training problems in place of held-out ones; everything else is an override as `train.py` takes it
(`paths.data=FOLDER`, `task.source.test.file=FILE`). Nothing is written.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Sequence

from hydra.errors import InstantiationException
from hydra.utils import instantiate

from r1_lightning.run.cli import BAD_INPUT
from r1_lightning.run.compose import compose_stage, composing
from r1_lightning.run.targets import find_own_modules
from r1_lightning.run.validate import validate
from r1_lightning.text.chat_template import TEMPLATES, ChatTemplate
from r1_lightning.types.errors import InvalidInput, require_choice, require_int
from r1_lightning.types.text import Problem

USAGE = "usage: python scripts/show_problems.py task=NAME [count=3] [from=test|train] [OVERRIDE ...]"
MAX_COUNT = 10_000
SHOWN_CHARS = 2_000  # of a prompt, an answer, a field of the metadata: tests of programs are long


def show(problems: Sequence[Problem], template: ChatTemplate) -> str:
    """The problems one after the other, and the counts."""
    parts = [_one(number, problem, template) for number, problem in enumerate(problems, start=1)]
    by_kind = Counter((problem.language, problem.level) for problem in problems)
    counts = [f"{language}, level {level}: {count}" for (language, level), count in sorted(by_kind.items())]
    return "\n\n".join([*parts, f"{len(problems)} problems; {'; '.join(counts)}"])


def problems_of(arguments: Sequence[str]) -> tuple[list[Problem], ChatTemplate]:
    """What the command line asks for. Raises `InvalidInput`."""
    own, overrides = {"count": "3", "from": "test"}, []
    for argument in arguments:
        key, _, value = argument.partition("=")
        if key in own:
            own[key] = value
        else:
            overrides.append(argument)
    require_choice("from", own["from"], ("test", "train"))
    count = int(own["count"]) if own["count"].isdecimal() and len(own["count"]) < 9 else own["count"]
    require_int("count", count, 1, MAX_COUNT)
    with composing():
        config = compose_stage(overrides).config
        validate(config)
        source, seed = instantiate(config.task.source, _convert_="all"), config.seed
    if own["from"] == "train":
        return [source.train_problem(seed, index) for index in range(int(count))], TEMPLATES[config.task.template]
    return list(source.held_out_problems(int(count))), TEMPLATES[config.task.template]


def main() -> int:
    """The command line of `scripts/show_problems.py`; returns the exit code."""
    arguments = sys.argv[1:]
    if not arguments or {"-h", "--help"} & set(arguments):
        print(f"{(__doc__ or '').strip()}\n\n{USAGE}")
        return 0 if arguments else BAD_INPUT
    find_own_modules()
    try:
        print(show(*problems_of(arguments)))
    except (InvalidInput, InstantiationException) as error:
        cause = error.__cause__ if isinstance(error, InstantiationException) else error
        if not isinstance(cause, InvalidInput):
            raise
        print(f"error: {' '.join(str(cause).split())}", file=sys.stderr)
        return BAD_INPUT
    except BrokenPipeError:  # `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _one(number: int, problem: Problem, template: ChatTemplate) -> str:
    head = f"--- {number}: {problem.problem_id}, {problem.language}, level {problem.level}"
    fields = [f"{name}: {_short(value)}" for name, value in problem.metadata.items() if value]
    return "\n".join([head, _short(template.render(problem.question)), f"answer: {_short(problem.answer)}", *fields])


def _short(text: str) -> str:
    return text if len(text) <= SHOWN_CHARS else f"{text[:SHOWN_CHARS]}... ({len(text)} characters)"
