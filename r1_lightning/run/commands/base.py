"""Commands beside `train.py` that take `key=value`: keys of their own, the rest as overrides of the configuration.

They end as `train.py` does: bad input with one line and exit code 2, a defect with its traceback.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig

from r1_lightning.run.checks.validate import validate
from r1_lightning.run.config.compose import compose_stage, composing
from r1_lightning.run.config.exit_codes import BAD_INPUT
from r1_lightning.run.config.machine import run_as_command
from r1_lightning.types.errors import require_int

MAX_DIGITS = 8  # of a count: a longer number is a typing mistake


def run_command(documentation: str | None, usage: str, do: Callable[[Sequence[str]], str]) -> int:
    """Print the result of `do` on the command line, or the usage with `--help` or no arguments; returns the exit code."""
    arguments = sys.argv[1:]

    def answer() -> int:
        if not arguments or {"-h", "--help"} & set(arguments):
            print(f"{(documentation or '').strip()}\n\n{usage}")
            return 0 if arguments else BAD_INPUT
        print(do(arguments))
        return 0

    return run_as_command(answer)


def own_keys(arguments: Sequence[str], defaults: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """Return the values of the keys in `defaults`, and the other arguments as overrides for the configuration."""
    own, overrides = dict(defaults), []
    for argument in arguments:
        key, _, value = argument.partition("=")
        if key in own:
            own[key] = value
        else:
            overrides.append(argument)
    return own, overrides


def parse_int(name: str, text: str, minimum: int, maximum: int) -> int:
    """Parse a whole number of the command line. `InvalidInput` if it is none, or out of range."""
    value = int(text) if text.isdecimal() and len(text) <= MAX_DIGITS else text
    require_int(name, value, minimum, maximum)
    return int(value)


def task_of(overrides: Sequence[str]) -> tuple[DictConfig, Any]:
    """Return the checked configuration and its source of problems. Raises `InvalidInput`.

    It is composed for a stage without a reward: nothing is judged here, so no reward has to fit the task.
    """
    with composing():
        config = compose_stage(["stage=pretrain", *overrides]).config
        validate(config)
        return config, instantiate(config.task.source, _convert_="all")
