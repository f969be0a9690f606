"""The miniature's arithmetic pre-training corpus in English and Chinese; like web text, partly right and partly wrong.

A base model must bring two things to reinforcement learning: the facts, and an occasional habit of writing steps down. So the
corpus holds plain facts; chains worked out line by line; and questions in R1-Zero's template with every kind of answer: immediate
and often wrong, half-formatted, reasoned, reasoned with an unnoticed mistake, reasoned with a corrected mistake ("Wait, ...").
Well-formatted reasoning is a minority; it is the reward's job to show that it pays.
"""

from __future__ import annotations

import random
import re

from r1_lightning.tasks.chains import MAX_VALUE, Chain, draw_term, draw_training_chain, fact_value, may_train_on
from r1_lightning.tasks.step_text import WAIT, Manner, join_steps, thinking_language
from r1_lightning.text.chat_template import r1_zero_prompt
from r1_lightning.text.language import LANGUAGES
from r1_lightning.text.reasoning_format import ANSWER_CLOSE, ANSWER_OPEN, THINK_CLOSE, THINK_OPEN, reasoned

_QUESTIONS = {
    "en": ("What is {}", "Compute {}", "Calculate {}", "Find {}"),
    "zh": ("{}等于多少", "计算{}", "求{}", "请算{}"),
}
# The wording of a chain: the start, a product, plus, minus, the closing question.
_WORDS = {
    "en": ("Start with {}", "{} times {}", ", add {}", ", take away {}", ". What is left"),
    "zh": ("从{}开始", "{}乘{}", "，加{}", "，减{}", "，结果是多少"),
}
_SAY = {"en": ("The answer is {}.", "It is {}.", "{}"), "zh": ("答案是{}。", "等于{}。", "{}")}

_TERM = re.compile(r"[+-]\d+")

# Document types and their shares, chosen so that about one answer in four is reasoned and well formatted.
_KINDS = (
    ("facts", 0.26),
    ("worked", 0.06),
    ("straight", 0.36),
    ("reasoned", 0.15),
    ("half_formatted", 0.07),
    ("slip_noticed", 0.06),
    ("slip_unnoticed", 0.04),
)


def question_text(rng: random.Random, expression: str, language: str, in_words: bool) -> str:
    """Return a question without its final mark (the template adds it): an expression, or the steps in words."""
    if not in_words:
        return rng.choice(_QUESTIONS[language]).format(expression)
    start, product, plus, minus, closing = _WORDS[language]
    terms = _TERM.findall(expression)
    first = expression[: len(expression) - len("".join(terms))]
    opening = start.format(product.format(*first.split("*")) if "*" in first else first)
    parts = [(plus if term[0] == "+" else minus).format(term[1:]) for term in terms]
    return opening + "".join(parts) + closing


