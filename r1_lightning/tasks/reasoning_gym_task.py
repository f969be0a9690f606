"""An endless problem source from `reasoning-gym` (Stojanovski et al. 2025, arXiv:2505.24760); needs the extra `tasks`.

The library has about a hundred generators: arithmetic, algebra, logic, games, graphs. An item is a function of a generator's
parameters and a seed. Many items have more than one right answer, so `rewards.task_scorer` calls the generator's own scorer; an
evaluation that only compares with the reference undercounts right answers.

**Training and held-out problems are disjoint.** Training uses odd seeds, the held-out set even ones. (The library itself draws item
i from seed + i: two data sets with neighbouring seeds share all items but one.) Small generators repeat items all the same, so a
training problem whose question is in the held-out set is redrawn.

Generators in `EXCLUDED` are refused, each with its reason: scorers that evaluate a model's text as Python or accept any answer,
generators whose items differ between processes, and generators without a reference answer.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property, lru_cache
from typing import Any, NoReturn

from r1_lightning.tasks.fields import question_id
from r1_lightning.tasks.keyed import keyed_number
from r1_lightning.types.errors import InvalidInput, require, require_int, require_number
from r1_lightning.types.text import Problem

GENERATOR_VERSION = 1  # increment it when the same arguments give other problems
ENTRY = "reasoning_gym"  # the key in a problem's metadata: the recipe that regenerates its entry
MAX_HELD_OUT = 10_000
_SEEDS = 2**30  # of each kind, odd and even; NumPy takes seeds below 2^32
_TRIES = 200

_EVAL = "its scorer evaluates the model's text as Python"
_HASH = "its problems depend on the process that makes them (PYTHONHASHSEED)"
_NO_ANSWER = "it gives no reference answer"
EXCLUDED: Mapping[str, str] = {
    "binary_matrix": _EVAL,
    "intermediate_integration": _EVAL,
    "n_queens": _EVAL,
    "polynomial_multiplication": _EVAL,
    "simple_integration": _EVAL,
    "spiral_matrix": _EVAL,
    "string_insertion": _EVAL,
    "codeio": "making a problem runs programs of its data files",
    "composite": "weights does the same",
    "game_of_life_halting": "its scorer gives 1.0 to text that is no answer",
    "puzzle24": "its scorer, which evaluates the model's text, never looks at the numbers that were given",
    "isomorphic_strings": _HASH,
    "knight_swap": _HASH,
    "list_functions": _HASH,
    "ransom_note": _HASH,
    "word_ladder": _HASH,
    "boxnet": _NO_ANSWER,
    "graph_color": _NO_ANSWER,
    "propositional_logic": _NO_ANSWER,
    "rubiks_cube": _NO_ANSWER,
    "rush_hour": _NO_ANSWER,
}


class ReasoningGymTask:
    """The `ProblemSource` of a mixture of reasoning-gym's generators.

    Args:
        weights: relative frequency of each generator, by name.
        parameters: keyword arguments of a generator's own configuration, by generator name.
        held_out: number of held-out problems.

    Raises:
        InvalidInput: a name or weight that is not allowed; on the first problem, a missing library, an unknown generator or a bad
            parameter.
    """

    def __init__(
        self,
        weights: Mapping[str, float],
        parameters: Mapping[str, Mapping[str, Any]] | None = None,
        held_out: int = 200,
    ) -> None:
        require(bool(weights), "weights", dict(weights), "at least one generator is needed")
        for name, weight in weights.items():
            require(name not in EXCLUDED, "weights", name, EXCLUDED.get(name, ""))
            require_number(f"weights.{name}", weight, 0.0, open_minimum=True)
        for name, given in (parameters or {}).items():
            require(name in weights, "parameters", name, f"weights has {', '.join(weights)}")
            clash = sorted({"seed", "size"} & set(given))
            require(not clash, f"parameters.{name}", clash, "seed and size belong to the task")
        require_int("held_out", held_out, 1, MAX_HELD_OUT)
        self.weights = {name: float(weight) for name, weight in weights.items()}
        self.parameters = {name: dict((parameters or {}).get(name, {})) for name in weights}
        self.held_out = held_out

    @property
    def content_version(self) -> str:
        """Our version and the library's, because both decide the problems."""
        _library()
        return f"reasoning_gym-{GENERATOR_VERSION}-{importlib.metadata.version('reasoning-gym')}"

    def train_problem(self, seed: int, index: int) -> Problem:
        """Return problem number `index` of `seed`; never a held-out question."""
        require_int("index", index, minimum=0)
        return self._draw(f"train/{seed}/{index}", 1, self._held_out_ids)

    def held_out_problems(self, count: int) -> Sequence[Problem]:
        """Return the first `count` problems of the held-out set, all distinct. `InvalidInput` for more than `held_out`."""
        require_int("held_out_problems", count, minimum=1, maximum=self.held_out)
        return self._held_out[:count]

    def documents(self, seed: int, start: int, count: int) -> Iterator[str]:
        """Raise `InvalidInput`: the library has no worked solutions to pre-train on."""
        raise InvalidInput("reasoning_gym has no worked solutions to pre-train on: give a model by init_from=FOLDER")

    @cached_property
    def _held_out(self) -> list[Problem]:
        found: dict[str, Problem] = {}
        for index in range(self.held_out):
            problem = self._draw(f"held_out/{index}", 0, found)
            found[problem.problem_id] = problem
        return list(found.values())

    @cached_property
    def _held_out_ids(self) -> frozenset[str]:
        return frozenset(problem.problem_id for problem in self._held_out)

    def _draw(self, key: str, parity: int, taken: Mapping[str, Problem] | frozenset[str]) -> Problem:
        """Return the first of `key`'s draws whose question is not in `taken`."""
        name = self._generator(keyed_number(f"generator/{key}") / 2**64)
        for attempt in range(_TRIES):
            seed = 2 * (keyed_number(f"{key}/{attempt}") % _SEEDS) + parity
            problem = _problem(name, json.dumps(self.parameters[name], sort_keys=True), seed)
            if problem.answer and problem.problem_id not in taken:
                return problem
        raise InvalidInput(
            f"held_out={self.held_out!r} is not allowed: {name} repeats itself, {_TRIES} draws gave nothing new; "
            "ask for fewer, or for longer problems by parameters"
        )

    def _generator(self, point: float) -> str:
        """Return the generator whose share of [0, 1) contains `point`."""
        left = point * sum(self.weights.values())
        for name, weight in self.weights.items():
            left -= weight
            if left < 0:
                return name
        return list(self.weights)[-1]  # rounding may leave `point` at the very end


