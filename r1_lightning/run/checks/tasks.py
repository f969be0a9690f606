"""Checks that a task's rows provide what a stage needs, before anything is made; these checks are the first to read rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig

from r1_lightning.rollout.rejection_sampling import REASONING, RejectionSampling, accuracy_and_form, form_of
from r1_lightning.rollout.sampled_rows import require_sources
from r1_lightning.rollout.token_cache import TokenCache
from r1_lightning.run.checks.evaluation import evaluation_settings
from r1_lightning.run.config.declarations import needs_of
from r1_lightning.run.config.inject import inject
from r1_lightning.run.config.keys import JUDGE, TOKEN_CACHE
from r1_lightning.run.config.stage_config import BASE
from r1_lightning.tasks.decontaminate import held_out_questions
from r1_lightning.text.chat_template import TEMPLATES
from r1_lightning.text.reasoning_format import R1_ZERO_FORM
from r1_lightning.types.errors import InvalidInput, require
from r1_lightning.types.text import Need

DATA = "data"  # the stage's input that holds a data set
MAX_HELD_OUT = 10_000  # enough for a 95 % interval of 1 % at most; finding many more takes minutes


def check_task(config: DictConfig, is_dry: bool = False) -> None:
    """Raise `InvalidInput` if the task lacks what the stage trains on, or has too few held-out problems for its evaluation.

    Missing or broken files are found here, before any input is made; `is_dry` leaves out examples, which may be missing then.
    """
    source = instantiate(config.task.source, _convert_="all")
    for need in (*needs_of(config.get("data")), *needs_of(config.stage)):
        if need in CHECKS and not (is_dry and need == "examples"):
            CHECKS[need](config, source)
    _check_held_out(config, source)


def _check_problems(config: DictConfig, source: Any) -> None:
    source.train_problem(config.seed, 0)


def _check_documents(config: DictConfig, source: Any) -> None:
    next(iter(source.documents(config.seed, 0, 1)), None)


def _check_requests(config: DictConfig, source: Any) -> None:
    inject(config.stage, {}).requests_of(source)


def _check_text(config: DictConfig, source: Any) -> None:
    """Raise InvalidInput if a student's text has two sources, or if its file or the task's documents cannot be read."""
    data, given = config.data, DATA in config.stage.inputs
    if data.get("traces"):
        require(not given, "data.traces", data["traces"].get("_target_"), f"the stage has an input {DATA!r} as well")
        instantiate(data["traces"]).traces()
    elif not given and data.get("on_policy_fraction") != 1:
        _check_documents(config, source)


def _check_examples(config: DictConfig, source: Any) -> None:
    """Raise InvalidInput if examples for fine-tuning come from nowhere or from two places, or if a file cannot be read."""
    examples = instantiate(config.data.examples, _convert_="all")
    given = DATA in config.stage.inputs
    place = config.data.examples.get("file") or config.data.examples.get("hub")
    require(not (given and examples.is_named), "data.examples.file", place, f"the stage has an input {DATA!r} as well")
    cache = TokenCache(Path(config.paths.root) / TOKEN_CACHE)
    if not given and not (examples.is_named and examples.key and cache.was_read(examples.key)):
        for _ in examples.stream():
            pass


def _check_verdicts(config: DictConfig, source: Any) -> None:
    """Raise InvalidInput if there is no accuracy reward or judge, or, with `rewrite_as`, no format reward."""
    reward: Any = instantiate(config.reward, _convert_="all") if config.get("reward") else None
    form = form_of(reward) if JUDGE in config.stage.inputs else accuracy_and_form(reward)[1]
    _check_rewriting(config, form is not None)


def _check_rewriting(config: DictConfig, judges_form: bool) -> None:
    rewrite_as = config.stage.get("rewrite_as")
    if rewrite_as is not None:
        written = TEMPLATES[config.task.template].form
        allowed = f"it rewrites {R1_ZERO_FORM}, and with task.template={config.task.template} samples are of the form {written}"
        require(written == R1_ZERO_FORM, "stage.rewrite_as", rewrite_as, allowed)
        require(
            judges_form,
            "stage.rewrite_as",
            rewrite_as,
            "it needs a reward named format, which says what can be rewritten",
        )


def _check_sampled_rows(config: DictConfig, source: Any) -> None:
    """Raise InvalidInput for a share that names no input and no source, or for a benchmark without held-out questions."""
    settings: RejectionSampling = inject(config.stage, {})
    roles = [str(role) for role in config.stage.inputs if role != BASE]  # which of them are data sets is not known yet
    require_sources(settings.shares, (REASONING, *settings.sources, *roles))
    benchmark_questions(settings)


def benchmark_questions(settings: RejectionSampling) -> dict[str, list[str]]:
    """Return the held-out questions of each benchmark, by name. InvalidInput for one that is no task, or has no questions."""
    questions = {}
    for name, task in settings.benchmarks.items():
        place = f"stage.benchmarks.{name}"
        source = task.get("source") if isinstance(task, Mapping) else None
        require(hasattr(source, "held_out_problems"), place, task, "it must be a task with a source")
        try:
            questions[name] = held_out_questions(source, settings.held_out_questions)
        except InvalidInput as error:
            raise InvalidInput(f"{place}: {error}") from error
    return questions


def _check_held_out(config: DictConfig, source: Any) -> None:
    settings = evaluation_settings(config)
    if settings is None:
        return
    require(
        settings.problems <= MAX_HELD_OUT, "stage.evaluation.problems", settings.problems, f"at most {MAX_HELD_OUT}"
    )
    try:
        source.held_out_problems(settings.problems)
    except InvalidInput as error:
        raise InvalidInput(f"stage.evaluation.problems: {error}") from error


# What is looked at for each of `needs` ("rollout" is a group of the configuration: `run.checks.rules`).
CHECKS: dict[Need, Callable[[DictConfig, Any], None]] = {
    "documents": _check_documents,
    "examples": _check_examples,
    "text": _check_text,
    "problems": _check_problems,
    "verdicts": _check_verdicts,
    "sampled_rows": _check_sampled_rows,
    "requests": _check_requests,
}