class DocumentWriter:
    """Writes one document from one random generator; the shares are those of `ArithmeticTask`."""

    def __init__(
        self,
        min_operations: int,
        max_operations: int,
        word_share: float,
        wrong_share: float,
        manner: Manner = "sparing",
    ) -> None:
        self.operations = (min_operations, max_operations)
        self.word_share = word_share
        self.wrong_share = wrong_share
        self.manner = manner
        self.kinds = {"facts": self._facts, "worked": self._worked}
        self.answers = {
            "straight": self._straight,
            "reasoned": self._reasoned,
            "half_formatted": self._half_formatted,
            "slip_noticed": self._slip_noticed,
            "slip_unnoticed": self._slip_unnoticed,
        }

    def document(self, rng: random.Random) -> str:
        """Return one document: facts, a worked chain, or a question with an answer."""
        names, shares = zip(*_KINDS, strict=True)
        kind = rng.choices(names, shares)[0]
        if kind in self.kinds:
            return self.kinds[kind](rng)
        chain, language = draw_training_chain(rng, *self.operations), rng.choice(LANGUAGES)
        question = question_text(rng, chain.expression(), language, rng.random() < self.word_share)
        return r1_zero_prompt(question) + self.answers[kind](rng, chain, language)

    def _facts(self, rng: random.Random) -> str:
        lines, last = [], -1
        for _ in range(8):
            if rng.random() < 0.15:
                a, b = rng.randint(2, 9), rng.randint(2, 9)
                fact, last = f"{a}*{b}", a * b
            else:
                value = rng.randint(0, MAX_VALUE)
                while (
                    value == last
                ):  # a fact that continued the previous line's would spell out a chain, perhaps a held-out one
                    value = rng.randint(0, MAX_VALUE)
                term = draw_term(rng, value)
                fact, last = f"{value}{term:+d}", value + term
            lines.append(f"{fact}={last}")
        return "\n".join(lines)

    def _worked(self, rng: random.Random) -> str:
        states = [state.expression() for state in draw_training_chain(rng, *self.operations).states()]
        return "=".join([*states, str(fact_value(states[-1]))])

    def _straight(self, rng: random.Random, chain: Chain, language: str) -> str:
        value = chain.value()
        if rng.random() < self.wrong_share:
            value = _near_miss(rng, value)
        form = rng.random()
        if form < 0.3:
            return f" {THINK_OPEN}{THINK_CLOSE}{ANSWER_OPEN}{value}{ANSWER_CLOSE}"
        if form < 0.5:
            return f" {ANSWER_OPEN}{value}{ANSWER_CLOSE}"
        return " " + rng.choice(_SAY[language]).format(value)

    def _reasoned(self, rng: random.Random, chain: Chain, language: str) -> str:
        steps = [f"{left}={right}" for left, right in chain.facts()]
        return reasoned(
            join_steps(rng, steps, thinking_language(rng, language, self.manner), self.manner), chain.value()
        )

    def _half_formatted(self, rng: random.Random, chain: Chain, language: str) -> str:
        steps = [f"{left}={right}" for left, right in chain.facts()]
        thinking, value = join_steps(rng, steps, language, self.manner), chain.value()
        said = rng.choice(_SAY[language]).format(value)
        return rng.choice(
            (
                f" {thinking} {said}",
                f" {THINK_OPEN}{thinking}{THINK_CLOSE} {said}",
                f" {THINK_OPEN}{thinking}{ANSWER_OPEN}{value}{ANSWER_CLOSE}",
                f" {thinking}{ANSWER_OPEN}{value}{ANSWER_CLOSE}",
            )
        )

    def _slip_noticed(self, rng: random.Random, chain: Chain, language: str) -> str:
        facts = chain.facts()
        wrong_at = rng.randrange(len(facts))
        left, right = facts[wrong_at]
        steps = [f"{a}={b}" for a, b in facts]
        steps[wrong_at] = f"{left}={_near_miss(rng, right)}{WAIT[language]}{left}={right}"
        return reasoned(join_steps(rng, steps, language, self.manner), chain.value())

    def _slip_unnoticed(self, rng: random.Random, chain: Chain, language: str) -> str:
        wrong_at = rng.randrange(len(chain.facts()))
        for _ in range(20):
            steps, value = self._steps_with_slip(rng, chain, wrong_at)
            if steps:
                return reasoned(join_steps(rng, steps, language, self.manner), value)
        return self._reasoned(rng, chain, language)  # every mistake leads out of 0 .. 99 or to a held-out chain

    def _steps_with_slip(self, rng: random.Random, chain: Chain, wrong_at: int) -> tuple[list[str], int]:
        """Return the solution with a mistake at step `wrong_at`, and its result; empty if it has a forbidden value or chain."""
        steps, value = [], 0
        for number, (left, right) in enumerate(chain.facts()):
            if number > wrong_at:
                left = f"{value}{_TERM.findall(left)[-1]}"
                right = fact_value(left)
            value = _near_miss(rng, right) if number == wrong_at else right
            if not 0 <= value <= MAX_VALUE:
                return [], 0
            steps.append(f"{left}={value}")
            rest = chain.terms[number + 1 - (len(chain.first) - 1) :]
            if number == wrong_at and len(rest) >= 2 and not may_train_on(Chain((value,), rest)):
                return [], 0
        return steps, value


def _near_miss(rng: random.Random, value: int) -> int:
    """Return a typical wrong value: off by one, off by ten, or with one wrong digit."""
    while True:
        wrong = value + rng.choice((-10, -2, -1, 1, 2, 10))
        if 0 <= wrong <= MAX_VALUE:
            return wrong
