"""Which device a stage works on, and in which type: decided once, from what torch finds and what was typed."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from omegaconf import OmegaConf

from r1_lightning.run.build.device import (
    check_accelerator,
    check_roles,
    decision,
    default_compute,
    here,
    role_device,
    settle_here,
    settled,
    stage_device,
)
from r1_lightning.run.config.compose import compose_stage, composing
from r1_lightning.run.config.stage_config import StageConfig
from r1_lightning.types.errors import InvalidInput

GPU = torch.device("cuda", 0)


@pytest.fixture(autouse=True)
def configs() -> Iterator[None]:
    with composing():
        yield


@pytest.fixture(params=[False, True], ids=["no GPU", "a GPU"])
def gpu(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    found(monkeypatch, request.param)
    return bool(request.param)


def found(monkeypatch: pytest.MonkeyPatch, gpu: bool, bf16: bool = True) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: gpu)
    monkeypatch.setattr("torch.cuda.get_device_name", lambda *_: "H200")
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda **_: bf16)


def asked(*words: str) -> StageConfig:
    return compose_stage(["stage=pretrain", *words])


def choice(*words: str) -> tuple[str, str]:
    config = settled(asked(*words)).config
    return config.trainer.accelerator, config.precision.compute


def test_auto_is_the_default_and_takes_a_gpu_where_there_is_one(gpu: bool) -> None:
    assert asked().config.trainer.accelerator == "auto"
    assert choice() == (("gpu", "bf16") if gpu else ("cpu", "fp32"))
    assert choice("trainer=cpu") == ("cpu", "fp32")
    assert choice("trainer=gpu") == ("gpu", "bf16")  # also to plan, on a machine without one, what runs on another
    assert stage_device(asked().config) == (GPU if gpu else torch.device("cpu"))
    assert here() == stage_device(asked().config)


def test_a_typed_precision_is_never_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    found(monkeypatch, True)
    assert choice("precision=fp32") == choice("precision.compute=fp32") == ("gpu", "fp32")
    assert choice("precision=bf16") == choice("precision.compile=false") == ("gpu", "bf16")
    typed_for_the_graph = StageConfig(**{**vars(asked()), "cli_overrides": ("precision=fp32",)})
    assert settled(typed_for_the_graph).config.precision.compute == "fp32"


def test_a_gpu_without_bf16_computes_in_fp32(monkeypatch: pytest.MonkeyPatch) -> None:
    found(monkeypatch, True, bf16=False)
    assert choice() == ("gpu", "fp32")
    assert (default_compute(GPU), default_compute(torch.device("cpu"))) == ("fp32", "fp32")
    found(monkeypatch, True)
    assert (default_compute(GPU), default_compute(torch.device("cpu"))) == ("bf16", "fp32")


def test_settled_twice_is_settled_once_and_what_was_composed_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    found(monkeypatch, True)
    stage = asked()
    once = settled(stage)
    assert settled(once) is once and stage.config.trainer.accelerator == "auto"


@pytest.mark.parametrize(
    ("has_gpu", "words", "told"),
    [
        (False, (), "on the CPU in FP32 (trainer=auto: torch finds no GPU)"),
        (True, ("trainer=cpu",), "on the CPU in FP32 (trainer.accelerator=cpu)"),
        (False, ("precision=fp8_emulated",), "on the CPU in FP8 (emulate) and BF16 (trainer=auto: torch finds no GPU)"),
        (
            False,
            ("precision=fp8_auto",),
            "on the CPU in FP8 (emulate) and BF16 (trainer=auto: torch finds no GPU; "
            "precision.backend=auto: torch finds no GPU here)",
        ),
        (True, ("precision=fp32",), "on H200 in FP32 (trainer=auto: torch finds a GPU)"),
        (
            True,
            (),
            "on H200 in BF16 (trainer=auto: torch finds a GPU; BF16, with TF32 elsewhere, is its default: precision=fp32 for FP32)",
        ),
    ],
)
def test_what_was_decided_is_told_with_its_reason(
    has_gpu: bool, words: tuple[str, ...], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found(monkeypatch, has_gpu)
    assert decision(asked(*words), settled(asked(*words))) == told


def test_one_device_is_named_by_its_number() -> None:
    assert stage_device(asked("trainer=gpu", "trainer.devices=[3]").config) == torch.device("cuda", 3)
    assert stage_device(OmegaConf.create({})) == torch.device("cpu")
    assert stage_device(OmegaConf.create({"trainer": {"accelerator": "mps"}})) == torch.device("mps")


def test_a_role_is_where_it_is_told_to_be_else_beside_the_stage() -> None:
    config = asked("trainer=gpu", 'trainer.role_devices={teacher: cpu, judge: "cuda:1"}').config
    places = [role_device(config, role) for role in ("teacher", "judge", "helpful")]
    assert places == [torch.device("cpu"), torch.device("cuda", 1), GPU]


def test_a_role_that_no_stage_has_is_refused() -> None:
    config = asked("trainer.role_devices={techer: cpu}").config
    with pytest.raises(InvalidInput, match=r"role_devices='techer' .* one of helpful, reference, teacher$"):
        check_roles(config, ["base", "data", "teacher", "helpful"])
    check_roles(asked("trainer.role_devices={reference: cpu}").config, [])


def test_a_gpu_that_is_not_there_is_refused_and_a_cpu_never(monkeypatch: pytest.MonkeyPatch) -> None:
    accelerators: Callable[[str], object] = lambda name: check_accelerator(  # noqa: E731
        OmegaConf.create({"trainer": {"accelerator": name}})
    )
    found(monkeypatch, False)
    for accelerator in ("cpu", "auto"):
        accelerators(accelerator)
    for accelerator in ("gpu", "cuda"):
        with pytest.raises(InvalidInput, match=rf"trainer\.accelerator='{accelerator}' .* no GPU here; trainer=cpu"):
            accelerators(accelerator)
    with pytest.raises(InvalidInput, match=r"role_devices\.teacher='cuda:1' is not allowed: .* it must be cpu"):
        check_accelerator(asked('trainer.role_devices={teacher: "cuda:1", judge: cpu}').config)
    found(monkeypatch, True)
    accelerators("gpu")


def test_a_stored_configuration_works_on_what_this_machine_has(gpu: bool) -> None:
    """Made on a GPU, with its teacher elsewhere: measured on the device of here, in the type that it was trained in."""
    stored = asked("trainer=gpu", "trainer.devices=[2]", "trainer.role_devices={teacher: cpu}", "precision=bf16").config
    settle_here(stored)
    assert stage_device(stored) == here() == (GPU if gpu else torch.device("cpu"))
    assert (stored.precision.compute, stored.trainer.role_devices) == ("bf16", None)
    old = OmegaConf.create({"trainer": {"accelerator": "cpu"}})  # as older artefacts have it
    settle_here(old)
    assert stage_device(old) == here()


@pytest.mark.parametrize("backend", ["te", "scaled_mm"])
def test_fp8_of_a_stored_configuration_is_emulated_where_its_backend_cannot_be_had(
    backend: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What a GPU has trained can be measured on a laptop."""
    found(monkeypatch, False)
    stored = asked(f"precision=fp8_{backend}").config
    settle_here(stored)
    check_accelerator(stored)
    assert stored.precision.backend == "emulate"
    assert capsys.readouterr().err == f"precision.backend={backend} is emulated here: torch finds no GPU here\n"
    settle_here(stored)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("backend", ["te", "scaled_mm"])
