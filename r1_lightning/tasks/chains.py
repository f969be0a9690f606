"""Chains of arithmetic: the miniature's mathematics, and the wall between what is trained on and what is tested.

A chain is a first number (or a product of two small ones) to which numbers are added or from which they are taken:
`7*8-19+42`. Every value on the way stays within 0 .. 99. One step is a fact a small model can learn by heart or by rule; a
whole chain is more than one forward pass of a small model can do, so that writing the steps down pays. That is the point:
here reasoning has a price (tokens) and a value (accuracy), and reinforcement learning can find it.

**Held-out by construction.** A *state* is what is left to compute at any moment of a left-to-right solution: `7*8-19+42`, then
`56-19+42`, then `37+42`. Its key forgets the order of operands. A hash of the key alone says whether a state with two or more
operations is held out. A problem is tested on only when *all* such states are held out. A chain may appear in a training text
only when *none* of its *pieces* is: its states, and how each of them begins, because whoever works out `7*8-19+42` has worked
out `7*8-19` on the way. So no reordering of a tested problem, and no intermediate state of one, is ever trained on, neither by
itself nor inside something longer. Pieces with a single operation (`37+42`) are the facts of arithmetic; they are shared.
Of chains with three operations 1 in 64 can be tested on and two thirds trained on.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

from r1_lightning.tasks.keyed import is_held_out_key

MAX_VALUE = 99
MAX_TERM = 19  # small enough for a small model to learn all facts within minutes, large enough for carries and borrows


@dataclass(frozen=True, slots=True)
class Chain:
    """`first` is one number or a product of two; `terms` are the signed numbers that follow, in order."""

    first: tuple[int, ...]
    terms: tuple[int, ...]

    @property
    def n_operations(self) -> int:
        return len(self.first) - 1 + len(self.terms)

    def expression(self) -> str:
        """As it is written: `7*8-19+42`."""
        return "*".join(map(str, self.first)) + "".join(f"{term:+d}" for term in self.terms)

    def facts(self) -> list[tuple[str, int]]:
        """The steps of the left-to-right solution: ("7*8", 56), ("56-19", 37), ("37+42", 79)."""
        steps, value = [], self.first[0]
        if len(self.first) == 2:
            value = self.first[0] * self.first[1]
            steps.append((f"{self.first[0]}*{self.first[1]}", value))
        for term in self.terms:
            steps.append((f"{value}{term:+d}", value + term))
            value += term
        return steps

    def value(self) -> int:
        start = self.first[0] * self.first[1] if len(self.first) == 2 else self.first[0]
        return start + sum(self.terms)

    def states(self) -> Iterator[Chain]:
        """This chain and what is left of it after each step."""
        yield self
        if len(self.first) == 2:
            yield from Chain((self.first[0] * self.first[1],), self.terms).states()
        elif len(self.terms) > 1:
            yield from Chain((self.first[0] + self.terms[0],), self.terms[1:]).states()

    def pieces(self) -> Iterator[Chain]:
        """Every chain of two or more operations that is worked out on the way: each state, and each beginning of it."""
        for state in self.states():
            beginnings = (Chain(state.first, state.terms[:end]) for end in range(len(state.terms) + 1))
            yield from (chain for chain in beginnings if chain.n_operations >= 2)

    def key(self) -> str:
        """The same for every order of operands: `42+56-19` and `56-19+42` share one key."""
        if len(self.first) == 2:
            low, high = sorted(self.first)
            return f"{low}*{high}|" + ",".join(map(str, sorted(self.terms)))
        return ",".join(map(str, sorted((*self.first, *self.terms))))


def may_train_on(chain: Chain) -> bool:
    """True where no piece with two or more operations is held out."""
    return not any(is_held_out_key(piece.key()) for piece in chain.pieces())


def may_test_on(chain: Chain) -> bool:
    """True where every state with two or more operations is held out."""
    return all(is_held_out_key(state.key()) for state in chain.states() if state.n_operations >= 2)


def draw_chain(rng: random.Random, min_operations: int, max_operations: int) -> Chain:
    """A chain whose values all lie in 0 .. MAX_VALUE; products are of digits 2 .. 9."""
    n_operations = rng.randint(min_operations, max_operations)
    if rng.random() < 0.25:
        first: tuple[int, ...] = (rng.randint(2, 9), rng.randint(2, 9))
        value = first[0] * first[1]
    else:
        first = (rng.randint(2, 60),)
        value = first[0]
    terms = []
    for _ in range(n_operations - len(first) + 1):
        term = draw_term(rng, value)
        terms.append(term)
        value += term
    return Chain(first, tuple(terms))


def draw_term(rng: random.Random, value: int) -> int:
    """A signed number of 2 .. MAX_TERM that keeps `value` within 0 .. MAX_VALUE."""
    while True:
        term = rng.randint(2, MAX_TERM) * (1 if rng.random() < 0.5 else -1)
        if 0 <= value + term <= MAX_VALUE:
            return term


def draw_training_chain(rng: random.Random, min_operations: int, max_operations: int) -> Chain:
    """A chain that may be trained on."""
    while True:
        chain = draw_chain(rng, min_operations, max_operations)
        if may_train_on(chain):
            return chain


def fact_value(fact: str) -> int:
    """The value of a written fact with one operation: a*b, a+b or a-b."""
    if "*" in fact:
        left, right = fact.split("*")
        return int(left) * int(right)
    split = max(fact.rfind("+"), fact.rfind("-"))
    return int(fact[:split]) + int(fact[split:])