def entry_of(recipe: str) -> tuple[Any, dict[str, Any]]:
    """Regenerate a problem's generator (with `score_answer`) and entry from its metadata under `ENTRY`.

    Raises `InvalidInput` if the installed library generates another question.
    """
    wanted = json.loads(recipe)
    generator, entry = _made(wanted["generator"], wanted["parameters"], wanted["seed"])
    made = question_id(wanted["generator"], entry["question"])
    if made != wanted["problem_id"]:
        raise InvalidInput(f"{wanted['generator']}: this reasoning-gym makes another problem of seed {wanted['seed']}")
    return generator, entry


def _problem(name: str, parameters: str, seed: int) -> Problem:
    generator, entry = _made(name, parameters, seed)
    problem_id = question_id(name, entry["question"])
    recipe = {"generator": name, "parameters": parameters, "seed": seed, "problem_id": problem_id}
    metadata = {ENTRY: json.dumps(recipe), "generator": name, "subject": str(generator.category)}
    answer = "" if entry["answer"] is None else str(entry["answer"])
    return Problem(entry["question"].strip(), answer, problem_id, "en", metadata=metadata)  # as all of its generators


@lru_cache(maxsize=64)  # the completions of one group need the same entry
def _made(name: str, parameters: str, seed: int) -> tuple[Any, dict[str, Any]]:
    create = _library().create_dataset
    try:
        generator = create(name, seed=seed, size=1, **json.loads(parameters))
    except (ValueError, TypeError, AssertionError, KeyError) as error:
        _refuse(name, parameters, error)
    return generator, generator[0]


def _refuse(name: str, parameters: str, error: Exception) -> NoReturn:
    reason = " ".join(str(error).split())[:200]
    raise InvalidInput(f"weights={name!r} with parameters {parameters} is not allowed: {reason}") from error


@lru_cache(maxsize=1)
def _library() -> Any:
    try:
        return importlib.import_module("reasoning_gym")
    except ImportError as error:
        raise InvalidInput(f"reasoning-gym is not installed ({error}): pip install -e '.[tasks]'") from error
