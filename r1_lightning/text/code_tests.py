"""The tests of a programming problem as data, stored in the problem's metadata under `TESTS`.

There are three kinds, as in published data sets:

- **stdin**: a program reads `given` from standard input and must print `expected` (LiveCodeBench, contests);
- **call**: the function `entry_point` is called with the JSON array `given` and must return the JSON value `expected` (MBPP,
  LiveCodeBench);
- **assert**: a `script` of assertions, as in HumanEval. This kind is weaker: the script compares with any `==` that it calls, and
  from outside only its end is visible (`rewards/code_reward.py`).

The question shows the cases with `is_visible`; all others are hidden.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from r1_lightning.types.errors import InvalidInput, require, require_choice

TESTS = "tests"  # the key in a problem's metadata
CodeTestKind = Literal["stdin", "call", "assert"]


@dataclass(frozen=True, slots=True)
class CodeCase:
    """A test case: standard input and output as text, or arguments and return value as JSON."""

    given: str
    expected: str
    is_visible: bool = False


@dataclass(frozen=True, slots=True)
class CodeTests:
    """All tests of one problem.

    `setup` is executed before the answer's code (imports that the question promises). `entry_point` names the function that a call
    test calls, or that a script's `check` receives; the kind "assert" has a `script`, the other two have `cases`.

    Raises:
        InvalidInput: an unknown kind, no case or script, a call without a name, arguments or a result that are not JSON.
    """

    kind: CodeTestKind
    cases: tuple[CodeCase, ...] = ()
    entry_point: str | None = None
    setup: str = ""
    script: str = ""

    def __post_init__(self) -> None:
        require_choice("tests.kind", self.kind, get_args(CodeTestKind))
        if self.kind == "assert":
            require(bool(self.script.strip()), "tests.script", self.script, "assertions are needed")
            return
        require(bool(self.cases), "tests.cases", self.cases, "at least one case is needed")
        if self.kind == "call":
            name = self.entry_point
            require(bool(name) and str(name).isidentifier(), "tests.entry_point", name, "the name of a function")
            for number, case in enumerate(self.cases):
                given = _json(f"tests.cases[{number}].given", case.given)
                require(
                    isinstance(given, list), f"tests.cases[{number}].given", case.given, "a JSON array of arguments"
                )
                _json(f"tests.cases[{number}].expected", case.expected)

    def to_json(self) -> str:
        """Return one line of JSON for a problem's metadata."""
        return json.dumps(asdict(self), ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> CodeTests:
        """Parse the output of `to_json`. `InvalidInput` for anything else."""
        data = _json("tests", text)
        try:
            cases = tuple(CodeCase(**case) for case in data.pop("cases", ()))
            return cls(cases=cases, **data)
        except (TypeError, AttributeError) as error:
            raise InvalidInput(f"tests={text[:60]!r} is not allowed: {error}") from error


def _json(field: str, text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, TypeError, RecursionError) as error:
        raise InvalidInput(f"{field}={str(text)[:60]!r} is not allowed: it must be JSON ({error})") from error
