"""TensorBoard as a person reads it: a layout of the curves, the settings beside the final measures, no chart of a single dot.

- **Custom Scalars** shows the curves in groups (`board_layout`), over the band that the experiment is expected to stay in.
- **HParams** has a row per run, with the settings that decide a result and the measures of the trained model. Those are single
  values: as curves they would be a dot each. TensorBoard takes them only as settings of a run, which is what they stand among.
- **Text** has the results' table and completions (`callbacks/sample_texts.py`).
- `epoch`, which Lightning adds and which is 0 throughout, is left out.

Layout and settings are written once: a process that resumes a run looks for them in the files of earlier ones.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from textwrap import wrap
from typing import Any

from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig, OmegaConf

from r1_lightning.artefacts.file_names import DECIDING_GROUPS
from r1_lightning.callbacks.sample_texts import as_code
from r1_lightning.run.stages.board_layout import high_name, layout, low_name

EPOCH = "epoch"
LAYOUT_TAG = "custom_scalars__config__"  # as TensorBoard's plugins name them
SETTINGS_TAG = "_hparams_/session_start_info"
UNTOLD = ("inputs", "parent_overrides", "evaluation")  # of the stage: what is made before and measured after
OWN = "r1_lightning."  # begins the name of a class of ours, of which the last word is enough
LONGEST = 100  # characters of a setting that is shown

# The ends of names of which the first that was measured is the result; its column stands first, as capitals sort before the rest.
MAIN = ("/pass_at_1", "/pair_accuracy", "/bits_per_token")
RESULT = "Result"
WIDTH = 110  # characters of a line in the tab Text

# Name of a curve -> step -> (low, high): where it is expected.
Bands = Mapping[str, Mapping[int, tuple[float, float]]]


class Board(TensorBoardLogger):
    """Lightning's logger of TensorBoard, in an order for people.

    `settings` are shown beside the run's results; `evaluates` says that values `val/...` will come, `bands` where
    curves are expected.
    """

    def __init__(
        self,
        save_dir: str = ".",
        name: str = "",
        version: str = "tensorboard",
        settings: Mapping[str, float | str] | None = None,
        evaluates: bool = False,
        bands: Bands | None = None,
        **more: Any,
    ) -> None:
        super().__init__(save_dir, name=name, version=version, **more)
        self.settings, self.evaluates, self.bands = dict(settings or {}), evaluates, dict(bands or {})
        self.is_laid_out = False

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log a step's curves, and where they are expected at that step; before the first, their layout."""
        shown = {name: value for name, value in metrics.items() if name != EPOCH}
        for name in shown.keys() & self.bands.keys():
            if step is not None and step in self.bands[name]:
                shown[low_name(name)], shown[high_name(name)] = self.bands[name][step]
        if not self.is_laid_out and EPOCH in metrics:  # else it is no step of the Trainer, which has all curves
            self.is_laid_out = True
            if not self._is_written(LAYOUT_TAG):
                self.experiment.add_custom_scalars(layout(shown, self.evaluates, self.bands))
                self.experiment.flush()
        super().log_metrics(shown, step)

    @rank_zero_only
    def log_results(self, measured: Mapping[str, float], table: str, step: int) -> None:
        """Log the measures of the trained model beside the run's settings, and their table as text."""
        from torch.utils.tensorboard.summary import hparams

        finite = {name: float(value) for name, value in measured.items() if math.isfinite(value)}
        if not self._is_written(SETTINGS_TAG):
            _, start, end = hparams({**main_result(finite), **finite, **self.settings}, {})
            writer = self.experiment._get_file_writer()  # opened again: the Trainer closed it after its last step
            for summary in (start, end):  # not the first, which would hide the settings of other stages
                writer.add_summary(summary)
        if table:
            lines = [part for line in table.split("\n") for part in wrap(line, WIDTH, drop_whitespace=False) or [""]]
            self.experiment.add_text("results", as_code("\n".join(lines)), step)
        self.finalize("success")

    def _is_written(self, tag: str) -> bool:
        """True if a file of this run, of this process or an earlier one, holds `tag`."""
        self.experiment.flush()
        files = Path(self.log_dir).glob("events.out.tfevents.*")
        return any(tag.encode() in path.read_bytes() for path in files)


def main_result(measured: Mapping[str, float]) -> dict[str, float]:
    """Return the measure that a run is compared by, of the trained model, under a name that stands first; empty without one."""
    own = [name for name in measured if name.startswith("eval/")]
    names = [name for end in MAIN for name in own if name.endswith(end)]
    return {f"{RESULT}: {name}": measured[name] for name in names[:1]}


def settings_of(config: DictConfig) -> dict[str, float | str]:
    """Return the settings that decide the result, by dotted name: numbers and short words; a class by its short name."""
    groups = {name: config.get(name) for name in DECIDING_GROUPS}
    plain = OmegaConf.to_container(OmegaConf.create(groups), resolve=True)
    return {"seed": config.get("seed", 0), **dict(_leaves(plain))}


def _leaves(node: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, float | str]]:
    if isinstance(node, dict):
        for key, value in node.items():
            if key not in UNTOLD:
                yield from _leaves(value, path if key == "_target_" else (*path, str(key)))
    elif isinstance(node, bool | int | float):
        yield ".".join(path), node
    elif isinstance(node, str) and 0 < len(node) <= LONGEST:
        yield ".".join(path), node.rpartition(".")[2] if node.startswith(OWN) else node
