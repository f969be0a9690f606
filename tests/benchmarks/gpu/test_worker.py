"""What the measuring process says of each part, whatever the part does."""

from __future__ import annotations

import json

import pytest
import torch

from benchmarks.gpu import worker
from benchmarks.gpu.device import Meter
from benchmarks.gpu.parts import Part, tiny_plan
from benchmarks.gpu.report import Row
from benchmarks.gpu.worker import rows_of, serve
from benchmarks.pairs import STRICT, deterministic

CPU = Meter(torch.device("cpu"))
ROW = Row("grpo", "work", "tokens/s", 7.0, "beside")


def part(measure):
    return Part("grpo", "work", 1.0, measure)


def then(error):
    yield ROW
    raise error


def test_a_part_without_memory_is_not_run_and_one_that_fails_says_so(capsys):
    ran, full = rows_of(part(lambda: then(torch.OutOfMemoryError("60 GiB"))), CPU)
    assert ran == ROW and (full.not_run, full.failed) == ("out of memory", False)
    ran, failed = rows_of(part(lambda: then(ValueError("first line\nsecond line"))), CPU)
    assert ran == ROW and (failed.not_run, failed.failed) == ("failed: ValueError: first line", True)
    assert "second line" in capsys.readouterr().err


def strict_rows(measure, monkeypatch):
    """The rows of a part as on a GPU."""
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: None)
    return list(rows_of(part(measure), Meter(torch.device("cuda"))))


def test_on_a_gpu_operators_must_be_deterministic(monkeypatch):
    seen = []

    def measure():
        with deterministic():
            seen.append((STRICT.get(), torch.is_deterministic_algorithms_warn_only_enabled()))
        yield ROW

    assert strict_rows(measure, monkeypatch) == [ROW]
    assert list(rows_of(part(measure), CPU)) == [ROW]
    assert seen == [(True, False), (False, True)] and not STRICT.get()


def test_where_an_operator_has_no_such_kernel_it_is_measured_and_named(monkeypatch):
    def measure():
        if STRICT.get():
            raise RuntimeError("cumsum_cuda_kernel does not have a deterministic implementation, but you set ...")
        yield ROW

    (row,) = strict_rows(measure, monkeypatch)
    assert (row.value, row.beside, row.failed) == (7.0, "beside; not deterministic (cumsum_cuda_kernel)", False)


def test_any_other_error_is_not_tried_again(monkeypatch):
    tries = []

    def measure():
        tries.append(1)
        raise RuntimeError("shapes cannot be multiplied")
        yield ROW

    (row,) = strict_rows(measure, monkeypatch)
    assert row.failed and len(tries) == 1


def test_it_greets_and_answers_in_order(monkeypatch):
    monkeypatch.setattr(worker, "parts_of", lambda *_: [part(lambda: iter([ROW])), part(lambda: iter([]))])
    said = []
    serve(tiny_plan(), CPU, "", ["1\n", "0\n"], lambda message: said.append(json.loads(json.dumps(message))))
    greeting, *answers = said
    assert greeting["greeting"]["parts"][0] == {"name": "grpo", "work": "work", "estimate_s": 1.0}
    assert greeting["greeting"]["hardware"] == {"device": "cpu"}
    assert [next(iter(answer)) for answer in answers] == ["done", "row", "done"]
    assert Row(**answers[1]["row"]) == ROW and answers[2] == {"done": 0, "usable": True}


def test_a_device_that_answers_with_errors_is_unusable(monkeypatch):
    def lost(device):
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(torch.cuda, "synchronize", lost)
    assert not worker.is_usable(Meter(torch.device("cuda"))) and worker.is_usable(CPU)


@pytest.fixture(autouse=True)
def loud():
    """No part leaves torch's mode behind."""
    before = torch.are_deterministic_algorithms_enabled()
    yield
    assert torch.are_deterministic_algorithms_enabled() == before
