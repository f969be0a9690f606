"""The records of an evaluation: one line for each sample, under the protocol by which it was drawn.

    questions.jsonl   once for each question: its id, text and reference, and the hash of its prompt's token ids
    samples.jsonl     first the protocol, then one line for each sample, appended as questions are done
    results.json      what was written at the end: the measures with their intervals

Everything in results.json can be derived from the two other files (`check`). A kill may leave half of a line at the end, which is
cut off, or some of a question's samples: they are drawn again, to the same tokens, and only what is missing is added. Lines of
another protocol are never added to, and a sample that stands there twice is an error.
"""

from __future__ import annotations

import json
import math
import os
import typing
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from r1_lightning.artefacts import data_set
from r1_lightning.artefacts.files import input_folder, output_folder, write_json
from r1_lightning.evaluation.judged import Judged
from r1_lightning.evaluation.metrics import Measure, Question, measures_of
from r1_lightning.evaluation.protocol import VERSION, Asking, Protocol, questions_digest
from r1_lightning.functional.intervals import Interval
from r1_lightning.types.errors import InvalidInput, require
from r1_lightning.types.text import Completion

QUESTIONS, SAMPLES, RESULTS = "questions.jsonl", "samples.jsonl", "results.json"
PROTOCOL = "protocol"
# The types of a line's fields that are read.
OF_A_SAMPLE = typing.get_type_hints(Judged) | {
    "question": int,
    "sample": int,
    "completion": str,
    "answer": str | None,
    "reason": str,
}


@dataclass(frozen=True)
class Record:
    """One sample: `completion` and its judgement, the `answer` that was read from it, and the verdict's `reason`."""

    question: int
    sample: int
    completion: Completion
    answer: str | None
    judged: Judged
    reason: str

    def row(self, asked: Asking, seed: int) -> dict[str, Any]:
        """Return the line of samples.jsonl. With `seed`, question and sample number are the key of its random draws."""
        judgement = asdict(self.judged)
        return {
            "question": self.question,
            "sample": self.sample,
            "id": asked.problem_id,
            "prompt_sha256": asked.prompt_sha256,
            "seed": seed,
            "completion": self.completion.text,
            "answer": self.answer,
            **judgement,
            "reason": self.reason,
        }

    @classmethod
    def from_row(cls, row: Mapping[str, Any], where: str) -> Record:
        """Read a line. Raises `InvalidInput` with `where` if a field is missing or has another type."""
        try:
            _check_types(row, OF_A_SAMPLE)
            judged = Judged(**{item.name: row[item.name] for item in fields(Judged)})
            completion = Completion(row["completion"], judged.tokens, judged.finished)
            return cls(row["question"], row["sample"], completion, row["answer"], judged, row["reason"])
        except (KeyError, TypeError) as error:
            raise InvalidInput(f"{where}: it is no sample of an evaluation ({error!r})") from error


@dataclass(frozen=True)
class Records:
    """An evaluation's records as they were read: samples by the numbers of question and sample."""

    folder: Path
    protocol: Protocol
    asked: Sequence[Asking]
    samples: Mapping[tuple[int, int], Record]

    @property
    def missing(self) -> list[int]:
        """The questions that lack a sample."""
        numbers = range(self.protocol.samples)
        return [q for q in range(len(self.asked)) if any((q, number) not in self.samples for number in numbers)]

    def judged(self) -> list[list[Judged]]:
        """The judgements of all samples, P x k. Raises `InvalidInput` while some are missing."""
        left = len(self.missing)
        require(
            not left,
            "records",
            str(self.folder),
            f"{left} of {len(self.asked)} questions are not done; finish it first",
        )
        numbers = range(self.protocol.samples)
        return [[self.samples[q, number].judged for number in numbers] for q in range(len(self.asked))]

    def scores(self) -> dict[str, list[list[bool]]]:
        """Whether each sample is right (P x k), in the form asked for and in any form, by the measure that is its mean."""
        judged = self.judged()
        return {
            "pass_at_1": [[sample.strict for sample in row] for row in judged],
            "pass_at_1_lenient": [[sample.lenient for sample in row] for row in judged],
        }

    def measures(self) -> dict[str, Measure]:
        """Derive every measure from the samples."""
        return measures_of(self.judged(), [Question(asked.task, asked.votes) for asked in self.asked])


def begin(folder: Path, protocol: Protocol, asked: Sequence[Asking]) -> Records:
    """Make the records of an evaluation in `folder`, or read those that an interrupted one left there.

    Raises `InvalidInput` if they are of another protocol (the line names the first field that differs), or damaged.
    """
    with output_folder(folder):
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / SAMPLES).is_file():
            data_set.write_lines(folder / QUESTIONS, [asdict(item) for item in asked])
            data_set.write_lines(folder / SAMPLES, [{PROTOCOL: asdict(protocol)}])
        _cut_half_a_line(folder / SAMPLES)
    found = read(folder)
    for item in fields(Protocol):
        here, wanted = getattr(found.protocol, item.name), getattr(protocol, item.name)
        allowed = (
            f"the records in {folder} are of another protocol, with {item.name}={here!r}; --out names another folder"
        )
        require(here == wanted, item.name, wanted, allowed)
    return found


def _cut_half_a_line(path: Path) -> None:
    with path.open("rb+") as file:
        content = file.read()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            file.truncate(whole)


