"""Chains of arithmetic: the mathematics of the miniature task, and its train/test split.

A chain is a first number (or a product of two small numbers) followed by additions and subtractions: `7*8-19+42`. Every
intermediate value stays within 0 .. 99. One step is a fact that a small model can memorise or compute by rule; a whole chain is
more than one forward pass of a small model can do, so writing the steps down pays. That is the point: reasoning has a price
(tokens) and a value (accuracy) here, and reinforcement learning can discover it.

**Held-out by construction.** A *state* is the remaining expression at any moment of a left-to-right solution: `7*8-19+42`, then
`56-19+42`, then `37+42`. Its key ignores the order of operands, and a hash of the key alone decides whether a state with two or
more operations is held out. A problem may be tested on only if *all* of these states are held out. A chain may appear in a training
text only if *none* of its *pieces* is held out: its states and their prefixes, because a solution of `7*8-19+42` computes `7*8-19`
on the way. So neither a reordering nor an intermediate state of a tested problem appears in training, alone or inside a longer
chain. Pieces with a single operation (`37+42`) are the facts of arithmetic; both sides share them. Of the chains with three
operations, 1 in 64 may be tested on and two thirds may be trained on.
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
    """A chain: `first` is one number or a product of two; `terms` are the signed numbers that follow, in order."""

    first: tuple[int, ...]
    terms: tuple[int, ...]

    @property
    def n_operations(self) -> int:
        return len(self.first) - 1 + len(self.terms)

    def expression(self) -> str:
        """Return the written form: `7*8-19+42`."""
        return "*".join(map(str, self.first)) + "".join(f"{term:+d}" for term in self.terms)

    def facts(self) -> list[tuple[str, int]]:
        """Return the steps of the left-to-right solution: ("7*8", 56), ("56-19", 37), ("37+42", 79)."""
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
        """Yield this chain and the remaining chain after each step."""
        yield self
        if len(self.first) == 2:
            yield from Chain((self.first[0] * self.first[1],), self.terms).states()
        elif len(self.terms) > 1:
            yield from Chain((self.first[0] + self.terms[0],), self.terms[1:]).states()

    def pieces(self) -> Iterator[Chain]:
        """Yield every chain of two or more operations that a solution computes: each state, and each prefix of it."""
        for state in self.states():
            beginnings = (Chain(state.first, state.terms[:end]) for end in range(len(state.terms) + 1))
            yield from (chain for chain in beginnings if chain.n_operations >= 2)

    def key(self) -> str:
        """Return a key that is the same for every order of operands: `42+56-19` and `56-19+42` share one."""
        if len(self.first) == 2:
            low, high = sorted(self.first)
            return f"{low}*{high}|" + ",".join(map(str, sorted(self.terms)))
        return ",".join(map(str, sorted((*self.first, *self.terms))))


def may_train_on(chain: Chain) -> bool:
    """True if no piece with two or more operations is held out."""
    return not any(is_held_out_key(piece.key()) for piece in chain.pieces())


def may_test_on(chain: Chain) -> bool:
    """True if every state with two or more operations is held out."""
    return all(is_held_out_key(state.key()) for state in chain.states() if state.n_operations >= 2)


def draw_chain(rng: random.Random, min_operations: int, max_operations: int) -> Chain:
    """Draw a chain whose values all lie in 0 .. MAX_VALUE; products are of digits 2 .. 9."""
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
    """Draw a signed number of size 2 .. MAX_TERM whose addition keeps `value` within 0 .. MAX_VALUE."""
    while True:
        term = rng.randint(2, MAX_TERM) * (1 if rng.random() < 0.5 else -1)
        if 0 <= value + term <= MAX_VALUE:
            return term


def draw_training_chain(rng: random.Random, min_operations: int, max_operations: int) -> Chain:
    """Draw a chain that may be trained on."""
    while True:
        chain = draw_chain(rng, min_operations, max_operations)
        if may_train_on(chain):
            return chain


def fact_value(fact: str) -> int:
    """Return the value of a written fact with one operation: a*b, a+b or a-b."""
    if "*" in fact:
        left, right = fact.split("*")
        return int(left) * int(right)
    split = max(fact.rfind("+"), fact.rfind("-"))
    return int(fact[:split]) + int(fact[split:])
