"""Quotes command-line values that Hydra's grammar cannot read bare: `paths.root=runs(1)`, `data.examples.file=it's.jsonl`, 中文.

The shell removes its own quotes, so a user's quotes around such a name never reach Hydra, which needs a second pair inside
(`'paths.root="runs(1)"'`). A value that Hydra can read only as quoted text is meant as text, and gets those quotes here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from r1_lightning.run.config.file_names import with_readers

STRUCTURED = ("[", "{", '"', "'")  # a list, a mapping, or quoted by hand: Hydra reports its errors


def readable(arguments: Iterable[str]) -> list[str]:
    """Return the arguments with quotes around values that Hydra reads only as text, and a reader for each file given by name."""
    parser = OverridesParser.create()
    return with_readers([_readable(parser, argument) for argument in arguments])


def _readable(parser: OverridesParser, argument: str) -> str:
    key, equals, value = argument.partition("=")
    if not equals or argument.startswith("-") or value.startswith(STRUCTURED) or _reads(parser, argument):
        return argument
    quoted = f"{key}={_in_quotes(value)}"
    return quoted if _reads(parser, quoted) else argument


def _in_quotes(value: str) -> str:
    """Return `value` as quoted text in Hydra's grammar, in which backslashes count only before a quote."""
    return '"' + re.sub(r'(\\*)("|$)', lambda found: 2 * found[1] + ('\\"' if found[2] else ""), value) + '"'


def _reads(parser: OverridesParser, argument: str) -> bool:
    try:
        parser.parse_override(argument)
    except HydraException:
        return False
    return True
