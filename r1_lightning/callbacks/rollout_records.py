"""Writes down sampled completions while a stage trains: a sample of all rollouts, the newest, and held-out evaluations.

    rollouts.jsonl          `groups` groups of every so many rollouts, evenly spaced over the run; at most `megabytes`
    rollouts_newest.jsonl   the newest rollout, whole if half of that holds it; written when training ends, for whatever reason
    evaluations.jsonl       `evaluation_problems` problems of each evaluation of problems (`review/evaluation_records.py`); as large

`review/rollout_records.py` says what a record holds and reads them. The policy's log-probs and entropies are those that the
training step has computed anyway; they stay where they are until the step has ended. Then the main process gathers those of all
processes, and writes.

A rollout is written after its last step, before that step's checkpoint, and what belongs to steps that a resumed run takes again is
written anew (`review/record_file.py`), so an interrupted run leaves the same records.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from r1_lightning.artefacts.files import replacing
from r1_lightning.callbacks.recorded import TokenTexts, records_of
from r1_lightning.review.evaluation_records import EvaluationRecords, evenly
from r1_lightning.review.record_file import RecordFile
from r1_lightning.review.rollout_records import NEWEST, ROLLOUTS, TOKEN_BYTES
from r1_lightning.rollout.collate import minibatch_rows
from r1_lightning.rollout.results import Rollout
from r1_lightning.types.errors import InvalidInput, require_int
from r1_lightning.types.processes import ONE, Processes

RECORD_BYTES = 800  # of a line, about, beside its tokens and twice its text
NEWEST_PART = 2  # the newest rollout may take as much as this part of the file of all others
BLOCK_BYTES = 30  # of a line, for the number of its block


class RolloutRecords(L.Callback):
    """Records `groups` groups of sampled rollouts, the newest rollout whole, and `evaluation_problems` of each evaluation.

    Without a `folder` it does nothing. The run's `evaluation_records` are opened, for evaluations during training and at its end.
    """

    def __init__(
        self,
        groups: int = 4,
        megabytes: int = 16,
        evaluation_problems: int = 50,
        folder: Path | None = None,
        evaluation_records: EvaluationRecords | None = None,
        processes: Processes = ONE,
    ) -> None:
        require_int("callbacks.rollout_records.groups", groups, 1)
        require_int("callbacks.rollout_records.megabytes", megabytes, 1, 128)
        require_int("callbacks.rollout_records.evaluation_problems", evaluation_problems, 1)
        self.groups = groups
        self.folder = folder
        self.file = None if folder is None else RecordFile(folder / ROLLOUTS, megabytes * 10**6)
        if folder is not None and evaluation_records is not None:
            evaluation_records.open(folder, evaluation_problems, megabytes * 10**6)
        self.number = -1  # of the rollout in use
        self.rollout: Rollout | None = None
        self.whole: list[int] = []  # the rows that are kept of it
        self.scored: dict[int, Tensor] = {}  # by row: log-probs and entropies of its update, 2 x length
        self.step_parts: list[tuple[Tensor, Tensor, Tensor]] = []
        self.processes = processes
        self.dataset: Any = None  # a `RolloutDataset`; None in other stages
        self.module: Any = None
        self.texts: TokenTexts | None = None
        self.last_step, self.is_done = 0, True  # is_done: all steps of the rollout in use are taken
        self.has_failed = False

    def on_train_start(self, trainer: L.Trainer, module: Any) -> None:
        self.last_step = trainer.global_step
        dataset: Any = getattr(getattr(trainer, "datamodule", None), "dataset", None)
        records = dataset is not None and hasattr(module, "on_scored")
        if self.folder is None or not records:
            return
        self.dataset, self.texts, self.module = dataset, TokenTexts(dataset.maker.tokenizer), module
        module.on_scored = lambda *columns: self.step_parts.append(columns)
        with self._writing() as is_on:
            if is_on:
                (self.folder / NEWEST).unlink(missing_ok=True)

    def on_train_batch_start(self, *_: Any) -> None:
        rollout: Rollout | None = getattr(self.dataset, "rollout", None)
        if rollout is None or rollout is self.rollout:
            return
        if rollout.number != self.number or self.is_done:  # else a resumed run goes on with it
            self.number, self.scored, self.is_done = rollout.number, {}, False
        assert self.file is not None
        self.rollout = rollout
        self.whole = rows_of_groups(rollout, whole_groups(rollout, self.file.limit // NEWEST_PART))

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        step, before = trainer.global_step, self.last_step
        self.last_step = step
        if step == before or self.rollout is None:  # between two micro-batches of a step
            return
        self._collect(before)
        self.is_done = step == (self.number + 1) * self.dataset.maker.config.minibatches_per_rollout
        if self.is_done:
            self._write()

    def on_train_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self._end()

    def on_exception(self, trainer: L.Trainer, module: L.LightningModule, exception: BaseException) -> None:
        self._end()

    def state_dict(self) -> dict[str, Any]:
        """The numbers of a rollout in use, of which a resumed run takes the remaining steps only."""
        return {} if self.is_done else {"number": self.number, "scored": self.scored}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if state:
            self.number, self.scored, self.is_done = state["number"], dict(state["scored"]), False

    def _collect(self, step: int) -> None:
        """Keep what the training step computed of the rows that are recorded."""
        assert self.rollout is not None and self.dataset is not None
        parts, self.step_parts = self.step_parts, []
        config = self.dataset.maker.config
        per_rollout, n_rows = config.minibatches_per_rollout, self.rollout.rewards.numel()
        shuffled = minibatch_rows(self.dataset.seed, self.number, n_rows, per_rollout, config.dealt_together)
        rows, wanted = shuffled[step - self.number * per_rollout].tolist(), set(self.whole)
        found: list[int] = []
        tables: list[Tensor] = [torch.zeros(2, 0)]
        for sequence_C, logprobs_C, entropies_C in parts:
            table_2C = torch.stack([logprobs_C.float(), entropies_C.float()]).cpu()
            sequences, lengths = sequence_C.cpu().unique_consecutive(return_counts=True)
            for sequence, numbers in zip(sequences.tolist(), table_2C.split(lengths.tolist(), 1), strict=True):
                if rows[sequence] in wanted:
                    found.append(rows[sequence])
                    tables.append(numbers)
        # Each process has computed its share of the rows. One tensor: a pickle of hundreds would take most of the time of this.
        share = found, [table.shape[1] for table in tables[1:]], torch.cat(tables, 1)
        for theirs, lengths_of, table_2C in self.processes.collect(share):
            self.scored.update(zip(theirs, map(Tensor.clone, table_2C.split(lengths_of, 1)), strict=True))

    def _write(self) -> None:
        """Add the rollout in use to the file, if it is one of those that are kept."""
        assert self.file is not None and self.rollout is not None
        groups, most = sorted({row // self.rollout.group_size for row in self.whole}), self.file.most_block_bytes
        fitting = min(self.groups, len(whole_groups(self.rollout, most)))
        rows = rows_of_groups(self.rollout, [groups[place] for place in evenly(len(groups), fitting)])
        with self._writing() as is_on:
            if is_on and self.file.wants(self.number):
                self.file.add(self.number, self._lines(rows, most))

    def _end(self) -> None:
        """Write the newest rollout, whole, and record no more."""
        with self._writing() as is_on:
            if is_on and self.rollout is not None and self.folder is not None and self.file is not None:
                with replacing(self.folder / NEWEST) as temporary:
                    temporary.write_bytes(b"".join(self._lines(self.whole, self.file.limit // NEWEST_PART)))
        if self.module is not None:
            self.module.on_scored = None
        self.rollout = self.dataset = self.module = None

    def _lines(self, rows: Sequence[int], most_bytes: int) -> list[bytes]:
        """Return the lines of these completions, of at most `most_bytes` together, each of its equal part."""
        assert self.rollout is not None and self.texts is not None
        most = most_bytes // len(rows) - BLOCK_BYTES
        weights = self.dataset.maker.reward.weights
        given = (self.rollout, rows, weights, self.texts, self.scored, most // TOKEN_BYTES)
        return [record.line(most) for record in records_of(*given)]

    @contextmanager
    def _writing(self) -> Iterator[bool]:
        """Yield whether this process writes, and go on without records where they cannot be written: they only show what was done.

        The process goes on taking part in the calls of all processes.
        """
        try:
            yield self.processes.is_main and not self.has_failed
        except (InvalidInput, OSError) as error:
            self.has_failed = True
            rank_zero_warn(f"rollout records: {' '.join(str(error).split())}; training goes on without them")


def rows_of_groups(rollout: Rollout, groups: Sequence[int]) -> list[int]:
    """Return the rows of all completions of these groups."""
    size = rollout.group_size
    return [group * size + sample for group in groups for sample in range(size)]


def whole_groups(rollout: Rollout, most_bytes: int) -> list[int]:
    """Return the groups that about `most_bytes` of records hold, evenly spaced; at least one."""
    tokens = int(rollout.generation.completion_mask.sum())
    letters = sum(map(len, rollout.texts))
    of_all = RECORD_BYTES * len(rollout.texts) + TOKEN_BYTES * tokens + 2 * letters
    groups = len(rollout.prompts)
    return evenly(groups, max(1, most_bytes * groups // of_all))
