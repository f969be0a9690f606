"""Periodic evaluation during training: held-out accuracy and validation loss over steps; keeps the best weights.

The measurement is injected (`run.stages.periodic`), so stages know nothing of it. It samples with random keys of its own and
updates no weight, so the final weights are the same bits with and without it. It takes time, and prints how much.

A signal cuts a measurement short: the step is saved all the same, and the same command measures it before its next step.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import lightning as L
import torch
from torch import nn

from r1_lightning.artefacts.weights import save_by_main
from r1_lightning.types.errors import Stopped, require, require_int
from r1_lightning.types.stopping import STOP

# A Measure maps a stage's module to values by name; a MakeMeasure builds one from (number of problems, samples of each).
Measure = Callable[[L.LightningModule], dict[str, float]]
MakeMeasure = Callable[[int, int], Measure]
SECONDS = "perf/evaluation_s"
BEST = "best.safetensors"  # in the artefact's folder
LOWER_IS_BETTER = "loss"  # suffix of the names of which the lowest value is best; of all others it is the highest


class Evaluation(L.Callback):
    """Evaluates every `every_steps` optimizer steps (null: never) on `problems` held-out problems, `samples` completions each.

    With `best`, the name of a measure, it also keeps the weights with the best value so far in best.safetensors; the
    artefact's own weights remain those of the last step. At the end of pre-training, and at every evaluation, `text_rows` rows of
    text that it has not seen are predicted (`run/stages/held_out_text.py`); 0: none.
    """

    def __init__(
        self,
        every_steps: int | None = None,
        problems: int = 100,
        samples: int = 1,
        best: str | None = None,
        text_rows: int = 0,
        make_measure: MakeMeasure | None = None,
        folder: Path | None = None,
    ) -> None:
        if every_steps is not None:
            require_int("callbacks.evaluation.every_steps", every_steps, 1)
        require_int("callbacks.evaluation.problems", problems, 1)
        require_int("callbacks.evaluation.samples", samples, 1)
        require_int("callbacks.evaluation.text_rows", text_rows, 0)
        is_measure = best is None or best.startswith("val/")
        require(
            is_measure,
            "callbacks.evaluation.best",
            best,
            "it must be a measure such as val/arithmetic/pass_at_1 or val/loss",
        )
        self.every_steps, self.best = every_steps, best
        self.measure: Measure | None = None
        if every_steps is not None and make_measure is not None:
            self.measure = make_measure(problems, samples)
        self.folder = folder
        self.last_step, self.started_s, self.is_first = 0, 0.0, True
        self.logged: set[str] = set()
        self.best_value: float | None = None
        self.best_step = 0
        self.due_step = 0  # the step whose measurement was cut short; 0 if none was

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self.last_step, self.started_s = trainer.global_step, time.monotonic()
        if trainer.global_step > 0:
            self.catch_up(trainer, module, trainer.global_step)

    def catch_up(self, trainer: L.Trainer, module: L.LightningModule, step: int) -> dict[str, float]:
        """Measure `module` after `step`, if that was cut short in an earlier process; returns what was measured."""
        if self.measure is None or self.due_step != step:
            return {}
        values = self._measured(module, self.measure, step)
        logged = {name: float(torch.tensor(value)) for name, value in values.items()}  # in FP32, as Lightning logs them
        for (
            logger
        ) in trainer.loggers:  # the step's own row is on disk already: a logger that can puts the values into it
            getattr(logger, "amend", logger.log_metrics)(logged, step - 1)
        self._keep(trainer, module, values, step)
        self.due_step = 0
        return logged

    def on_train_batch_start(self, trainer: L.Trainer, *_: Any) -> None:
        """Remove earlier measurements from Lightning's results: it would log them again at every step that follows."""
        results: dict[str, Any] = trainer._results or {}
        for key in [key for key in results if key.partition(".")[2] in self.logged]:
            del results[key]

    def on_train_batch_end(self, trainer: L.Trainer, module: L.LightningModule, *_: Any) -> None:
        step, before = trainer.global_step, self.last_step
        self.last_step = step
        # This hook runs after every micro-batch; the weights move only when the optimizer step count does.
        if self.measure is None or self.every_steps is None or step == before:
            return
        # The last step counts, too: the best weights may be the final ones.
        if step % self.every_steps == 0 or step == trainer.max_steps:
            try:
                values = self._measured(module, self.measure, step)
            except Stopped:
                self.due_step = step
                if STOP.twice:
                    raise
                return
            module.log_dict(values, batch_size=1)
            self.logged.update(values)
            self._keep(trainer, module, values, step)

    def _measured(self, module: L.LightningModule, measure: Measure, step: int) -> dict[str, float]:
        # The mode is restored module by module: module.train() would also switch frozen parts that were in eval mode.
        began_s, modes = time.monotonic(), [(part, part.training) for part in module.modules()]
        module.eval()
        try:
            # torch's global generator is put back afterwards, else training would draw other numbers than without evaluation.
            with torch.no_grad(), torch.random.fork_rng(devices=[]):
                values = measure(module)
        finally:
            for part, was_training in modes:
                part.training = was_training
        return {**values, SECONDS: time.monotonic() - began_s}

    def _keep(self, trainer: L.Trainer, module: L.LightningModule, values: dict[str, float], step: int) -> None:
        """Keep the weights if they are the best so far; say once how long a measurement takes."""
        self._keep_best(trainer, module, values, step)
        if self.is_first:  # one line is enough for a person to choose another `every_steps`
            self.is_first = False
            seconds = values[SECONDS]
            share = seconds / max(time.monotonic() - self.started_s, 1e-9)
            print(
                f"evaluation after step {step}: {seconds:.1f} s, {share:.0%} of the time so far; "
                f"callbacks.evaluation.every_steps={self.every_steps}",
                flush=True,
            )

    def _keep_best(self, trainer: L.Trainer, module: L.LightningModule, values: dict[str, float], step: int) -> None:
        if self.best is None:
            return
        if self.best not in values:  # the callbacks apply to input stages as well, and those may have other measures
            if self.is_first:
                print(
                    f"best weights are not kept: {self.best} is not among {', '.join(sorted({*values} - {SECONDS}))}",
                    flush=True,
                )
            return
        value, is_lower_better = values[self.best], self.best.endswith(LOWER_IS_BETTER)
        old = self.best_value  # on a tie the earlier weights stay
        if math.isnan(value):  # nothing is better than it, and it is better than nothing
            return
        if old is not None and not (value < old if is_lower_better else value > old):
            return
        self.best_value, self.best_step = value, step
        if self.folder is not None:
            save_by_main(cast(nn.Module, module.backbone), self.folder / BEST, trainer.is_global_zero)

    def state_dict(self) -> dict[str, Any]:
        return {"best_value": self.best_value, "best_step": self.best_step, "due_step": self.due_step}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.best_value, self.best_step = state["best_value"], state["best_step"]
        if self.best_value is not None and math.isnan(self.best_value):
            self.best_value = None
        self.due_step = state.get("due_step", 0)  # checkpoints made before it was noted lack it