def test_an_fp8_backend_that_cannot_be_had_is_refused(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found(monkeypatch, False)
    with pytest.raises(InvalidInput, match=rf"precision\.backend='{backend}' is not allowed: torch finds no GPU here"):
        check_accelerator(settled(asked(f"precision=fp8_{backend}")).config)
    config = settled(asked("precision=fp8_auto")).config
    check_accelerator(config)
    assert config.precision.backend == "emulate"


def test_on_the_cpu_of_a_machine_with_a_gpu_fp8_is_emulated(monkeypatch: pytest.MonkeyPatch) -> None:
    found(monkeypatch, True)
    monkeypatch.setattr("r1_lightning.run.build.device.backend_here", lambda: "te")
    monkeypatch.setattr("r1_lightning.run.build.device.reason_against", lambda backend: None)
    words = ("precision=fp8_auto", "trainer=cpu")
    stage = settled(asked(*words))
    assert stage.config.precision.backend == "emulate"
    assert decision(asked(*words), stage).endswith("precision.backend=auto: not on the CPU)")
    assert settled(asked("precision=fp8_auto")).config.precision.backend == "te"
    with pytest.raises(
        InvalidInput, match=r"precision\.backend='te' is not allowed: it is for a GPU; precision=fp8_emul"
    ):
        check_accelerator(settled(asked("precision=fp8_te", "trainer=cpu")).config)
