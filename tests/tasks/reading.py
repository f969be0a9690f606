"""An independent parser of the corpus: it finds the sums in raw text.

It shares no code with `r1_lightning.tasks`: it has its own regular expressions for expressions, questions in words and lines of
reasoning, its own arithmetic, and its own canonical form. A *sum* is a start (a number, or a product of two) and the signed numbers
that follow, with two operations or more.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import pairwise

# A sum: the factors it starts from (one number or two) and the signed numbers after them.
Sum = tuple[tuple[int, ...], tuple[int, ...]]
# The same for every order of operands: sorted factors (none for a plain number) and sorted signed numbers.
Canonical = tuple[tuple[int, ...], tuple[int, ...]]

_EXPRESSION = r"\d+(?:[*+-]\d+)*"
_EQUATIONS = re.compile(rf"{_EXPRESSION}(?:={_EXPRESSION})*")  # `7*8-19` or `56-19=37` or `7*8-19=56-19=37`
_ENGLISH = re.compile(r"Start with (\d+)(?: times (\d+))?((?:, (?:add|take away) \d+)+)")
_CHINESE = re.compile(r"从(\d+)(?:乘(\d+))?开始((?:，[加减]\d+)+)")
_TOLD_TERM = re.compile(r"(add|take away|加|减) ?(\d+)")


def equations(text: str) -> list[list[str]]:
    """Every maximal run of expressions joined by `=`, in the order of the text; a lone expression is a run of one."""
    return [run.split("=") for run in _EQUATIONS.findall(text)]


def as_sum(expression: str) -> Sum:
    """`7*8-19+42` to ((7, 8), (-19, 42))."""
    product, *signed = re.split(r"(?=[+-])", expression)
    return tuple(int(factor) for factor in product.split("*")), tuple(int(term) for term in signed)


def n_operations(value: Sum) -> int:
    return len(value[0]) + len(value[1]) - 1


def evaluate(value: Sum) -> int:
    result = 1
    for factor in value[0]:
        result *= factor
    for term in value[1]:
        result += term
    return result


def canonical(value: Sum) -> Canonical:
    """One form for all orders of operands: the product's factors sorted apart, all added numbers sorted together."""
    factors, terms = value
    if len(factors) == 1:
        return (), tuple(sorted((*factors, *terms)))
    return tuple(sorted(factors)), tuple(sorted(terms))


def what_is_left(value: Sum) -> Iterator[Sum]:
    """Yield `value` and the remaining sum after each left-to-right step, as long as two operations or more remain."""
    while n_operations(value) >= 2:
        yield value
        factors, terms = value
        done = 0 if len(factors) == 2 else 1
        value = (evaluate((factors, terms[:done])),), terms[done:]


def beginnings(value: Sum) -> Iterator[Sum]:
    """Yield every prefix of `value`, itself included: a solution of 7*8-19+42 computes 7*8-19 on the way."""
    factors, terms = value
    for length in range(len(terms) + 1):
        if n_operations((factors, terms[:length])) >= 2:
            yield factors, terms[:length]


def told_sums(text: str) -> Iterator[Sum]:
    """Sums told in words, in English and in Chinese."""
    for pattern in (_ENGLISH, _CHINESE):
        for first, second, told in pattern.findall(text):
            factors = (int(first), int(second)) if second else (int(first),)
            signed = (int(n) * (1 if word in ("add", "加") else -1) for word, n in _TOLD_TERM.findall(told))
            yield factors, tuple(signed)


def facts(text: str) -> list[tuple[str, int]]:
    """Every `left=right` with one operation on the left and a number on the right, in the order of the text."""
    found = []
    for run in equations(text):
        for left, right in pairwise(run):
            if n_operations(as_sum(left)) == 1 and right.isdigit():
                found.append((left, int(right)))
    return found


def reasoned_sums(text: str) -> Iterator[Sum]:
    """Yield the sums that a line of facts computes: `7*8=56, 56-19=37, 37+42=79` computes 7*8-19+42, 56-19+42 and 7*8-19.

    A fact continues the previous one if it starts with its result, right or wrong: after the mistake `7*8=57`, 57-19 and +42
    compute 57-19+42. A fact with the same left side as the previous one ("Wait, 7*8=56") corrects it and takes its place.
    """
    given = [(as_sum(left), value) for left, value in facts(text)]
    goes_on_from: list[int | None] = []
    for number, (left, _) in enumerate(given):
        before, value = given[number - 1] if number else (None, None)
        if left == before:
            goes_on_from.append(goes_on_from[-1])
        else:
            goes_on_from.append(number - 1 if left[0] == (value,) else None)
        start, terms = number, left[1]
        while (earlier := goes_on_from[start]) is not None:
            start, terms = earlier, given[earlier][0][1] + terms
            yield given[start][0][0], terms


def written_sums(text: str) -> Iterator[Sum]:
    """Every sum with two operations or more that `text` holds: as an expression, in words, or worked out step by step."""
    for run in equations(text):
        for expression in run:
            if n_operations(as_sum(expression)) >= 2:
                yield as_sum(expression)
    yield from told_sums(text)
    yield from reasoned_sums(text)


def forms_tested(texts: Iterable[str]) -> set[Canonical]:
    """Return the sums of held-out questions, and the remaining sum after every step of each."""
    return {canonical(left) for text in texts for value in written_sums(text) for left in what_is_left(value)}


def forms_trained(texts: Iterable[str]) -> set[Canonical]:
    """Return the sums of training texts, the remaining sums after every step, and all prefixes of these."""
    return {
        canonical(begun)
        for text in texts
        for value in written_sums(text)
        for left in what_is_left(value)
        for begun in beginnings(left)
    }
