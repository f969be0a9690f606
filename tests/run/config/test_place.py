"""Where a process stands in a run: torchrun's and SLURM's variables, and what the configuration must agree with."""

from __future__ import annotations

import pytest

from r1_lightning.run.config.place import ALONE, Place, asks_for_several, first_host, place_of, wanted
from r1_lightning.types.errors import InvalidInput

TORCHRUN = {
    "TORCHELASTIC_RUN_ID": "none",
    "RANK": "3",
    "WORLD_SIZE": "4",
    "LOCAL_RANK": "1",
    "LOCAL_WORLD_SIZE": "2",
    "MASTER_ADDR": "10.0.0.7",
    "MASTER_PORT": "29500",
}
SRUN = {
    "SLURM_STEP_ID": "0",
    "SLURM_JOB_ID": "12",
    "SLURM_PROCID": "1",
    "SLURM_NTASKS": "2",
    "SLURM_LOCALID": "1",
    "SLURM_STEP_TASKS_PER_NODE": "2",
    "SLURM_STEP_NODELIST": "gpu[07-09]",
}
DDP = {"strategy": "ddp", "devices": 1}


def test_alone() -> None:
    assert place_of({"devices": 2}, {}) == place_of({}, {}) == ALONE
    assert ALONE.is_main and ALONE.count == 1


def test_torchrun_says_where_whatever_the_configuration_says_not() -> None:
    expected = Place(3, 4, 1, 2, "torchrun", "10.0.0.7", 29500)
    assert place_of({}, TORCHRUN) == place_of({"devices": 2, "num_nodes": 2}, TORCHRUN) == expected
    assert not expected.is_main


def test_rank_0_of_our_own_starter_has_the_socket() -> None:
    """A number of the environment that torchrun's processes inherit from a starter further out is not theirs."""
    own = {**TORCHRUN, "R1_STARTED_BY": "5", "R1_LISTENING": "6"}
    assert place_of({}, own).listening == 6 and place_of({}, {**TORCHRUN, "R1_LISTENING": "6"}).listening is None
    with pytest.raises(InvalidInput, match="R1_LISTENING='x' is not allowed"):
        place_of({}, {**own, "R1_LISTENING": "x"})


def test_srun_counts_for_a_run_of_several_processes() -> None:
    # Job 12, step 0: port 15000 + 12 * 7.
    assert place_of(DDP, SRUN) == place_of({"devices": 2}, SRUN) == Place(1, 2, 1, 2, "srun", "gpu07", 15084)


def test_tasks_of_srun_with_other_settings_are_runs_of_their_own() -> None:
    assert place_of({"devices": 1, "strategy": "auto"}, SRUN) == ALONE


def test_a_batch_script_without_srun_has_no_step() -> None:
    batch = {name: value for name, value in SRUN.items() if not name.startswith("SLURM_STEP")}
    assert place_of({"devices": 2}, batch) == ALONE


def test_one_task_starts_its_own_processes() -> None:
    assert place_of({"devices": 2}, {**SRUN, "SLURM_NTASKS": "1", "SLURM_PROCID": "0"}) == ALONE


def test_torchrun_inside_srun_wins() -> None:
    assert place_of(DDP, {**SRUN, **TORCHRUN}).starter == "torchrun"


def test_the_submitter_may_name_the_address() -> None:
    place = place_of(DDP, {**SRUN, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "4000"})
    assert (place.address, place.port) == ("127.0.0.1", 4000)


@pytest.mark.parametrize(
    ("trainer", "environment", "line"),
    [
        ({"devices": 4}, TORCHRUN, "trainer.devices=4 is not allowed: torchrun started 4 processes, 2 of them on this"),
        ({"devices": 2, "num_nodes": 3}, TORCHRUN, "trainer.num_nodes=3 is not allowed: torchrun started 4 processes"),
        ({"devices": 3}, SRUN, "trainer.devices=3 is not allowed: srun started 2 processes, 2 of them"),
        ({}, {**TORCHRUN, "RANK": "4"}, "RANK='4' is not allowed: the environment's variable must be a whole number"),
        ({}, {**TORCHRUN, "WORLD_SIZE": "two"}, "WORLD_SIZE='two' is not allowed"),
        (DDP, {**SRUN, "SLURM_LOCALID": ""}, "SLURM_LOCALID='' is not allowed"),
    ],
)
def test_contradictions_are_refused(trainer: dict, environment: dict, line: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        place_of(trainer, environment)
    assert str(refused.value).startswith(line)


def test_hosts() -> None:
    for hosts, first in (("a", "a"), ("a,b", "a"), ("n[3,7]", "n3"), ("n[003-010],m1", "n003"), ("x-y[1-2]", "x-y1")):
        assert first_host({"SLURM_STEP_NODELIST": hosts}) == first
    assert first_host({}) == "127.0.0.1"


def test_wanted() -> None:
    assert [wanted(trainer) for trainer in ({}, {"devices": 3}, {"devices": [1, 5]}, {"devices": "auto"})] == [
        1,
        3,
        2,
        0,
    ]
    several = ({"devices": 2}, {"strategy": "ddp"}, {"num_nodes": 2}, {"devices": [0, 1]})
    assert all(map(asks_for_several, several)) and not asks_for_several({"devices": [1], "strategy": "auto"})
