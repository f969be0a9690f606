"""`stage=sample`: rejection sampling from a model; writes a data set in place of weights.

    blocks/block-00000.jsonl   the fate of every sample of a block of problems; written when the block is done
    data/part-00000.jsonl      the kept rows, with those of other sources, in the configured shares
    data_card.md, counts.json  counts of the rows; of the sampled pool, pass rates, lengths, and drops by reason

A killed run goes on with the next block, to the same bytes. The processes of a run share its blocks, and the first one writes the
data set. Several runs (`stage.shard=0 stage.shards=4`, ...) each make their own blocks in one folder; the run that finds all blocks
there writes the data set. It is a stage like any other: its
input `base` is the model to sample from, and it may itself be an input.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig

from r1_lightning.artefacts import data_set, lineage, store
from r1_lightning.artefacts.progress import progress
from r1_lightning.artefacts.store import Artefact
from r1_lightning.callbacks.self_check import SelfCheck
from r1_lightning.rollout.rejecting import KEPT
from r1_lightning.rollout.rejection_sampling import (
    REASONING,
    BlockMaker,
    Record,
    RejectionSampling,
)
from r1_lightning.rollout.room import PromptRoom
from r1_lightning.rollout.sampled_rows import (
    Counts,
    Row,
    RowCounts,
    chosen,
    in_form,
    require_sources,
    rows_of,
    sizes,
    uncontaminated_rows,
)
from r1_lightning.run.build.gathering import held_to_sample
from r1_lightning.run.build.judges import what_is_right
from r1_lightning.run.build.parts import build_parts
from r1_lightning.run.build.torch_setup import set_up_for, silence_warnings
from r1_lightning.run.checks.tasks import benchmark_questions
from r1_lightning.run.config.inject import inject
from r1_lightning.run.config.program import typed
from r1_lightning.run.stages.data_card import Origin, render_card, render_table
from r1_lightning.tasks.answered_file import answered_rows
from r1_lightning.tasks.decontaminate import Decontaminator, held_out_questions
from r1_lightning.types.errors import InvalidInput, require
from r1_lightning.types.processes import Processes, processes_now
from r1_lightning.types.stopping import STOP
from r1_lightning.types.tensors import Backbone

BLOCKS = "blocks"
OWN_TASK = "held-out problems of the task"
CHECKED = 4  # prompts of the self-check


def run_sampling(
    config: DictConfig, stage_name: str, folder: Path, inputs: Mapping[str, Artefact]
) -> Mapping[str, float] | None:
    """Make this process's blocks in `folder`, then the data set if no block is missing; returns None if some are.

    Raises `InvalidInput` for an input that is not a model, a reward without accuracy, shares of sources that have no rows, and a
    damaged block.
    """
    silence_warnings()
    set_up_for(config)
    settings: RejectionSampling = inject(config.stage, {})
    _check_sources(settings, inputs)
    decontaminator = _decontaminator(config, settings)
    processes = processes_now()
    absent = processes.from_main(lambda: _missing(settings.own_blocks, folder))
    if absent:
        _make_blocks(config, settings, decontaminator, folder, inputs, absent, processes)
    # The blocks of all shards, not only our own: whichever run finds none missing writes the data set.
    missing = processes.from_main(lambda: _missing(range(len(settings.blocks)), folder))
    if missing:
        print(f"{stage_name}: {len(missing)} of {len(settings.blocks)} blocks are left to other processes")
        return None
    if processes.is_main:
        with store.exclusive_lock(folder):
            # counts.json is written last: if it is there, another process has just written the whole data set.
            if not (folder / data_set.COUNTS).is_file():
                _write_data_set(config, settings, decontaminator, folder, inputs)
    # Rank 0 reads for all: a network file system may show other machines the file a while later.
    return processes.from_main(lambda: _metrics(json.loads((folder / data_set.COUNTS).read_text(encoding="utf-8"))))


def block_path(folder: Path, number: int) -> Path:
    return folder / BLOCKS / f"block-{number:05d}.jsonl"


def _missing(blocks: Iterable[int], folder: Path) -> list[int]:
    """Return the numbers of those of `blocks` that nobody has made yet."""
    return [number for number in blocks if not block_path(folder, number).is_file()]


def _check_sources(settings: RejectionSampling, inputs: Mapping[str, Artefact]) -> None:
    """Raise InvalidInput, before sampling, if two sources have one name, or a share names no source."""
    data_sets = {role: str(artefact.folder) for role, artefact in inputs.items() if artefact.files}
    for role, folder in data_sets.items():
        is_free = role not in (REASONING, *settings.sources)
        require(is_free, f"stage.inputs.{role}", folder, "another source has this name")
    require_sources(settings.shares, (REASONING, *settings.sources, *data_sets))


def _decontaminator(config: DictConfig, settings: RejectionSampling) -> Decontaminator:
    """Return the decontaminator of all benchmarks: the stage's list, and the task's own held-out problems."""
    source = instantiate(config.task.source, _convert_="all")
    questions = {OWN_TASK: held_out_questions(source, settings.held_out_questions), **benchmark_questions(settings)}
    return Decontaminator(questions, settings.contamination_ngram)


def _make_blocks(
    config: DictConfig,
    settings: RejectionSampling,
    decontaminator: Decontaminator,
    folder: Path,
    inputs: Mapping[str, Artefact],
    missing: Sequence[int],
    processes: Processes,
) -> None:
    """Make the `missing` blocks, each process its share of them and at its own pace, once all of them hold the model."""
    require("base" in inputs, "stage.inputs.base", None, "sampling needs a model")
    make = _block_maker(config, settings, decontaminator, inputs)
    own = processes.share(missing)
    made = [number for number in settings.own_blocks if number not in missing]
    with held_to_sample(_policy_of(make), config):
        STOP.together(lambda: _make_share(make, config, settings, folder, own, made), processes.any)


def _make_share(
    make: BlockMaker,
    config: DictConfig,
    settings: RejectionSampling,
    folder: Path,
    missing: Sequence[int],
    made: Sequence[int],
) -> None:
    """Make the `missing` blocks; the bar begins at those that were `made` earlier."""
    if not missing:
        return
    check_sampler(make)
    # From the first block on, also those of other processes: a problem is skipped if any earlier number had its id.
    problems = range(settings.blocks[0].start, settings.blocks[missing[-1]].stop)
    first_of: dict[str, int] = {}  # id of a problem -> the number under which it came first
    new = config.rollout.max_new_tokens
    room = PromptRoom(make.tokenizer, make.template, "model.max_positions", make.max_prompt_tokens + new, new)
    for index in problems:
        problem = make.source.train_problem(config.seed, index)
        first_of.setdefault(problem.problem_id, index)
        room.kept([problem])
    if said := room.text(make.source):
        print(said, flush=True)
    done = sum(len(settings.blocks[number]) for number in made)
    total = done + sum(len(settings.blocks[number]) for number in missing)
    copies = settings.samples
    with progress(total * copies, "sampling", "completion", done * copies) as bar:
        for number in missing:
            data_set.write_lines(block_path(folder, number), make(settings.blocks[number], first_of))
            bar.update(len(settings.blocks[number]) * copies)


def _block_maker(
    config: DictConfig, settings: RejectionSampling, decontaminator: Decontaminator, inputs: Mapping[str, Artefact]
) -> BlockMaker:
    parts = build_parts(config, inputs["base"])
    accuracy, form = what_is_right(parts, inputs, settings, config)
    # The longest prompt that leaves room for a completion at the length limit.
    room = parts["backbone"].config.max_positions - parts["rollout"].max_new_tokens
    return BlockMaker(
        settings,
        parts["source"],
        parts["generate"],
        parts["tokenizer"],
        parts["template"],
        accuracy,
        form,
        decontaminator,
        config.seed,
        room,
    )


def _policy_of(make: BlockMaker) -> Backbone | None:
    """Return the model that `make` samples from; None if another engine samples, without our cache."""
    backbone = getattr(getattr(make, "generate", None), "backbone", None)
    return backbone if isinstance(backbone, Backbone) else None


def check_sampler(make: BlockMaker) -> None:
    """Run the self-check of training stages on the first prompts: cached steps must get the log-probs of the full forward."""
    backbone = _policy_of(make)
    if backbone is None:
        return
    problems = [make.source.train_problem(make.seed, make.settings.first_problem + place) for place in range(CHECKED)]
    prompts = make.tokenizer.encode_prompts(make.template, [problem.question for problem in problems])
    if (line := SelfCheck().of_prompts(backbone, prompts, make.tokenizer.pad_id)) is not None:
        print(line)


def records(settings: RejectionSampling, folder: Path) -> Iterator[Record]:
    """Yield all records, problem by problem. `InvalidInput` names a damaged block."""
    for number, block in enumerate(settings.blocks):
        path = block_path(folder, number)
        found = list(data_set.read_lines(path))
        if [record.get("index") for record in found] != list(block):
            raise InvalidInput(
                f"{path} is damaged: it should hold problems {block.start} to {block.stop - 1}; remove it"
            )
        yield from found


def _write_data_set(
    config: DictConfig,
    settings: RejectionSampling,
    decontaminator: Decontaminator,
    folder: Path,
    inputs: Mapping[str, Artefact],
) -> None:
    """Write the parts, the card and, last, the counts; files of a killed run are written again."""
    # Two passes over the records: the size of each source's share is known only after all kept rows are counted.
    counts = Counts()
    for record in records(settings, folder):
        counts.add(in_form(record, settings.rewrite_as))
    others, leaked = _other_rows(settings, decontaminator, inputs)
    available = {REASONING: counts.fates[KEPT], **{name: len(rows) for name, rows in others.items()}}
    if not sum(available.values()):
        fates = ", ".join(f"{fate}: {number}" for fate, number in counts.fates.items() if number) or "none was drawn"
        raise InvalidInput(
            f"stage.rules keep none of {counts.total['samples']} samples ({fates}); is the model trained?"
        )
    wanted = sizes(available, settings.shares)
    taken = {name: chosen(name, available[name], wanted[name], config.seed) for name in available}

    def rows() -> Iterator[Row]:
        number = 0
        for record in records(settings, folder):
            for row in rows_of(in_form(record, settings.rewrite_as)):
                if number in taken[REASONING]:
                    yield row
                number += 1
        for name, given in others.items():
            yield from (row for number, row in enumerate(given) if number in taken[name])

    for path in data_set.parts_of(folder):  # a killed run may have left more parts than this one writes
        path.unlink()
    written = RowCounts()
    data_set.write_parts(folder, written.counted(rows()))
    summary = {
        **counts.summary(),
        "data_set": written.summary(),
        "sources": {
            name: {"available": available[name], "contaminated": leaked.get(name, 0), "rows": wanted[name]}
            for name in available
        },
        "rows": sum(wanted.values()),
        "benchmarks": decontaminator.n_questions,
    }
    origin = Origin(
        command=typed(),
        fingerprint=store.digits_of(folder),
        commit=lineage.commit(),
        inputs={role: lineage.render(source) for role, source in inputs.items()},
    )
    store.write_text(folder / data_set.CARD, render_card(summary, settings, origin))
    store.write_text(folder / store.TABLE, render_table(summary) + "\n")
    store.write_json(folder / data_set.COUNTS, summary)  # last: it marks the data set as complete (`run_sampling`)


def _other_rows(
    settings: RejectionSampling, decontaminator: Decontaminator, inputs: Mapping[str, Artefact]
) -> tuple[dict[str, list[Row]], dict[str, int]]:
    """Return the rows of files (`stage.sources`) and of data-set inputs by name, and the numbers of contaminated rows left out."""
    given: dict[str, Any] = {name: source.rows for name, source in settings.sources.items()}
    for role, artefact in inputs.items():
        if artefact.files:
            given[role] = list(answered_rows(data_set.parts_of(artefact.folder), role))
    cleaned = {name: uncontaminated_rows(name, rows, decontaminator.leak) for name, rows in given.items()}
    return {name: rows for name, (rows, _) in cleaned.items()}, {
        name: left_out for name, (_, left_out) in cleaned.items()
    }


def _metrics(counts: Mapping[str, Any]) -> dict[str, float]:
    names = ("rows", "problems", "samples", "right", "kept")
    return {
        **{f"sample/{name}": float(counts[name]) for name in names},
        **({} if counts["pass_rate"] is None else {"sample/pass_rate": counts["pass_rate"]}),
    }
