"""The code reward: every hostile program scores 0 and leaves nothing behind, right programs score 1, in any order on any thread."""

from __future__ import annotations

import os
import pickle
import random
import re
import time
from dataclasses import replace
from pathlib import Path

import pytest

from r1_lightning.rewards import code_reward
from r1_lightning.rewards.code_reward import CodeReward
from r1_lightning.rewards.sandbox import sandbox
from r1_lightning.text.code_tests import TESTS, CodeCase, CodeTests
from r1_lightning.types.errors import InvalidInput
from r1_lightning.types.text import AccuracyFunction, BatchRewardFunction, Completion, Problem, Verdict
from tests.rewards.sandbox.hostile_programs import _ARMS, ALL, CANARY, TAME, TESTS_OF, Hostile

pytestmark = pytest.mark.usefixtures("isolated")

# Of those that run into a limit of time, seconds each, the default suite has these.
QUICKEST = {"loop", "endless_lines", "endless_line", "close_everything_and_loop", "script_loop", "sleep"}


def problem(tests: CodeTests) -> Problem:
    return Problem("Double it.", "", "p", metadata={TESTS: tests.to_json()})


def written(program: str) -> Completion:
    return Completion(f"<think>so</think><answer>\n```python\n{program}\n```\n</answer>", 9, True)


def judge(reward: CodeReward, program: str, tests: CodeTests) -> Verdict:
    return reward(problem(tests), written(program))


def all_gone(limit_s: float = 20.0) -> bool:
    """Whether no sandbox is left; the kernel takes a moment to end what was killed."""
    deadline_s = time.monotonic() + limit_s
    while sandboxes() and time.monotonic() < deadline_s:
        time.sleep(0.005)
    return not sandboxes()


def sandboxes(parent: int | None = None) -> list[int]:
    """Processes of sandboxes that a process (None: this one) has started, seen from outside."""
    name = str(parent or os.getpid()).encode()
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if b"r1_lightning.rewards.sandbox.init" in words and name in words:
            found.append(int(folder.name))
    return found


@pytest.fixture(scope="module")
def reward() -> CodeReward:
    return CodeReward(workers=1, cpu_limit_s=1)


