"""The accuracy reward for code: runs the program on the problem's test cases.

DeepSeek-R1 (arXiv:2501.12948, section 2.2 and B.3.1) runs a code answer against the problem's test cases and gives 1 if it
passes all of them. A problem's metadata hold its tests (`text.code_tests`); the program is the last fenced block of the answer
(`text.programs`). The program runs in a sandbox (`rewards.sandbox`), and its output is compared outside it
(`rewards.equality.code`).
The papers leave the following open; our decisions:

- **All cases count, visible and hidden.** With `partial_credit` (off, as in R1) a program that fails some cases gets the share of
  hidden cases that it passes; a failed visible case counts as a fault, but a passed one gives no credit, because the question
  shows it.
- **A program that reaches a time limit is wrong** (0), with `timed_out` set for the metric: this is the only verdict that may
  differ on a slower machine. Each case has a limit, as in contests, and all cases together have one that bounds the total cost.
  The limits are CPU time; a wall-clock limit also stops programs that sleep.
- **A program with an exit status other than 0 is wrong**, as in contests, whatever it printed: `exit(1)`, an uncaught error.
  `exit()` and `exit(0)` are normal ends.
- **Random numbers and hashes have fixed seeds** in every process, so that the same program gets the same verdict in any order on
  any thread.
- **A test script** (kind "assert", HumanEval) runs in a second process next to the answer's and must report a one-time token at its
  end. This kind is weaker, and the verdict's reason says so: the script compares with any `==` that it calls, on values that came
  as data, and helper functions that it takes from the answer are under the answer's control. The script does not see changes that
  an answer makes to its arguments, and objects cannot be passed or returned.
"""

from __future__ import annotations

import hashlib
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

_TIMES = (CPU, CLOCK, PROGRAM)  # outcomes that reached a time limit


class CodeReward:
    """1.0 if the program passes every test of its problem, else 0.0.

    Args:
        name: the name of its metric.
        strict: whether the program must be in the single closed answer block.
        workers: how many programs run at a time; None is one per processor this process may use.
        cpu_limit_s: seconds of CPU time for one case (an integer); the wall-clock limit is four times that.
        program_cpu_limit_s: seconds of CPU time for all cases of a program together; cases that have not run by then have failed.
        memory_limit_mb: address space of one process in MiB; a test script has two processes, other tests one.
        partial_credit: give the share of passed hidden cases instead of 0.0.
        allow_unsandboxed: if this machine cannot isolate programs, run them with limits only.
        form: the completions' format, which says where the program is (`text.reasoning_format.FORMS`).
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
        """Return the verdicts in order; `workers` programs run at a time, and equal programs of a problem run once."""
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
        """Return this reward for a program at the end in any format."""
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
        behaviour, timed_out = "", False
        for number, case in enumerate(tests.cases):
            outcome = sandbox.run(case.given)
            if fault := self._fault(tests, case, outcome):
                faults.append((number, fault))
                behaviour = behaviour if faults[1:] else self._behaviour(number, outcome)
                timed_out = timed_out or outcome.ended in _TIMES
                if not self.partial_credit or outcome.ended == DIED:
                    break
        if not faults:
            return Verdict(1.0, "right")
        number, fault = faults[0]
        hidden = "" if tests.cases[number].is_visible else ", hidden"
        reason = f"case {number + 1} of {len(tests.cases)}{hidden}: {fault}"
        score = self._share(tests, [row for row, _ in faults]) if self.partial_credit else 0.0
        return Verdict(score, reason, timed_out, behaviour)

    def _behaviour(self, number: int, outcome: Outcome) -> str:
        """Return the first wrong case and a digest of the output there; "" if the program gave none (an error, a time limit)."""
        output = "" if self._why(outcome) else "\n".join([*outcome.stdout.split(), outcome.report])
        return f"{number}:{hashlib.sha256(output.encode()).hexdigest()}" if output else ""

    def _fault(self, tests: CodeTests, case: CodeCase, outcome: Outcome) -> str:
        """Return what is wrong in one case, or ""."""
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
        """Describe an abnormal end of a process for people; "" for a normal one."""
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
