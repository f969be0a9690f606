"""Reads rows from local files, or from a data set of the HuggingFace hub.

`file` is a .jsonl, .json, .csv or .parquet file, or a folder of such files named after the split (`test-00000-of-00001.parquet`).
If it does not exist and `hub` names a data set, `datasets` downloads and caches that. So a local file needs no network, and both
sources give the same problems.

Rows are data only: no pickles, no loading scripts, no code of a data set's author. Python's own `json` reads JSON lines one by one,
so that an error names the line number and text stays text (`datasets` would infer dates from strings).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from r1_lightning.tasks import hub
from r1_lightning.tasks.fields import Row
from r1_lightning.tasks.file_kinds import (
    REASON_CHARS,
    characters,
    csv_rows,
    decoded,
    json_array,
    parquet_rows,
    parsed,
    plain,
)
from r1_lightning.types.errors import InvalidInput, require, require_int

MAX_ROW_CHARS = 2**28  # one row of LiveCodeBench holds up to some 10 MB of tests
MAX_TEXT_CHARS = 2**20  # several times 32,768 tokens; a longer line of training text is a mistake
BLOCK_BYTES = 2**20
CONVERSATIONS = "conversations"  # the field name given to a row that is a bare list of messages
SUFFIXES = (".jsonl", ".json", ".csv", ".parquet")
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


@dataclass(frozen=True)
class Rows:
    """The rows of one split.

    Args:
        file: a file, or a folder of files named after the split; used if it exists.
        hub: the data set's name, "owner/name", used if the file does not exist; None: the file is required.
        config: the data set's configuration, if it has several.
        split: the split of the hub's data set, or of the folder.
        revision: a commit or tag of the hub's data set; None is the newest.
        hub_files: load only these files of the hub's data set, if it otherwise needs a loading script.
        max_row_chars: limit of a JSON line's length, and in other file types of a field's length.

    Raises:
        InvalidInput: a value is not allowed; on reading, neither file nor hub is given.
    """

    file: str | None = None
    hub: str | None = None
    config: str | None = None
    split: str = "train"
    revision: str | None = None
    hub_files: Sequence[str] = ()
    max_row_chars: int = MAX_ROW_CHARS

    def __post_init__(self) -> None:
        named = self.hub is None or _HUB_NAME.fullmatch(self.hub) is not None
        require(named, "hub", self.hub, "it must be owner/name")
        require(bool(self.split), "split", self.split, "it must be the name of a split")
        require_int("max_row_chars", self.max_row_chars, 2)
        object.__setattr__(self, "hub_files", tuple(self.hub_files))
        for name in self.hub_files:
            within = name.endswith(SUFFIXES[:2]) and not name.startswith("/") and ".." not in name
            require(within, "hub_files", name, f"it must be a file within the data set that ends in {SUFFIXES[:2]}")

    @property
    def is_named(self) -> bool:
        """True if `file` or `hub` is given."""
        return bool(self.file) or bool(self.hub)

    @property
    def place(self) -> str:
        """The source's name, for messages."""
        return self.file or self.hub or "no file"

    def beside(self, split: str) -> Rows | None:
        """Return the rows of another split next to this one: in the same folder, or `test.jsonl` next to `train.jsonl`."""
        path = Path(self.file) if self.file else None
        if path is None or not path.exists():
            return None
        if path.is_dir():
            other = replace(self, split=split)
            return other if other.parts(path) else None
        name = re.sub(rf"(?<![a-z0-9]){re.escape(self.split)}(?![a-z0-9])", split, path.name)
        there = name != path.name and path.with_name(name).exists()
        return replace(self, file=str(path.with_name(name)), split=split) if there else None

    def read(self, digest: hashlib._Hash | None = None) -> list[Row]:
        """Return all rows in order, and update `digest` with their content: files' sizes and bytes, or the values of hub rows.

        Raises `InvalidInput` if there are no files, or if they are empty, of another type, or broken.
        """
        return list(self.stream(digest))

    @property
    def is_local(self) -> bool:
        """True if the rows come from files: they exist, or no hub is given."""
        return bool(self.file) and (self.hub is None or Path(str(self.file)).exists())

    @property
    def size(self) -> int:
        """Bytes of the files; 0 for a hub's rows. Raises `InvalidInput`."""
        parts = self._files(Path(str(self.file))) if self.is_local else []
        return sum(part.stat().st_size for part in parts if part.is_file())

    def digest_files(self, digest: hashlib._Hash) -> None:
        """Update `digest` as `read` does, without parsing rows. Raises `InvalidInput`."""
        assert self.is_local, "a hub's rows have no files"
        for part in self._files(Path(str(self.file))):
            try:
                digest.update(part.stat().st_size.to_bytes(8, "big"))
                _digest_bytes(part, digest)
            except OSError as error:
                raise InvalidInput(f"{part} is not readable: {error.strerror}") from error

    def stream(self, digest: hashlib._Hash | None = None) -> Iterator[Row]:
        """Yield the rows one by one, as `read` returns them; JSON-lines files are never in memory as a whole."""
        digest = digest or hashlib.sha256()
        require(self.is_named, "file", self.file, "a file or the name of a data set (hub) is needed")
        if not self.is_local:
            yield from self._read_hub(digest)
            return
        path, count = Path(str(self.file)), 0
        for part in self._files(path):
            for row in self._read_file(part, digest):
                count += 1
                yield row
        if not count:
            raise InvalidInput(f"{path} is empty: it needs one JSON object per line, or rows of another kind")

    def _files(self, path: Path) -> list[Path]:
        if not path.is_dir():
            return [path]
        found = self.parts(path)
        if not found:
            raise InvalidInput(
                f"{path} has no file named {self.split}*: one that ends in {', '.join(SUFFIXES)} is needed"
            )
        if len({part.suffix for part in found}) > 1:
            kinds = ", ".join(part.name for part in found)
            raise InvalidInput(f"{path} holds split {self.split!r} in several kinds ({kinds}): name one as the file")
        return found

    def parts(self, folder: Path) -> list[Path]:
        """Return the files of `folder` that are named after the split, in order."""
        named = re.compile(rf"{re.escape(self.split)}(?![a-z0-9])", re.IGNORECASE)
        return sorted(part for part in folder.iterdir() if part.suffix in SUFFIXES and named.match(part.name))

    def _read_file(self, path: Path, digest: hashlib._Hash) -> Iterator[Row]:
        if path.suffix not in SUFFIXES:
            raise InvalidInput(f"{path} is not allowed: rows come from files that end in {', '.join(SUFFIXES)}")
        try:
            size = path.stat().st_size
            digest.update(size.to_bytes(8, "big"))
            if path.suffix == ".jsonl":
                yield from self._json_lines(path, digest)
                return
            if path.suffix == ".parquet":
                _digest_bytes(path, digest)
                content = b""
            else:
                content = path.read_bytes()
        except OSError as error:
            raise InvalidInput(f"{path} is not readable: {error.strerror}") from error
        digest.update(content)
        values: Iterable[Any]
        if path.suffix == ".parquet":
            values = parquet_rows(path)
        elif path.suffix == ".csv":
            values = csv_rows(decoded(content, str(path)), path)
        else:
            values = json_array(decoded(content, str(path)), path)
        for number, value in enumerate(values, start=1):
            yield self._whole_row(value, f"{path}, row {number}")

    def _whole_row(self, value: Any, where: str) -> Row:
        row = _row(value, where)
        for name, held in row.fields.items():
            count = characters(held)
            if count > self.max_row_chars:
                row.refuse(name, held, f"it has {count} characters, and at most {self.max_row_chars} are read")
        return row

    def _json_lines(self, path: Path, digest: hashlib._Hash) -> Iterator[Row]:
        with path.open("rb") as stream:
            for number, line in enumerate(stream, start=1):
                digest.update(line)
                where = f"{path}, line {number}"
                text = decoded(line, str(path), f"line {number}, ").rstrip("\n")
                if len(text) > self.max_row_chars:
                    allowed = f"a line has at most {self.max_row_chars}"
                    raise InvalidInput(f"{where}: {len(text)} characters are not allowed: {allowed}")
                if text.strip():
                    yield _row(parsed(text, where), where)

    def _read_hub(self, digest: hashlib._Hash) -> list[Row]:
        """Load rows from the hub; any error of `datasets` becomes an `InvalidInput` with the error's first line."""
        assert self.hub is not None, "a file that is missing was refused before"
        require(not Path(self.hub).exists(), "hub", self.hub, "a folder of that name is here; give it as the file")
        try:
            values = [plain(value) for value in self._load()]
        except Exception as error:
            lines = str(error).strip().splitlines() or [""]
            reason = f"{type(error).__name__}: {lines[0][:REASON_CHARS]}"
            beside = f"{self.file} is not there, and " if self.file else ""
            raise InvalidInput(
                f"{beside}the data set {self.hub!r} cannot be had from the hub ({reason}); "
                f"give a file of yours as `file` ({', '.join(SUFFIXES)}, or a folder); gated data sets need a login"
            ) from error
        if not values:
            raise InvalidInput(f"{self.hub}: the split {self.split!r} is empty")
        for value in values:
            digest.update(json.dumps(value, sort_keys=True).encode() + b"\n")
        place = f"{self.hub}, {self.split}"
        return [self._whole_row(value, f"{place}, row {number}") for number, value in enumerate(values, start=1)]

    def _load(self) -> Iterable[Any]:
        assert self.hub is not None, "asked for the hub's rows only"
        return hub.load(self.hub, self.config, self.split, self.revision, self.hub_files)


