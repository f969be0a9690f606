"""Fingerprints of every experiment and every stage, as a committed list: what one says decides whether a finished run is reused.

Each is that of the stage's own settings (its inputs count as none), with small files of rows at `paths.data`. A line that
changes makes its artefacts anew for everyone: write the new list with `python tests/golden/fingerprints.py` and name each change in
docs/log.md, with its reason. Moving files of `run`, or giving a class a new home, changes none.
"""

from __future__ import annotations

from pathlib import Path

from tests.golden.fingerprints import LIST, fingerprints


def test_fingerprints_are_those_of_the_list(tmp_path: Path) -> None:
    wanted = dict(line.split() for line in LIST.read_text(encoding="utf-8").splitlines())
    found = fingerprints(tmp_path)
    assert len(found) > 60
    assert {name: digest for name, digest in found.items() if wanted.get(name) != digest} == {}
    assert sorted(wanted) == sorted(found)
