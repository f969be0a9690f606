"""What `launcher=slurm` asks a cluster for: the settings of a SLURM job, checked before they reach a batch script.

A batch script is shell text. Values that become options of `sbatch` may hold no space, quote or line break, because SLURM reads its
`#SBATCH` lines by rules of its own; everything else is quoted for the shell where the script is written (`commands.sbatch`). Only
`setup` is shell as it stands: it is there for lines that a site asks for.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from r1_lightning.types.errors import require, require_int

PLAIN = re.compile(r"[A-Za-z0-9_.,:;+=@&|*()\[\]/%~^!<>-]+", re.ASCII)  # one word to sbatch and to a shell's quoting
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)  # of an environment variable
TIME = re.compile(
    r"(\d+-)?\d+(:\d+){0,2}", re.ASCII
)  # minutes, minutes:seconds, hours:minutes:seconds, days-hours[:...]
FRESH_NOTE = "R1_FRESH"  # set by a job's script for `fresh=true`: the file with the name of the folder that it began
ONE_LINE_WORDS = ("account", "partition", "qos", "constraint", "gres", "mem")
WORD_ALLOWED = "it must be letters, digits and punctuation without spaces, quotes or line breaks"


@dataclass(frozen=True)
class Slurm:
    """The resources and surroundings of a job; null leaves a choice to the cluster. Raises `InvalidInput` for a bad value.

    account, partition, qos, constraint, gres, mem  as `sbatch` takes them; `gres` beside or in place of `gpus_per_node`
    time            limit of one attempt, "DD-HH:MM:SS" or a part of it; a run that needs longer is saved and queued again
    nodes, gpus_per_node, cpus_per_task     of one job
    signal_s        seconds before the limit at which the run is asked to save and stop
    max_requeues    how often a job queues itself again, so that a run that never gets on comes to an end
    job_per_stage   each missing stage of the graph is a job that waits for those of its inputs; false: one job makes them in turn
    at_once         how many jobs of an array run at the same time
    modules         names for `module load`; `setup` lines of shell; `env` variables, set in this order before the run
    container       words before Python: [apptainer, exec, --nv, /images/r1.sif]
    srun_args, sbatch_args      further options of both, each one word: "--reservation=r1"
    python          the interpreter in the job; null: the one that submits
    """

    account: str | None
    partition: str | None
    qos: str | None
    constraint: str | None
    gres: str | None
    mem: str | None
    time: str | None
    nodes: int
    gpus_per_node: int
    cpus_per_task: int | None
    signal_s: int
    max_requeues: int
    job_per_stage: bool
    at_once: int | None
    modules: list[str]
    setup: list[str]
    env: dict[str, Any]
    container: list[str]
    srun_args: list[str]
    sbatch_args: list[str]
    python: str | None

    def __post_init__(self) -> None:
        for name in ONE_LINE_WORDS:
            value = getattr(self, name)
            require(value is None or PLAIN.fullmatch(value) is not None, f"launcher.{name}", value, WORD_ALLOWED)
        is_time = self.time is None or TIME.fullmatch(self.time) is not None
        require(is_time, "launcher.time", self.time, 'it must be a time such as "04:00:00" or "2-12:00:00"')
        require_int("launcher.nodes", self.nodes, 1)
        require_int("launcher.gpus_per_node", self.gpus_per_node, 0)
        require_int("launcher.signal_s", self.signal_s, 0, 65535)
        require_int("launcher.max_requeues", self.max_requeues, 0)
        for name in ("cpus_per_task", "at_once"):
            if getattr(self, name) is not None:
                require_int(f"launcher.{name}", getattr(self, name), 1)
        for name in ("srun_args", "sbatch_args"):
            for word in _texts(name, getattr(self, name)):
                is_option = word.startswith("--") and PLAIN.fullmatch(word) is not None
                require(
                    is_option, f"launcher.{name}", word, f'it must be an option such as "--exclusive"; {WORD_ALLOWED}'
                )
        for name in ("modules", "container", "setup"):
            _texts(name, getattr(self, name))
        for name, value in self.env.items():
            is_name = isinstance(name, str) and NAME.fullmatch(name) is not None
            require(is_name, "launcher.env", name, "a variable's name must be letters, digits and '_'")
            is_plain = isinstance(value, (str, int, float)) and "\0" not in str(value)
            require(is_plain, f"launcher.env.{name}", value, "it must be text or a number")


def _texts(name: str, values: Any) -> list[str]:
    for value in values:
        is_text = isinstance(value, str) and bool(value) and "\0" not in value
        require(is_text, f"launcher.{name}", value, "it must be a list of texts")
    return list(values)
