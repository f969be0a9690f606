"""Values on the command line that Hydra's grammar cannot read bare: `paths.root=runs(1)`, `data.examples.file=it's.jsonl`, 中文.

A shell takes its own quotes away, so that a person's quotes around such a name never reach Hydra, which wants a second pair inside
(`'paths.root="runs(1)"'`). A value that Hydra cannot read, but can read as text, is meant as text: it gets those quotes here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from r1_lightning.run.config.file_names import with_readers

STRUCTURED = ("[", "{", '"', "'")  # a list, a mapping, or quoted by hand: what is wrong with it is for Hydra to say


def readable(arguments: Iterable[str]) -> list[str]:
    """The same arguments, with quotes around the values that only read as text, and a reader for each file that is only named."""
    parser = OverridesParser.create()
    return with_readers([_readable(parser, argument) for argument in arguments])


def _readable(parser: OverridesParser, argument: str) -> str:
    key, equals, value = argument.partition("=")
    if not equals or argument.startswith("-") or value.startswith(STRUCTURED) or _reads(parser, argument):
        return argument
    quoted = f"{key}={_in_quotes(value)}"
    return quoted if _reads(parser, quoted) else argument


def _in_quotes(value: str) -> str:
    """As text in Hydra's grammar: backslashes count only before a quote."""
    return '"' + re.sub(r'(\\*)("|$)', lambda found: 2 * found[1] + ('\\"' if found[2] else ""), value) + '"'


def _reads(parser: OverridesParser, argument: str) -> bool:
    try:
        parser.parse_override(argument)
    except HydraException:
        return False
    return True
