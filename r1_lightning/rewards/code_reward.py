"""Does the program do what the problem asks? The accuracy reward for code.

DeepSeek-R1 (arXiv:2501.12948, section 2.2 and B.3.1) runs a code answer against the problem's test cases and gives 1 if it
passes all of them. A problem's tests stand in its metadata (`text.code_tests`); the program is the last fenced block of the
answer (`text.programs`). The program runs in a sandbox (`rewards.sandbox`), and its output is compared outside it
(`rewards.equality.code`).
Decisions of ours, where the papers say nothing:

- **All cases, visible and hidden.** With `partial_credit` (off, as in R1) a program that fails some gets the share of the
  hidden ones that it passes; a failed visible case counts against it and a passed one for nothing, because the question shows
  it.
- **A program that meets its limit of time is wrong**, 0, and `timed_out` says so to the metric: it is the one verdict that a
  slower machine might give otherwise. There is a limit for each case, as contests have it, and one for all cases together, so
  that no program costs more than that. CPU time decides; the clock stands behind it for programs that sleep.
- **A program that ends with a status other than 0 is wrong**, as contest judges have it, whatever it printed: `exit(1)`, an error.
  `exit()` and `exit(0)` are ends in order.
- **Random numbers and hashes begin alike** in every process, so that the same program gets the same verdict in any order on any
  thread.
- **A test script** (kind "assert", HumanEval) runs beside the answer in a second process and has to report a one-time token at
  its end. It is the weaker kind, and the reason says so: the script compares with whatever `==` it calls, on values that came
  as data, and helpers it asks of the answer are the answer's. Changes that an answer makes to its arguments are not seen, and
  it cannot be given or return objects.
"""

from __future__ import annotations

import json
import secrets
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from functools import cache
from typing import ClassVar

from r1_lightning.rewards.accuracy import shorten
from r1_lightning.rewards.equality.code import same_output, same_result
from r1_lightning.rewards.sandbox import allowed_packages
from r1_lightning.rewards.sandbox.sandbox import (
    CLOCK,
    CPU,
    DIED,
    OUTPUT,
    PROGRAM,
    Limits,
    Outcome,
    Program,
    Sandbox,
    isolation,
    require_isolation,
)
from r1_lightning.rewards.verifiers.pool import available_processors
from r1_lightning.text.code_tests import TESTS, CodeCase, CodeTests
from r1_lightning.text.programs import final_program, lenient_program
from r1_lightning.text.reasoning_format import FORMS, R1_ZERO_FORM, FormName
from r1_lightning.types.errors import InvalidInput, require, require_choice, require_int
from r1_lightning.types.text import Completion, JudgeName, Problem, Verdict

_TIMES = (CPU, CLOCK, PROGRAM)  # ends by a limit of time


