"""Which samples of held-out evaluations a run writes down, and where: `evaluations.jsonl`, bounded as the file of rollouts is.

A run has one of these. It keeps nothing until `open` is called, which the callback does that writes the rollouts down; so an
evaluation of another command, and a run without that callback, cost nothing more.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

from r1_lightning.review.record_file import RecordFile
from r1_lightning.review.rollout_records import EVALUATIONS, RolloutRecord
from r1_lightning.types.errors import InvalidInput

END = "eval"  # the evaluation of the finished stage, beside "val" during training
LAST = 2**40  # its block's number: after those of all steps, and in every spacing
BLOCK_BYTES = 40  # of a line, for the number of its block


class EvaluationRecords:
    """Keeps the samples of `problems` problems of an evaluation, evenly chosen, once it is open."""

    def __init__(self) -> None:
        self.file: RecordFile | None = None
        self.problems = 0

    def open(self, folder: Path, problems: int, limit: int) -> None:
        """Keep `problems` problems of each evaluation in `folder`, in at most `limit` bytes."""
        self.file, self.problems = RecordFile(folder / EVALUATIONS, limit), problems

    def chosen(self, count: int) -> list[int]:
        """Return the numbers of the problems that are kept of `count`; none before `open`."""
        return evenly(count, self.problems)

    def write(self, step: int, name: str, records: Sequence[RolloutRecord]) -> None:
        """Write the records of the evaluation `name` after `step`. If that is not possible, say so and keep no more."""
        if self.file is None or not records:
            return
        most = self.file.most_block_bytes // len(records) - BLOCK_BYTES
        try:
            self.file.add(LAST if name == END else step, [record.line(most) for record in records])
        except (InvalidInput, OSError) as error:
            warnings.warn(
                f"evaluation records: {' '.join(str(error).split())}; the run goes on without them", stacklevel=2
            )
            self.file = None


def evenly(count: int, wanted: int) -> list[int]:
    """Return `wanted` places of `count`, evenly spaced from the first on; all if there are no more."""
    return list(range(count)) if wanted >= count else [number * count // wanted for number in range(wanted)]
