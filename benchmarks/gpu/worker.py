"""The process in which parts are measured. It can hang, run out of memory or crash without taking the table with it.

    python -m benchmarks.gpu.worker PLAN ANSWERS      (started by `benchmarks/gpu/office.py`)

PLAN is "full" or "tiny". It reads the numbers of parts from its standard input, one per line, and writes lines of JSON to the
file descriptor ANSWERS: first a greeting ({"greeting": ...}: the parts, the device, a reason why nothing can run), then for each
part its rows ({"row": ...}) and {"done": number, "usable": whether the device still answers}. What it prints is for people.
"""

from __future__ import annotations

import gc
import json
import logging
import os
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from typing import Any

import torch

from benchmarks.gpu.device import Limits, Meter, copy_bandwidth, gemm_rate, limits_of, name_of
from benchmarks.gpu.modes import Mode
from benchmarks.gpu.parts import Part, Plan, full_plan, parts_of, tiny_plan
from benchmarks.gpu.report import GIB, Row

NO_GPU = "no CUDA device"
PARENT_POLL_S = 2.0


def serve(
    plan: Plan, meter: Meter, cannot: str, requests: Iterable[str], answer: Callable[[dict[str, Any]], None]
) -> None:
    """Greet, then measure the parts whose numbers come in `requests`, and say what each gave."""
    known: list[Limits] = []

    def limits() -> Limits:
        if not known:
            known.append(limits_of(name_of(meter.device), lambda: measured(plan, meter)))
        return known[0]

    parts = parts_of(plan, meter, limits, say)
    listed = [{"name": part.name, "work": part.work, "estimate_s": part.estimate_s} for part in parts]
    answer({"greeting": {"parts": listed, "hardware": {} if cannot else hardware_of(plan, meter), "cannot": cannot}})
    for request in requests:
        number = int(request)
        for row in rows_of(parts[number], meter):
            answer({"row": asdict(row)})
        answer({"done": number, "usable": is_usable(meter)})


def rows_of(part: Part, meter: Meter) -> Iterator[Row]:
    """The part's rows, in the first mode of `benchmarks/gpu/modes.py` that works; and one more with the reason if it ends early."""
    say(part.work)
    is_gpu = meter.device.type == "cuda"
    mode: Mode | None = Mode(strict=is_gpu)
    while mode is not None:
        try:
            for row in _measured_rows(part, meter, mode):
                yield mode.told(row)
            return
        except torch.OutOfMemoryError:
            yield Row(part.name, part.work, not_run="out of memory")
            return
        except Exception as error:  # whatever it is, the other parts still have something to say
            traceback.print_exc(file=sys.stderr)
            mode = mode.after(error) if is_gpu and is_usable(meter) else None
            if mode is None:
                first = (str(error).splitlines() or [""])[0]
                yield Row(part.name, part.work, not_run=f"failed: {type(error).__name__}: {first}", failed=True)


def _measured_rows(part: Part, meter: Meter, mode: Mode) -> Iterator[Row]:
    gc.collect()  # what the part before left behind
    if meter.device.type == "cuda":
        torch.cuda.empty_cache()
    with mode.applied():
        yield from part.measure()


def is_usable(meter: Meter) -> bool:
    """False after an error that leaves CUDA unusable in this process."""
    try:
        meter.wait()
    except Exception:
        return False
    return True


def measured(plan: Plan, meter: Meter) -> tuple[float, float]:
    """What the device reaches: FLOP/s of a BF16 product, bytes/s of a copy."""
    return gemm_rate(meter, plan.gemm_size), copy_bandwidth(meter, plan.copied_bytes)


def hardware_of(plan: Plan, meter: Meter) -> dict[str, Any]:
    """The device's name, memory, driver's CUDA, and what it reaches; a CPU is only named as one. No names of hosts."""
    device = meter.device
    if device.type != "cuda":
        return {"device": name_of(device)}
    properties = torch.cuda.get_device_properties(device)
    flops_per_s, bytes_per_s = measured(plan, meter)
    return {
        "device": name_of(device),
        "memory_gib": round(properties.total_memory / GIB, 1),
        "compute_capability": f"{properties.major}.{properties.minor}",
        "cuda": torch.version.cuda,
        "measured_bf16_flops_per_s": flops_per_s,
        "copied_bytes_per_s": bytes_per_s,
    }


def silence_warnings() -> None:
    """Both trainers' advice out of the way; errors stay."""
    for name in ("lightning.pytorch", "lightning.pytorch.utilities.rank_zero", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    for category in (UserWarning, FutureWarning, DeprecationWarning):
        warnings.filterwarnings("ignore", category=category)


def say(line: str) -> None:
    print(line, flush=True)


def _end_with_parent(parent: int) -> None:
    """End this process, even in the middle of a part, when the one that started it is gone."""
    while os.getppid() == parent:
        time.sleep(PARENT_POLL_S)
    os._exit(1)


def main() -> None:
    plan_name, descriptor = sys.argv[1:]
    threading.Thread(target=_end_with_parent, args=(os.getppid(),), daemon=True).start()
    silence_warnings()
    is_rehearsal = plan_name == "tiny"
    has_gpu = torch.cuda.is_available() and not is_rehearsal
    meter = Meter(torch.device("cuda", 0) if has_gpu else torch.device("cpu"))
    if has_gpu:
        torch.set_float32_matmul_precision("high")  # what stays in FP32 beside BF16 uses TF32, as in every run of ours
    cannot = "" if has_gpu or is_rehearsal else NO_GPU
    with os.fdopen(int(descriptor), "w", encoding="utf-8") as answers:

        def answer(message: dict[str, Any]) -> None:
            answers.write(json.dumps(message) + "\n")
            answers.flush()

        serve(tiny_plan() if is_rehearsal else full_plan(), meter, cannot, sys.stdin, answer)


if __name__ == "__main__":
    main()