def _digest_bytes(path: Path, digest: hashlib._Hash) -> None:
    with path.open("rb") as stream:
        while block := stream.read(BLOCK_BYTES):
            digest.update(block)


def path_of(file: str | None, folder: str | None, name: str | None, field: str) -> Path:
    """Return the path `file`, or, from old artefacts' configurations, `name` in `folder`."""
    if file is None and folder is not None and name is not None:
        return Path(folder) / name
    require(bool(file), field, file, "it must name a file")
    require(folder is None and name is None, field, file, "it is enough; folder and name say the same in two parts")
    return Path(str(file))


def bytes_digest(path: Path) -> str:
    """Return a hash (16 hex digits) of a file's bytes. Raises `InvalidInput` if the file is unreadable."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    except OSError as error:
        raise InvalidInput(f"{path} is not readable: {error.strerror}") from error


def _row(value: Any, where: str) -> Row:
    """Return a row from a JSON object; a bare list of messages (Open-Reasoner-Zero) becomes its field `conversations`."""
    if isinstance(value, list) and value and all(isinstance(message, dict) for message in value):
        return Row({CONVERSATIONS: value}, where)
    if not isinstance(value, dict):
        raise InvalidInput(f"{where}: a JSON object is needed, not {type(value).__name__}")
    return Row(value, where)