@pytest.fixture(scope="module")
def secret(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("private") / "secret"
    file.write_text("42", encoding="utf-8")
    file.chmod(0o600)
    return file


# ------------------------------------------------------------------------------------------------------------ hostile


def _parameters() -> list[object]:
    slow = [h.name for h in ALL if h.is_slow and h.name not in QUICKEST]
    return [pytest.param(h, id=h.name, marks=[pytest.mark.slow] if h.name in slow else []) for h in ALL]


@pytest.mark.parametrize("hostile", _parameters())
def test_hostile_programs_are_contained_and_score_nothing(
    reward: CodeReward, secret: Path, hostile: Hostile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CANARY, "42")
    if not hostile.is_slow:  # it must not need the clock to be stopped, however busy the machine is
        monkeypatch.setattr(sandbox, "CLOCK_FACTOR", 100)
    source = hostile.source.replace("@SECRET@", str(secret))
    source = source.replace("@PYTHON@", os.path.dirname(os.path.realpath(os.__file__)))
    verdict = reward._judge(TESTS_OF[hostile.kind], source)  # not through a fence, which no NUL would survive
    assert verdict.score == 0.0 and verdict.reason
    assert verdict.timed_out <= hostile.is_slow or "CPU" in verdict.reason
    assert all_gone(), "something is left running"
    assert secret.read_text(encoding="utf-8") == "42" and not Path("/evil").exists()


def test_there_are_enough_of_them_and_they_differ() -> None:
    assert len({h.name for h in ALL}) == len({(h.kind, h.source) for h in ALL}) == len(ALL) >= 100


@pytest.mark.parametrize("kind", TAME)
def test_the_same_with_nothing_bad_in_it_scores(reward: CodeReward, kind: str) -> None:
    verdict = judge(reward, TAME[kind], TESTS_OF[kind])
    assert verdict.score == 1.0 and ("weaker" in verdict.reason) == (kind == "assert")


def test_attempts_are_armed(reward: CodeReward) -> None:
    """Their frame answers right where the attempt works, so that their 0 is not that of a broken program."""
    for action, score in (("True", 1.0), ("None", 1.0), ("False", 0.0), ("1 / 0", 0.0)):
        assert judge(reward, f"{_ARMS}\nif_works(lambda: {action})", TESTS_OF["stdin"]).score == score


# ------------------------------------------------------------------------------------------------------------- verdicts


@pytest.mark.parametrize(
    "program",
    [
        "import sys\nprint(*(2 * int(line) for line in sys.stdin))",
        "print(open(0).read() and 0)" .replace("open(0).read() and 0", "2 * int(open(0).read())"),
        "if __name__ == '__main__':\n    print(2 * int(input()))",
        "import sys\nprint(2 * int(input()))\nsys.exit()",
        "import os\nprint(2 * int(input()), flush=True)\nos._exit(0)",
        "import threading, sys\nsys.setrecursionlimit(10**6)\nthreading.stack_size(1 << 26)\n"
        "threading.Thread(target=lambda: print(2 * int(input()))).start()",
        "import atexit\natexit.register(lambda: print(2 * int(input())))",
        "open('notes', 'w').write('21')\nprint(2 * int(input()))",
        "import asyncio\nasync def main():\n    print(2 * int(input()))\nasyncio.run(main())",
        "import decimal, fractions, statistics, datetime, typing, dataclasses, random, hashlib, zlib\nprint(2 * int(input()))",
    ],
)  # fmt: skip
def test_honest_programs_of_many_forms_are_right(reward: CodeReward, program: str) -> None:
    assert judge(reward, program, TESTS_OF["stdin"]) == Verdict(1.0, "right")


def test_calls_of_many_forms() -> None:
    reward = CodeReward(workers=1)
    cases = (CodeCase('[[3, 1], "x", {"a": 0.5}]', '[[1, 3], "x", 1.0]'), CodeCase('[[], "", {}]', '[[], "", 0]'))
    tests = CodeTests("call", cases, entry_point="f", setup="from typing import *\nHALF = 0.5")
    body = "(xs: List[int], text, table):\n    print('noise')\n    return sorted(xs), text, table.get('a', 0) / HALF"
    assert judge(reward, "def f" + body, tests).score == 1.0
    method = "class Solution:\n    def f" + body.replace("(xs", "(self, xs", 1).replace("\n    ", "\n        ")
    assert judge(reward, method, tests).score == 1.0  # LiveCodeBench's own form


def test_scripts_see_values_as_python_has_them(reward: CodeReward) -> None:
    script = (
        "assert f((1, 2), {3}) == ((1, 2), {3})\nassert f([1], None) != ((1,), None)\nassert helper(2) == 4\n"
        "try:\n    f(1)\nexcept TypeError:\n    pass\nelse:\n    raise AssertionError('one argument was enough')\n"
        "assert math.isclose(f(0.5, b'x')[0], 0.5)"
    )
    tests = CodeTests("assert", setup="import math", script=script)
    program = "def f(a, b):\n    return a, b\ndef helper(n):\n    return n + n\nmath = None\ndef abs(x):\n    return 0"
    assert judge(reward, program, tests).score == 1.0
    assert judge(reward, program.replace("n + n", "n"), tests).reason == "the assert script: 'AssertionError'"
    # What the setup promises and what Python has is not the answer's to change.
    for line in ("assert math.sqrt(4) == 2", "assert abs(-1) == 1"):
        assert judge(reward, program, replace(tests, script=line)).score == 1.0


def test_all_cases_decide_and_with_partial_credit_the_hidden_ones(reward: CodeReward) -> None:
    cases = tuple(CodeCase(str(n), str(2 * n), is_visible=n < 2) for n in range(6))  # 0, 1 visible; 2, 3, 4, 5 hidden
    tests = CodeTests("stdin", cases)
    partly = CodeReward(workers=1, partial_credit=True)
    some = "n = int(input())\nprint(2 * n if n not in ({}) else -1)"
    for wrong, share in (("9,", 1.0), ("5,", 3 / 4), ("2, 3, 4, 5", 0.0), ("0,", 4 / 5), ("0, 5", 3 / 5)):
        verdict = judge(partly, some.format(wrong), tests)
        assert verdict.score == share  # failed visible cases count against, passed ones for nothing
        assert judge(reward, some.format(wrong), tests).score == float(share == 1.0)
    assert judge(reward, some.format("5,"), tests).reason == "case 6 of 6, hidden: wrong"
    assert judge(reward, some.format("1,"), tests).reason == "case 2 of 6: gave '-1', expected '2'"
    all_shown = replace(tests, cases=tuple(replace(case, is_visible=True) for case in cases))
    assert judge(partly, some.format("0, 1, 2"), all_shown).score == 0.5


def test_wrong_programs_behave_alike_if_they_are_first_wrong_at_one_case_with_one_output(reward: CodeReward) -> None:
    """Also at hidden cases; white space does not count, right programs and those that fail have no behaviour of their own."""
    tests = CodeTests("stdin", tuple(CodeCase(str(n), str(2 * n)) for n in range(3)))
    some = "n = int(input())\nprint({} if n == {} else 2 * n)"
    given = ((7, 1), ("' 7'", 1), (8, 1), (7, 2), ("1 / 0", 1), (2, 1))
    done = [judge(reward, some.format(*values), tests).behaviour for values in given]
    assert done[0] == done[1] != "" and len({*done}) == 4 and done[4] == done[5] == ""


def test_all_cases_of_a_program_have_one_limit_of_time() -> None:
    tests = CodeTests("stdin", tuple(CodeCase(str(n), str(2 * n)) for n in range(8)))
    spend = "import time\nn = int(input())\nwhile time.process_time() < {}:\n    pass\nprint(2 * n)"
    limited = CodeReward(workers=1, program_cpu_limit_s=1, partial_credit=True)
    verdict = judge(limited, spend.format(0.4), tests)  # at most two cases of 0.4 s and more end within 1 s
    assert verdict.timed_out and verdict.score <= 2 / 8
    assert re.fullmatch(r"case [23] of 8, hidden: all cases together took more than 1 s", verdict.reason)
    assert judge(limited, spend.format(0.01), tests) == Verdict(1.0, "right")
    assert not judge(limited, "print(1)", tests).timed_out


def test_verdicts_are_the_same_in_any_order_on_any_thread() -> None:
    hostile = [h for h in ALL if not h.is_slow and "\0" not in h.source and "\ud800" not in h.source][::9]
    pairs = [(problem(TESTS_OF[h.kind]), written(h.source)) for h in hostile]
    pairs += [(problem(TESTS_OF[kind]), written(program)) for kind, program in TAME.items()]
    # Python's own sources of chance begin alike in every process.
    chance = "import random\nprint(2 * int(input()) if (random.random() < 0.5) == (hash('a') % 2 == 0) else 0)"
    pairs += [(problem(TESTS_OF["stdin"]), written(chance))] * 2 + [
        (problem(TESTS_OF["stdin"]), Completion("", 0, True))
    ]
    alone = [CodeReward(workers=1)(*pair) for pair in pairs]
    order = list(range(len(pairs)))
    random.Random(0).shuffle(order)
    together = CodeReward(workers=4).judge_many([pairs[row] for row in order])
    assert [together[order.index(row)] for row in range(len(pairs))] == alone
    assert {verdict.score for verdict in alone} == {0.0, 1.0}
    assert alone[-1] == Verdict(0.0, "no program in its place")


def test_equal_programs_run_once(reward: CodeReward, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    monkeypatch.setattr(code_reward, "Sandbox", lambda *given: made.append(given) or sandbox.Sandbox(*given))
    right, wrong = written(TAME["stdin"]), written("print(0)")
    task = problem(TESTS_OF["stdin"])
    verdicts = reward.judge_many([(task, right), (task, wrong), (task, right)])
    assert [verdict.score for verdict in verdicts] == [1.0, 0.0, 1.0] and len(made) == 2
    assert reward.judge_many([]) == []


def test_strict_and_lenient_places(reward: CodeReward) -> None:
    assert isinstance(reward, BatchRewardFunction) and isinstance(reward, AccuracyFunction)
    outside = Completion(f"So:\n```python\n{TAME['stdin']}\n```\n", 9, True)
    task = problem(TESTS_OF["stdin"])
    assert reward(task, outside).score == 0.0 and reward.leniently()(task, outside).score == 1.0 and reward.strict
    assert pickle.loads(pickle.dumps(reward))(task, written(TAME["stdin"])).score == 1.0


# ------------------------------------------------------------------------------------------------------------ refusals


def test_a_problem_without_tests_is_refused_by_name(reward: CodeReward) -> None:
    with pytest.raises(
        InvalidInput, match=r"^problem\.metadata=\{'a': 'b'\} is not allowed: the code reward needs 'tests'"
    ):
        reward(Problem("?", "42", "p", metadata={"a": "b"}), written("print(42)"))


@pytest.mark.parametrize("field", ["workers", "cpu_limit_s", "memory_limit_mb", "program_cpu_limit_s"])
def test_bad_settings_are_refused_by_name(field: str) -> None:
    for value in (0, -1, "two", 1.5):
        with pytest.raises(InvalidInput, match=f"^{field}="):
            CodeReward(**{field: value})


def test_without_isolation_it_refuses_or_warns_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "isolation", lambda: sandbox.Isolation(False, "there is no isolation here"))
    monkeypatch.setattr(code_reward, "isolation", sandbox.isolation)
    code_reward._warn_once.cache_clear()
    with pytest.raises(InvalidInput, match=r"^allow_unsandboxed=False is not allowed: .*there is no isolation here"):
        CodeReward()
    with pytest.warns(UserWarning, match="with your rights.*there is no isolation here") as warned:
        reward = CodeReward(allow_unsandboxed=True, workers=1, cpu_limit_s=1)
        CodeReward(allow_unsandboxed=True)
    assert len(warned) == 1 and not reward.isolated
    for kind, program in TAME.items():
        assert judge(reward, program, TESTS_OF[kind]).score == 1.0
    for program in ("print(8)", "while True: pass", "x = bytearray(1 << 31)\nprint(2 * int(input()))"):
        assert judge(reward, program, TESTS_OF["stdin"]).score == 0.0


def test_r1_s_form_on_request(monkeypatch: pytest.MonkeyPatch) -> None:
    tests = CodeTests("call", (CodeCase("[2]", "4"),), entry_point="double")
    block = "```python\ndef double(x): return 2 * x\n```"
    summary, answer = (
        Completion(text, 9, True) for text in (f"<think>so</think>\n{block}", f"<answer>{block}</answer>")
    )
    reward = CodeReward(form="r1", workers=1)
    assert [verdict.score for verdict in reward.judge_many([(problem(tests), summary), (problem(tests), answer)])] == [
        1,
        0,
    ]
    assert CodeReward(workers=1)(problem(tests), summary).reason == "no program in its place"
    with pytest.raises(InvalidInput, match="form='r2' is not allowed"):
        CodeReward(form="r2")  # type: ignore[arg-type]
