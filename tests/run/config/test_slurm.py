"""What a job may ask for: every value that could break a batch script is refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from r1_lightning.run.config.slurm import Slurm
from r1_lightning.types.errors import InvalidInput

SHIPPED = Path(__file__).resolve().parents[3] / "configs" / "launcher" / "slurm.yaml"


def settings(**changed: Any) -> Slurm:
    """The shipped settings with some changed."""
    shipped = yaml.safe_load(SHIPPED.read_text(encoding="utf-8"))
    del shipped["_target_"]
    return Slurm(**{**shipped, **changed})


def test_what_sites_ask_for_is_accepted() -> None:
    asked = settings(account="proj.1", partition="gpu,long", qos="high", constraint="[a100|h100]&ib*2")
    assert (asked.partition, asked.constraint) == ("gpu,long", "[a100|h100]&ib*2")
    asked = settings(time="2-12:00:00", mem="64G", nodes=2, gres="gpu:a100:8", sbatch_args=["--mail-type=END,FAIL"])
    assert (asked.time, asked.nodes, asked.sbatch_args) == ("2-12:00:00", 2, ["--mail-type=END,FAIL"])
    asked = settings(time="90", modules=["cuda/12.6"], setup=["ulimit -n 65536"], env={"A_1": "any $(text)", "N": 3})
    assert asked.env == {"A_1": "any $(text)", "N": 3}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("account", "a b"),
        ("partition", "gpu\n#SBATCH --nodes=9"),
        ("qos", "$(id)"),
        ("constraint", "a'b"),
        ("gres", 'gpu"'),
        ("mem", ""),
        ("time", "4h"),
        ("time", "04:00:00\n"),
        ("nodes", 0),
        ("nodes", True),
        ("gpus_per_node", -1),
        ("cpus_per_task", 0),
        ("signal_s", 65536),
        ("max_requeues", -1),
        ("at_once", 0),
        ("srun_args", ["-n4"]),
        ("sbatch_args", ["--wrap=a b"]),
        ("sbatch_args", ["--nodes=2\n--x"]),
        ("modules", [3]),
        ("container", [""]),
        ("env", {"A B": "x"}),
        ("env", {"A=$(id);B": "x"}),
        ("env", {"A": ["x"]}),
    ],
)
def test_others_are_refused_by_name(field: str, value: Any) -> None:
    with pytest.raises(InvalidInput, match=rf"^launcher\.{field}[.=]"):
        settings(**{field: value})