def append(records: Records, found: Sequence[Record]) -> Records:
    """Write those of the samples `found` that are not there yet, and return the records with them."""
    new = {(item.question, item.sample): item for item in found if (item.question, item.sample) not in records.samples}
    seed = records.protocol.seed
    lines = [json.dumps(item.row(records.asked[item.question], seed), ensure_ascii=False) for item in new.values()]
    with output_folder(records.folder), (records.folder / SAMPLES).open("ab") as file:
        file.write("".join(f"{line}\n" for line in lines).encode("utf-8", "backslashreplace"))
        file.flush()
        os.fsync(file.fileno())
    return Records(records.folder, records.protocol, records.asked, {**records.samples, **new})


def read(folder: Path) -> Records:
    """Read records.

    Raises `InvalidInput` for a folder that holds none, a damaged line, questions that are not the protocol's, and a sample that is
    there twice or was drawn for another prompt.
    """
    with input_folder(folder):
        there = (folder / SAMPLES).is_file() and (folder / QUESTIONS).is_file()
        require(there, "records", str(folder), f"it holds no evaluation ({SAMPLES} and {QUESTIONS})")
        asked = [_asking(row, f"{folder / QUESTIONS}, line {n}") for n, row in _lines(folder / QUESTIONS)]
        (_, header), *rows = _lines(folder / SAMPLES) or [(1, {})]
    protocol = _protocol(header, folder / SAMPLES)
    same = len(asked) == protocol.questions and questions_digest(asked) == protocol.questions_sha256
    require(same, "records", str(folder), f"{QUESTIONS} holds other questions than the protocol in {SAMPLES} says")
    samples: dict[tuple[int, int], Record] = {}
    for number, row in rows:
        where = f"{folder / SAMPLES}, line {number}"
        record = Record.from_row(row, where)
        key = record.question, record.sample
        if not (0 <= key[0] < len(asked) and 0 <= key[1] < protocol.samples):
            why = "was not asked for"
        elif key in samples:
            why = "is there twice"
        elif (row.get("prompt_sha256"), row.get("seed")) != (asked[key[0]].prompt_sha256, protocol.seed):
            why = "was drawn for another prompt or seed"
        else:
            samples[key] = record
            continue
        raise InvalidInput(f"{where}: sample {record.sample} of question {record.question} {why}")
    return Records(folder, protocol, asked, samples)


def _lines(path: Path) -> list[tuple[int, dict[str, Any]]]:
    return list(enumerate(data_set.read_lines(path), start=1))


def _asking(row: Mapping[str, Any], where: str) -> Asking:
    try:
        _check_types(row, typing.get_type_hints(Asking))
        return Asking(**row)
    except (KeyError, TypeError) as error:
        raise InvalidInput(f"{where}: it is no question of an evaluation ({error})") from error


def _protocol(row: Mapping[str, Any], path: Path) -> Protocol:
    try:
        _check_types(row[PROTOCOL], typing.get_type_hints(Protocol))
        found = Protocol(**row[PROTOCOL])
    except (KeyError, TypeError) as error:
        raise InvalidInput(f"{path}, line 1: it is no protocol of an evaluation ({error!r})") from error
    require(
        found.version == VERSION, "version", found.version, f"{path} is of another version of this code, not {VERSION}"
    )
    return found


def _check_types(row: Mapping[str, Any], types: Mapping[str, Any]) -> None:
    """Raise `KeyError` for a field that is missing, `TypeError` for one of another type; a whole number is a float, too."""
    for name, kind in types.items():
        value, wanted = row[name], (int, float) if kind is float else kind
        is_flag = isinstance(value, bool) and kind is not bool  # True is an int to Python
        endless = isinstance(value, float) and not math.isfinite(value)
        if is_flag or endless or not isinstance(value, wanted):
            raise TypeError(f"{name} is {json.dumps(value)[:40]}")


def write_results(records: Records, measures: Mapping[str, Measure]) -> None:
    """Write results.json: each measure with its interval."""
    numbers = {name: [m.value, m.interval.low, m.interval.high] for name, m in measures.items()}
    write_json(records.folder / RESULTS, {"protocol": asdict(records.protocol), "measures": numbers})


def stored_results(folder: Path) -> dict[str, Measure]:
    """Read the measures of results.json. Raises `InvalidInput` if it is not there or cannot be read."""
    with input_folder(folder):
        path = folder / RESULTS
        require(path.is_file(), "records", str(folder), f"it holds no {RESULTS}: the evaluation was not finished")
        try:
            stored = json.loads(path.read_text(encoding="utf-8"))["measures"]
            known = {name: [math.nan if n is None else float(n) for n in row] for name, row in stored.items()}
            return {name: Measure(value, Interval(value, low, high)) for name, (value, low, high) in known.items()}
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise InvalidInput(f"{path}: it holds no measures ({error!r})") from error


def check(folder: Path) -> dict[str, Measure]:
    """Derive the measures from the records alone and compare them with results.json, digit by digit; return them.

    Raises `InvalidInput` that names the first measure which differs.
    """
    records, written = read(folder), stored_results(folder)
    derived = records.measures()
    allowed = f"{RESULTS} has {', '.join(written)}"
    require(list(derived) == list(written), "measures", ", ".join(derived), allowed)
    for name, measure in derived.items():
        require(_same(measure, written[name]), name, measure.value, f"{RESULTS} says {written[name].interval}")
    return derived


def _same(first: Measure, second: Measure) -> bool:
    pairs = (
        (first.value, second.value),
        (first.interval.low, second.interval.low),
        (first.interval.high, second.interval.high),
    )
    return all(a == b or (math.isnan(a) and math.isnan(b)) for a, b in pairs)