class CodeReward:
    """1.0 if the program passes every test of its problem, else 0.0.

    Args:
        name: the name of its metric.
        strict: whether the program must stand in the one, closed answer block.
        workers: how many programs run at a time; None is one per processor this process may use.
        cpu_limit_s: seconds of CPU time for one case (a whole number); four times that on the clock.
        program_cpu_limit_s: the same for all cases of a program together; what has not run by then has failed.
        memory_limit_mb: address space of one process in MiB; there are two for a test script, else one.
        partial_credit: a share of the hidden cases instead of 0.0.
        allow_unsandboxed: run programs with limits only where this machine cannot isolate them.
        form: of the completions, which says where the program stands (`text.reasoning_format.FORMS`).
        packages: names of installed packages that programs may import, such as numpy (`rewards.sandbox.allowed_packages`).

    Raises:
        InvalidInput: no isolation and `allow_unsandboxed` false; a package that is not installed; when called, a problem without
            tests.
        SandboxError: when called, a sandbox that does not start.
    """

    judges: ClassVar[tuple[JudgeName, ...]] = ("code",)

    def __init__(
        self,
        name: str = "accuracy",
        strict: bool = True,
        workers: int | None = None,
        cpu_limit_s: int = 4,
        memory_limit_mb: int = 512,
        partial_credit: bool = False,
        allow_unsandboxed: bool = False,
        form: FormName = R1_ZERO_FORM,
        program_cpu_limit_s: int = 60,
        packages: Sequence[str] = (),
    ) -> None:
        require_choice("form", form, FORMS)
        self.name = name
        self.strict = strict
        self.form = form
        self.workers = available_processors() if workers is None else workers
        require_int("workers", self.workers, 1)
        self.limits = Limits(cpu_limit_s, memory_limit_mb, program_cpu_s=program_cpu_limit_s)
        self.partial_credit = partial_credit
        self.packages = _found(packages)
        self.isolated = require_isolation(allow_unsandboxed)
        if not self.isolated:
            _warn_once()

    def __call__(self, problem: Problem, completion: Completion) -> Verdict:
        return self.judge_many([(problem, completion)])[0]

    def judge_many(self, pairs: Sequence[tuple[Problem, Completion]]) -> list[Verdict]:
        """The verdicts in order; `workers` programs run at a time, and equal programs of a problem run once."""
        tests = {text: CodeTests.from_json(text) for text in map(_tests_of, (problem for problem, _ in pairs))}
        asked = [(_tests_of(problem), self._read(completion.text)) for problem, completion in pairs]
        different = [key for key in dict.fromkeys(asked) if key[1] is not None]
        with ThreadPoolExecutor(self.workers) as pool:
            judged = pool.map(lambda key: self._judge(tests[key[0]], str(key[1])), different)
            verdicts = dict(zip(different, judged, strict=True))
        missing = Verdict(0.0, "no program in its place" if self.strict else "no program")
        return [verdicts.get(key, missing) for key in asked]

    def _read(self, text: str) -> str | None:
        return final_program(text, self.form) if self.strict else lenient_program(text)

    def leniently(self) -> CodeReward:
        """The same, for a program at the end in any form."""
        lenient = copy(self)
        lenient.strict = False
        return lenient

    def _judge(self, tests: CodeTests, answer: str) -> Verdict:
        program = Program(tests.kind, answer, tests.setup, tests.entry_point)
        with Sandbox(program, self.limits, self.isolated, self.packages) as sandbox:
            if tests.kind == "assert":
                return self._by_script(sandbox, tests)
            return self._by_cases(sandbox, tests)

    def _by_script(self, sandbox: Sandbox, tests: CodeTests) -> Verdict:
        token = secrets.token_hex(16)
        outcome = sandbox.run(script=tests.script, token=token)
        if not outcome.ended and outcome.report == token:
            return Verdict(1.0, "right, by an assert script: the weaker kind of test")
        why = self._why(outcome) or "did not come to the end"
        return Verdict(0.0, f"the assert script: {why}", outcome.ended in _TIMES)

    def _by_cases(self, sandbox: Sandbox, tests: CodeTests) -> Verdict:
        faults: list[tuple[int, str]] = []
        timed_out = False
        for number, case in enumerate(tests.cases):
            outcome = sandbox.run(case.given)
            if fault := self._fault(tests, case, outcome):
                faults.append((number, fault))
                timed_out = timed_out or outcome.ended in _TIMES
                if not self.partial_credit or outcome.ended == DIED:
                    break
        if not faults:
            return Verdict(1.0, "right")
        number, fault = faults[0]
        hidden = "" if tests.cases[number].is_visible else ", hidden"
        reason = f"case {number + 1} of {len(tests.cases)}{hidden}: {fault}"
        score = self._share(tests, [row for row, _ in faults]) if self.partial_credit else 0.0
        return Verdict(score, reason, timed_out)

    def _fault(self, tests: CodeTests, case: CodeCase, outcome: Outcome) -> str:
        """What is wrong in one case, or ""."""
        if why := self._why(outcome):
            return why
        if tests.kind == "stdin":
            same: bool | None = same_output(outcome.stdout, case.expected)
            given = outcome.stdout
        else:
            same, given = same_result(outcome.report, case.expected), outcome.report
        if same:
            return ""
        if same is None:
            return "returned nothing that can be read"
        return f"gave {shorten(given)}, expected {shorten(case.expected)}" if case.is_visible else "wrong"

    def _why(self, outcome: Outcome) -> str:
        """How a process ended that did not end in order, for people; "" for one that did."""
        words = {
            CPU: f"took more than {self.limits.cpu_s} s of CPU time",
            CLOCK: "took too long on the clock",
            PROGRAM: f"all cases together took more than {self.limits.program_cpu_s} s",
            OUTPUT: "printed too much",
            DIED: "the sandbox ended with it",
        }
        if outcome.ended in words or not outcome.ended:
            return words.get(outcome.ended, "")
        try:
            return shorten(json.loads(outcome.report)["error"])
        except (ValueError, KeyError, TypeError, RecursionError):
            return f"ended with {outcome.ended}"

    @staticmethod
    def _share(tests: CodeTests, failed: Sequence[int]) -> float:
        hidden = [row for row, case in enumerate(tests.cases) if not case.is_visible] or range(len(tests.cases))
        counted = set(hidden) | set(failed)
        return len(set(hidden) - set(failed)) / len(counted)


def _tests_of(problem: Problem) -> str:
    require(TESTS in problem.metadata, "problem.metadata", dict(problem.metadata), f"the code reward needs {TESTS!r}")
    return problem.metadata[TESTS]


def _found(packages: Sequence[str]) -> dict[str, str]:
    try:
        return allowed_packages.find(packages)
    except LookupError as error:
        raise InvalidInput(f"packages={list(packages)!r} is not allowed: {error}") from error


@cache
def _warn_once() -> None:
    warnings.warn(f"model-written programs run with your rights, with limits only: {isolation().missing}")
