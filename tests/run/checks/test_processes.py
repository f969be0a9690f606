"""How many processes a stage may have."""

from __future__ import annotations

import re

import pytest

from r1_lightning.run.checks import processes
from r1_lightning.run.checks.processes import check_processes
from r1_lightning.types.errors import InvalidInput
from tests.support.commands import ROOT

SHIPPED = processes.DIVIDED
STAGE = {"_target_": "r1_lightning.stages.somewhere.Divided"}


@pytest.fixture(autouse=True)
def _divided(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "DIVIDED", ("Divided",))


@pytest.mark.parametrize(
    "trainer", [{}, {"devices": 2}, {"devices": [3]}, {"devices": [0, 2]}, {"strategy": "ddp", "num_nodes": 2}]
)
def test_a_stage_that_divides_its_work_takes_any_number(trainer: dict) -> None:
    check_processes({"trainer": trainer, "stage": STAGE})


@pytest.mark.parametrize("trainer", [{"devices": 2}, {"strategy": "ddp"}, {"num_nodes": 2}])
def test_another_stage_takes_one(trainer: dict) -> None:
    other = {"_target_": "r1_lightning.stages.somewhere.Whole"}
    with pytest.raises(InvalidInput, match="the work of Whole is not divided among processes"):
        check_processes({"trainer": trainer, "stage": other})
    check_processes({"trainer": {"devices": 1, "strategy": "auto"}, "stage": other})


def test_dropout_of_adapters_is_for_one_process() -> None:
    lora = {"lora": {"rank": 2, "dropout": 0.1}}
    with pytest.raises(
        InvalidInput, match=r"model\.lora\.dropout=0\.1 is not allowed: it must be 0 with several processes"
    ):
        check_processes({"trainer": {"devices": 2}, "stage": STAGE, "model": lora})
    check_processes({"trainer": {"devices": 1}, "stage": STAGE, "model": lora})
    check_processes({"trainer": {"devices": 2}, "stage": STAGE, "model": {"lora": {"rank": 2, "dropout": 0.0}}})
    check_processes({"trainer": {"devices": 2}, "stage": STAGE, "model": {"lora": None}})


@pytest.mark.parametrize(
    ("trainer", "line"),
    [
        ({"devices": 0}, "trainer.devices=0 is not allowed: it must be a whole number of at least 1"),
        ({"devices": "auto"}, "trainer.devices='auto' is not allowed: it must be a whole number"),
        ({"devices": True}, "trainer.devices=True is not allowed"),
        ({"devices": [0, 0]}, "trainer.devices=[0, 0] is not allowed: it must be the numbers of devices, each once"),
        ({"devices": []}, "trainer.devices=[] is not allowed"),
        ({"devices": [-1]}, "trainer.devices=[-1] is not allowed"),
        ({"num_nodes": 0}, "trainer.num_nodes=0 is not allowed"),
        ({"strategy": "ddp_spawn"}, "trainer.strategy='ddp_spawn' is not allowed: it must be one of auto, ddp, fsdp"),
    ],
)
def test_numbers_and_names(trainer: dict, line: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        check_processes({"trainer": trainer, "stage": STAGE})
    assert str(refused.value).startswith(line)


@pytest.mark.parametrize(
    ("part", "line"),
    [
        ({"precision": {"compile": True}}, "precision.compile=True is not allowed: trainer=fsdp runs uncompiled"),
        (
            {"precision": {"backend": "emulate"}},
            "precision.backend='emulate' is not allowed: FP8 has not been run with",
        ),
    ],
)
def test_what_is_not_made_for_divided_weights(part: dict, line: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        check_processes({"trainer": {"strategy": "fsdp", "devices": 2}, "stage": STAGE, **part})
    assert str(refused.value).startswith(line)
    check_processes({"trainer": {"strategy": "ddp", "devices": 2}, "stage": STAGE, **part})


def test_divided_weights_are_for_the_stages_that_divide_their_work() -> None:
    check_processes({"trainer": {"strategy": "fsdp", "devices": 2}, "stage": STAGE})
    with pytest.raises(InvalidInput, match="the work of Whole is not divided among processes"):
        check_processes({"trainer": {"strategy": "fsdp", "devices": 2}, "stage": {"_target_": "somewhere.Whole"}})


def test_a_value_model_is_not_divided(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "DIVIDED", SHIPPED)
    ppo = {"_target_": "r1_lightning.stages.ppo.PPOModule"}
    check_processes({"trainer": {"strategy": "ddp", "devices": 2}, "stage": ppo})
    with pytest.raises(
        InvalidInput, match=r"trainer\.strategy='fsdp' is not allowed: PPOModule copies the whole policy"
    ):
        check_processes({"trainer": {"strategy": "fsdp", "devices": 2}, "stage": ppo})


def test_every_shipped_stage_divides_its_work() -> None:
    """The classes that the stage files of configs/ name."""
    texts = (path.read_text(encoding="utf-8") for path in (ROOT / "configs" / "stage").glob("*.yaml"))
    named = {re.search(r"^  _target_: r1_lightning\.[\w.]+\.(\w+)$", text, re.MULTILINE)[1] for text in texts}
    assert named == set(SHIPPED) and len(named) == 9


def test_vllm_is_refused_for_several_processes_of_any_strategy() -> None:
    plain = {
        "trainer": {"strategy": "ddp", "devices": 2},
        "stage": {"_target_": "r1_lightning.stages.grpo.GRPOModule"},
        "rollout": {"sampler": {"_target_": "r1_lightning.rollout.vllm_sampler.VLLM"}},
    }
    with pytest.raises(InvalidInput, match="each of several processes would start an engine"):
        check_processes(plain)
    check_processes({**plain, "trainer": {"devices": 1}})
