r"""Clean traces for a cold start: solved training problems as rows (question, completion), readable and in one language.

R1 starts from some thousand long, readable chains of thought, because R1-Zero's own text mixes languages and is hard to follow
(R1v1 section 2.3.1). Here each row is generated from the task's own solution: every step, with words between the steps, all in the
language of the question. Two forms:

    r1_zero    <think>...</think><answer>79</answer>
    r1         <think>...</think> The answer is \boxed{79}.        a summary for the reader after the thinking (R1v1 2.3.1)

R1's summary gives a program like any other answer, in the box (`text/programs.py` reads it there); a sampled program in a fenced
block stays in its block. A completion begins with the space that separates it from the prompt. No row is ever about a held-out
problem.

`in_r1_form` does the second half of R1's cold start for a sampled completion: it turns R1-Zero's thinking and answer tags into a
thinking and a summary for the reader. The paper has DeepSeek-V3 rewrite the text (R1v2 B.3), which also repairs unreadable parts;
here a rule writes the summary and keeps the thinking, so only samples that are already readable are worth rewriting.
"""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import Any

from r1_lightning.tasks.keyed import keyed_random
from r1_lightning.tasks.mixture import DOMAIN, REASONING
from r1_lightning.tasks.solved import Solved, SolvedSource, VersionedSolvedSource
from r1_lightning.text.answers import final_answer, marked_answer
from r1_lightning.text.code_tests import TESTS
from r1_lightning.text.programs import final_program, last_fenced
from r1_lightning.text.reasoning_format import (
    R1_FORM,
    R1_ZERO_FORM,
    THINK_CLOSE,
    THINK_OPEN,
    WRITTEN_FORMS,
    FormName,
    parse,
    reasoned,
)
from r1_lightning.types.errors import require_choice, require_int
from r1_lightning.types.text import Problem

FORMAT_VERSION = 2  # increment it when the same task gives other rows

_SUMMARIES = {
    "en": ("The answer is \\boxed{{{}}}.", "So we get \\boxed{{{}}}.", "Answer: \\boxed{{{}}}."),
    "zh": ("答案是\\boxed{{{}}}。", "所以得到\\boxed{{{}}}。", "答案：\\boxed{{{}}}。"),
}


class CleanTraces:
    """The first `count` rows of `source` for `seed`, all of one `domain`: rows to mix with sampled ones."""

    def __init__(
        self,
        source: VersionedSolvedSource,
        count: int,
        domain: str = REASONING,
        form: FormName = R1_FORM,
        seed: int = 0,
    ) -> None:
        require_choice("form", form, WRITTEN_FORMS)
        require_int("count", count, 1)
        self.source, self.count, self.domain, self.form, self.seed = source, count, domain, form, seed

    @property
    def content_version(self) -> str:
        return f"clean-{FORMAT_VERSION}-{self.source.content_version}"

    @property
    def rows(self) -> list[dict[str, Any]]:
        made = clean_rows(self.source, self.seed, 0, self.count, self.form)
        return [row | {"domain": self.domain} for row in made]


def clean_rows(
    source: SolvedSource, seed: int, start: int, count: int, form: FormName = R1_FORM
) -> Iterator[dict[str, Any]]:
    """Yield rows number `start` .. `start` + `count` - 1, each a function of (seed, number).

    Fields: question, completion, answer, problem_id, language, domain, level. Raises InvalidInput for an unknown form.
    """
    require_choice("form", form, WRITTEN_FORMS)
    require_int("start", start, 0)
    require_int("count", count, 0)
    for number in range(start, start + count):
        solved = source.solved_problem(seed, number)
        problem = solved.problem
        yield {
            "question": problem.question,
            "completion": clean_completion(solved, f"{seed}/{number}", form),
            "answer": problem.answer,
            "problem_id": problem.problem_id,
            "language": problem.language,
            "domain": problem.metadata.get(DOMAIN, REASONING),
            "level": problem.level,
        }


def clean_completion(solved: Solved, key: str, form: FormName) -> str:
    """Return the solution as a completion in `form`; its wording depends on `key` alone."""
    rng = keyed_random("clean-trace", key)
    problem = solved.problem
    thinking = solved.thinking(rng, problem.language, "clean")
    if form == R1_ZERO_FORM:
        return reasoned(thinking, problem.answer)
    return _with_summary(rng, problem, thinking, problem.answer, solved.summary)


def in_r1_form(problem: Problem, completion: str, key: str) -> str | None:
    """Rewrite a well-formed completion from R1-Zero's form to R1's: its thinking, then a summary with the answer in a box.

    An answer that contains a fenced program becomes the summary itself. A summary's wording depends on `key` alone. Returns None if
    a verifier would read another answer or program from the result: a box holds neither an unbalanced brace nor more than 1,000
    characters. Raises ValueError for a completion without thinking or without answer.
    """
    found = parse(completion)
    if found.think is None or found.answer is None:
        raise ValueError(f"no thinking and answer to rewrite: {', '.join(found.faults)}")
    answer = found.answer.strip()
    is_code = TESTS in problem.metadata
    summary = answer if is_code and last_fenced(answer) is not None else None
    written = _with_summary(keyed_random("rewritten", key), problem, found.think.strip(), answer, summary)
    return written if _read(written, R1_FORM, is_code) == _read(completion, R1_ZERO_FORM, is_code) else None


def _read(completion: str, form: FormName, is_code: bool) -> str | None:
    """Return the answer that a verifier reads from `completion`; white space after a program is ignored, before it is not."""
    if is_code:
        program = final_program(completion, form)
        return None if program is None else program.rstrip()
    answer = final_answer(completion, form)
    return None if answer is None else marked_answer(answer)


def _with_summary(rng: Random, problem: Problem, thinking: str, answer: str, summary: str | None = None) -> str:
    said = summary or rng.choice(_SUMMARIES[problem.language]).format(answer)
    return f" {THINK_OPEN}{thinking}{THINK_CLOSE} {said}"
