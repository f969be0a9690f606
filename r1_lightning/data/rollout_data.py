"""RL data: grouped rollouts, sampled at the very step that trains on them.

The data set's item for step n is a minibatch. At every step that is a multiple of `minibatches_per_rollout` the policy
samples a new rollout; the steps in between use its remaining minibatches. Problems come from the endless training stream of
(seed, index), so seed, rollout number and weights determine a rollout. Checkpoints hold only the rollout in use, because the
weights that sampled it are gone.

Processes sample a rollout together, each its share of the problems, and every one of them holds the whole of it: in training each
takes its share of the rows of every minibatch, and a run may resume with another number of processes.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from dataclasses import asdict, fields, replace
from functools import cached_property
from typing import Any, ClassVar

import lightning as L
from lightning.pytorch.utilities import rank_zero_only
from tqdm import tqdm

from r1_lightning.artefacts.progress import settings_for
from r1_lightning.data.step_loader import StepLoader
from r1_lightning.rewards.combine import WeightedSum
from r1_lightning.rollout.collate import micro_batches
from r1_lightning.rollout.dynamic_sampling import until_informative
from r1_lightning.rollout.groups import RolloutConfig, RolloutMaker, completion_texts
from r1_lightning.rollout.results import Rollout
from r1_lightning.rollout.room import PromptRoom
from r1_lightning.rollout.row_shares import share_of_rows
from r1_lightning.text.chat_template import ChatTemplate
from r1_lightning.text.tokenizer import TextTokenizer
from r1_lightning.types.processes import ONE, Processes
from r1_lightning.types.tensors import Drafts, GenerateFn, Generation, GRPOBatch
from r1_lightning.types.text import Need, Problem, ProblemSource, ScheduledSource
from r1_lightning.types.value_targets import ValueTargets

SHOWN_AFTER_S = 5.0  # no progress bar for shorter work


class RolloutDataset:
    """The micro-batches of steps 0 .. max_steps - 1, `rollout.micro_batches` for each step.

    `optimizer_steps()` returns the number of steps that the policy has taken, to check that no rollout is stale.
    """

    def __init__(
        self, maker: RolloutMaker, source: ProblemSource, seed: int, max_steps: int, optimizer_steps: Callable[[], int]
    ) -> None:
        self.maker = maker
        self.source = source
        self.seed = seed
        self.max_steps = max_steps
        self.optimizer_steps = optimizer_steps
        self.rollout: Rollout | None = None
        self.micro_batches: list[GRPOBatch] = []

    def __len__(self) -> int:
        return self.max_steps * self.maker.config.micro_batches

    def __getitem__(self, item: int) -> GRPOBatch:
        config = self.maker.config
        number, place = divmod(item, config.minibatches_per_rollout * config.micro_batches)
        # A resumed run has loaded the rollout in use and goes on with its remaining minibatches.
        if self.rollout is None or self.rollout.number != number:
            self._use(self._new_rollout(number, item // config.micro_batches))
        return self.micro_batches[place]

    @cached_property
    def room(self) -> PromptRoom:
        """The check that a prompt leaves room for a completion in its row."""
        config, maker = self.maker.config, self.maker
        limits = ("rollout.row_tokens", config.row_tokens, config.longest_completion)
        return PromptRoom(maker.tokenizer, maker.template, *limits)

    def check_prompts(self) -> str:
        """Check every prompt of the whole run; returns a line about those that leave no room for a completion (`rollout/room.py`).

        Raises `InvalidInput` if most prompts leave no room.
        """
        config = self.maker.config
        rollouts = math.ceil(self.max_steps / config.minibatches_per_rollout)
        draws = range(rollouts * config.dynamic_sampling_attempts)
        shown = settings_for(sys.stderr)
        for drawn in tqdm(draws, desc="reading prompts", unit="rollout", delay=SHOWN_AFTER_S, **shown):
            self.problems(drawn)
        return self.room.check(self.source)

    def _new_rollout(self, number: int, step: int) -> Rollout:
        # Lightning may prefetch batches; a rollout sampled early would come from older weights than the ones it trains.
        taken = self.optimizer_steps()
        if taken != step:
            raise RuntimeError(f"rollout for step {step} asked for after {taken} optimizer steps: it would be stale")
        config = self.maker.config
        attempts = config.dynamic_sampling_attempts

        def draw(attempt: int) -> Rollout:
            # Problems and draws belong to (rollout, attempt), so that a resumed run asks for the same ones.
            drawn = number * attempts + attempt
            return replace(self.maker(drawn, step, self.problems(drawn)), number=number)

        if attempts == 1:
            return draw(0)
        pad_id = self.maker.tokenizer.pad_id
        return until_informative(draw, config.prompts_per_rollout, attempts, pad_id, config.train_on_truncated)

    def problems(self, drawn: int) -> list[Problem]:
        """Return the `prompts_per_rollout` problems of draw number `drawn`, each with room for a completion.

        A source that changes with the optimizer step gives the problems of the step at which the rollout begins.
        """
        config, source = self.maker.config, self.source
        # By the rollout's first step, not the current one, so that `check_prompts` sees the problems that training will.
        if isinstance(source, ScheduledSource):
            rollout = drawn // config.dynamic_sampling_attempts
            source = source.at_step(rollout * config.minibatches_per_rollout)
        count = config.prompts_per_rollout
        return self.room.problems(source, self.seed, range(drawn * count, (drawn + 1) * count))

    def _use(self, rollout: Rollout) -> None:
        self.rollout = rollout
        parts = micro_batches(rollout, self.maker.config, self.seed, self.maker.tokenizer.pad_id)
        self.micro_batches = [share_of_rows(part, self.maker.processes) for part in parts]

    def state_dict(self) -> dict[str, Any]:
        """The rollout in use, as plain tensors, numbers and text, because checkpoints are loaded without pickled classes."""
        rollout = self.rollout
        if rollout is None:
            return {}
        return {
            "problems": [asdict(problem) for problem in rollout.problems],
            "number": rollout.number,
            "policy_version": rollout.policy_version,
            "generation": {item.name: getattr(rollout.generation, item.name) for item in fields(Generation)},
            "rewards": rollout.rewards,
            "parts": dict(rollout.parts),
            "advantages": rollout.advantages,
            "drawn_groups": rollout.drawn_groups,
            "drafts": asdict(rollout.drafts),
            "timeouts": rollout.timeouts,
            "reasons": {name: list(why) for name, why in rollout.reasons.items()},
            "targets": dict(vars(rollout.targets)) if rollout.targets else None,
            "metrics": dict(rollout.metrics),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if not state:
            return
        # Prompts and texts are not stored: they follow from the problems and the token ids.
        problems = [Problem(**problem) for problem in state["problems"]]
        maker = self.maker
        generation = Generation(**state["generation"])
        self._use(
            Rollout(
                problems=problems,
                prompts=maker.prompts(problems),
                texts=completion_texts(generation, maker.tokenizer),
                generation=generation,
                rewards=state["rewards"],
                parts=state["parts"],
                timeouts=state.get("timeouts", 0),  # checkpoints made before there was a verifier lack them
                reasons=state.get("reasons", {}),
                advantages=state["advantages"],
                number=state["number"],
                policy_version=state["policy_version"],
                drawn_groups=state["drawn_groups"],
                drafts=Drafts(**state.get("drafts", {})),  # and those made before there were drafts, these
                form=maker.template.form,
                targets=ValueTargets(**state["targets"]) if state.get("targets") else None,
                metrics=state.get("metrics", {}),
            )
        )


class GroupedRolloutsDataModule(L.LightningDataModule):
    """Serves a `RolloutDataset` to the Trainer it is attached to; `dataset.rollout` is the rollout in use."""

    batch_type = GRPOBatch
    needs: ClassVar[tuple[Need, ...]] = ("problems",)

    def __init__(
        self,
        source: ProblemSource,
        tokenizer: TextTokenizer,
        template: ChatTemplate,
        generate: GenerateFn,
        reward: WeightedSum,
        rollout: RolloutConfig,
        seed: int,
        max_steps: int,
        processes: Processes = ONE,
    ) -> None:
        super().__init__()
        maker = RolloutMaker(generate, tokenizer, template, reward, rollout, processes)
        self.dataset = RolloutDataset(maker, source, seed, max_steps, self._optimizer_steps)

    @property
    def micro_batches(self) -> int:
        """How many batches the Trainer accumulates for one optimizer step."""
        return self.dataset.maker.config.micro_batches

    def _optimizer_steps(self) -> int:
        assert self.trainer is not None, "the data module is not attached to a Trainer yet"
        return self.trainer.global_step

    def setup(self, stage: str) -> None:
        said = self.dataset.check_prompts()  # before training, not at the step that meets the longest prompt
        if said:
            rank_zero_only(print)(said, flush=True)

    def train_dataloader(self) -> StepLoader:
        return StepLoader(self.dataset)
