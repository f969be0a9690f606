"""Writes records as a log of inspect-ai, so that its viewer shows them: `inspect view --log-dir FOLDER` (JSON format, version 2).

A sample of ours is an *epoch* of a sample there. Its scores are "C" or "I": one in the form asked for, one (`LENIENT`) in any form.
Times are not recorded, so the log's are those of writing it. `inspect_ai.log.read_eval_log` opens the file (tried with inspect-ai
0.3.285).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from r1_lightning.artefacts.files import write_json
from r1_lightning.evaluation.protocol import Asking, Protocol
from r1_lightning.evaluation.records import Record, Records
from r1_lightning.functional.uncertainty import standard_error_of_questions
from r1_lightning.types.errors import InvalidInput

VERSION = 2  # of inspect-ai's logs
RIGHT, WRONG = "C", "I"
LENIENT = "in_any_form"  # the name of the second score


def write_log(records: Records, path: Path) -> None:
    """Write finished records to `path`, whose name should end in .json.

    Raises `InvalidInput` while samples are missing, and for a place that cannot be written.
    """
    log = log_of(records)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, log)
    except OSError as error:
        detail = " ".join(str(error).split())
        raise InvalidInput(f"the log {path} cannot be written ({detail}); choose another file") from error


def log_of(records: Records) -> dict[str, Any]:
    """Return the log as it is written."""
    protocol, measures, scores = records.protocol, records.measures(), records.scores()
    others = {name: measure.value for name, measure in measures.items()}
    named = {protocol.judge: ("pass_at_1", others), LENIENT: ("pass_at_1_lenient", {})}
    total = len(records.samples)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return {
        "version": VERSION,
        "status": "success",
        "eval": _spec(protocol, records, now),
        "plan": {"name": "plan", "steps": [{"solver": "generate", "params": {}}], "config": _sampling(protocol)},
        "results": {
            "total_samples": total,
            "completed_samples": total,
            "scores": [
                _scorer(
                    name, {"accuracy": others[measure], "stderr": standard_error_of_questions(scores[measure]), **more}
                )
                for name, (measure, more) in named.items()
            ],
        },
        "stats": {"started_at": now, "completed_at": now, "model_usage": {}},
        "samples": [
            _sample(records.asked[question], records.samples[question, number], protocol)
            for question, number in sorted(records.samples)
        ],
    }


def _scorer(name: str, values: Mapping[str, float]) -> dict[str, Any]:
    metrics = {metric: {"name": metric, "value": value} for metric, value in values.items()}
    return {"name": name, "scorer": name, "params": {}, "metrics": metrics}


def _sampling(protocol: Protocol) -> dict[str, Any]:
    return {
        "temperature": protocol.sampling_temperature,
        "top_p": protocol.top_p,
        "max_tokens": protocol.max_new_tokens,
        "seed": protocol.seed,
    }


def _spec(protocol: Protocol, records: Records, now: str) -> dict[str, Any]:
    numbers = list(range(len(records.asked)))
    return {
        "created": now,
        "task": protocol.benchmark,
        "task_id": protocol.digits,
        "run_id": protocol.digits,
        "dataset": {"name": protocol.benchmark, "samples": len(numbers), "sample_ids": numbers, "shuffled": False},
        "model": f"r1_lightning/{protocol.model}",
        "model_generate_config": _sampling(protocol),
        "config": {"epochs": protocol.samples, "epochs_reducer": ["mean"]},
        "packages": {},
        "metadata": {"protocol": asdict(protocol)},
    }


def _sample(asked: Asking, record: Record, protocol: Protocol) -> dict[str, Any]:
    said = {"role": "assistant", "content": _shown(record.completion.text), "source": "generate"}
    stop = "stop" if record.completion.finished else "max_tokens"
    return {
        "id": record.question,
        "epoch": record.sample + 1,
        "input": _shown(asked.text),
        "target": _shown(asked.reference),
        "messages": [{"role": "user", "content": _shown(asked.text), "source": "input"}, said],
        "output": {
            "model": protocol.model,
            "choices": [{"message": said, "stop_reason": stop}],
            "usage": {
                "input_tokens": 0,
                "output_tokens": record.completion.n_tokens,
                "total_tokens": record.completion.n_tokens,
            },
        },
        "scores": {
            protocol.judge: _score(record, record.judged.strict),
            LENIENT: _score(record, record.judged.lenient),
        },
        "metadata": {"problem_id": asked.problem_id, "prompt_sha256": asked.prompt_sha256, "language": asked.language},
    }


def _score(record: Record, is_right: bool) -> Mapping[str, Any]:
    return {
        "value": RIGHT if is_right else WRONG,
        "answer": None if record.answer is None else _shown(record.answer),
        "explanation": _shown(record.reason),
        "metadata": asdict(record.judged),
    }


def _shown(text: str) -> str:
    """The text with "?" for half of a surrogate pair, which no UTF-8 file can hold."""
    return text.encode("utf-8", "replace").decode("utf-8")
