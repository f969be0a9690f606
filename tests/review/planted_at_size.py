"""Plants faults in the miniature experiment itself, as a person would type them, and says what a review calls each of them.

    python tests/review/planted_at_size.py [--base FOLDER] [--root FOLDER] [--steps 40] [NAME ...]

Without `--base` the base is pre-trained first. Two idle cores take about 8 minutes for it and 2 for each run of 40 steps, together
about 35. The exit code is 1 if a fault is not named, or the healthy run is called anything but as expected.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from subprocess import CalledProcessError

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # as a program: the checkout, installed or not

from r1_lightning.review.verdict import Review, review
from r1_lightning.run.commands.report_runs import train
from r1_lightning.types.errors import InvalidInput

HEALTHY = "healthy"
# What is typed, and one of the words that the review must say of it: a rule, a curve or a setting.
FAULTS: dict[str, tuple[str, tuple[str, ...]]] = {
    HEALTHY: ("", ("as expected",)),
    "reward always 0": ("reward.weights.accuracy=0.0 reward.weights.format=0.0", ("reward flat",)),
    "length limit far too small": ("rollout.max_new_tokens=8", ("truncated completions",)),
    "learning rate x 100": ("optim.lr=0.01", ("steps too large", "reward fallen", "clipped share", "differs here")),
    "learning rate / 100": ("optim.lr=0.000001", ("differs here",)),
    "KL off": ("stage.objective.kl_coef=0.0", ("stage.objective.kl_coef=0.0 (0.001)",)),
    "reference follows the policy": ("stage.reference_refresh_steps=1", ("no KL divergence",)),
    "greedy sampling": ("rollout.sampling_temperature=0.02", ("zero-variance groups",)),
    "rewards turned round": ("reward.weights.accuracy=-1.0 reward.weights.format=-1.0", ("differs here",)),
    "only the form is rewarded": ("reward.weights.accuracy=0.0", ("differs here",)),
    "wrong template": ("task.template=r1", ("differs here", "reward flat")),
    "base hardly trained": ("!", ("differs here", "reward flat")),
    "half of each prompt's samples": ("rollout.group_size=2", ("rollout.group_size=2 (16)",)),
}
WORDS = ("experiment=r1_zero_tiny", "stage.evaluation=null", "logger=none")
HARDLY = ("stage=pretrain", "stage.max_steps=60", "callbacks.evaluation.text_rows=0", "logger=none")


def told(found: Review) -> str:
    """All that a review says: its sentence, the settings that differ, and every rule."""
    return "; ".join([found.verdict.sentence, *found.unlike, *(one.name for one in found.advisories)])


def run(name: str, base: Path, root: Path, steps: int) -> bool:
    """Run one fault, print what is said of it, and return whether that is enough."""
    typed, enough = FAULTS[name]
    if typed == "!":
        hardly, _ = train(HARDLY, root)
        typed, base = "", hardly.folder
    words = [*WORDS, f"stage.max_steps={steps}", f"init_from={base}", *typed.split()]
    artefact, seconds = train(words, root)
    said = told(review(artefact.folder))
    is_named = any(word in said for word in enough)
    print(f"{'named' if is_named else 'NOT NAMED'}  {name} ({seconds:.0f} s): {said}", flush=True)
    return is_named


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the faults that are named, or all; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", type=Path)
    parser.add_argument("--root", type=Path, default=Path("runs/planted"))
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("names", nargs="*", default=list(FAULTS))
    given = parser.parse_args(arguments)
    base = given.base or train(["stage=pretrain", "logger=none"], given.root)[0].folder
    named = []
    for name in given.names:
        try:
            named.append(run(name, base.resolve(), given.root.resolve(), given.steps))
        except (InvalidInput, OSError, CalledProcessError) as error:
            print(f"NOT NAMED  {name}: {error}", flush=True)
            named.append(False)
    return 0 if all(named) else 1


if __name__ == "__main__":
    raise SystemExit(main())
