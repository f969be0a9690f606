"""The page of a run as one HTML file, which needs no network, no server, and no JavaScript to be read.

Its Content-Security-Policy allows the one script and the one style sheet in it, by their digests, and nothing else: no address, no
image, no form; so text of a model that became markup in spite of `inert_text` could still load and run nothing.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path

from r1_lightning.artefacts.files import write_text
from r1_lightning.review.advisories import Advisory
from r1_lightning.review.page import charts, phases, rollouts, two_runs
from r1_lightning.review.page.curve import number
from r1_lightning.review.page.inert_text import brief, inert, inert_lines, json_block, plain
from r1_lightning.review.page.run_facts import RunFacts, read_facts
from r1_lightning.review.rollout_records import RolloutRecord, read_records
from r1_lightning.review.verdict import Review, review
from r1_lightning.types.errors import InvalidInput

PAGE = "review.html"
ROOM = 7_000_000  # bytes of the browser of rollouts; with all else the page stays below 10 MB
ROOM_OF_PAIRS = 1_500_000  # bytes of the prompts that two runs answered
SHORT, LONG = 200, 2_000  # characters of a name, and of a setting or another line
TITLES = {
    "curves": "Curves",
    "rollouts": "Completions",
    "both": "Two runs",
    "settings": "Configuration",
    "origin": "Lineage and machine",
}


@dataclass(frozen=True)
class Seen:
    """What the files of a run say: facts, review, records as far as they can be read, and `refused`, the reason where that ends."""

    facts: RunFacts
    review: Review
    records: Sequence[RolloutRecord] = field(default_factory=list)
    refused: str = ""


def look(folder: Path) -> Seen:
    """Read all that a page shows of the run in `folder`."""
    records: list[RolloutRecord] = []
    refused = ""
    try:
        for record in read_records(folder):
            records.append(record)
    except InvalidInput as error:  # the records up to the bad line are shown
        refused = str(error)
    return Seen(read_facts(folder), review(folder), records, refused)


def write_page(own: Seen, other: Seen | None, out: Path) -> int:
    """Write the page of one run, or of two, to `out`, and return its bytes. `InvalidInput` if it cannot be written."""
    text = page(own, other)
    write_text(out, text)
    return len(text.encode())


def page(own: Seen, other: Seen | None = None) -> str:
    """Return the page as HTML."""
    known = rollouts.Numbers()
    left = {one.name: one.from_step for one in own.review.outside}
    shown = charts.charts(own.review.series, None if other is None else other.review.series, own.review.band, left)
    verdicts = _verdict(own) + ("" if other is None else _verdict(other, "The other run: "))
    parts = {
        "curves": charts.section(
            shown, [] if other is None else sorted(other.review.series.keys() - own.review.series)
        ),
        "rollouts": _rollouts(own, known),
        **({} if other is None else {"both": _both(own, other, known)}),
        "settings": _settings(own.facts),
        "origin": _origin(own),
    }
    links = " ".join(f'<a href="#{name}">{TITLES[name]}</a>' for name in parts)
    body = "".join(f'<section id="{name}"><h2>{TITLES[name]}</h2>{part}</section>' for name, part in parts.items())
    data = json_block({"samples": known.samples, "curves": charts.readings(shown)})
    names = _name(own.facts) + ("" if other is None else f" beside {_name(other.facts)}")
    return (
        f"{_head(own.facts.label[:SHORT])}<body><h1>{names}</h1>{verdicts}<nav>{links}</nav><main>{body}</main>"
        f'<script type="application/json" id="data">{data}</script><script>{_asset("page.js")}</script></body></html>\n'
    )


def _name(facts: RunFacts) -> str:
    folder = "" if facts.label == facts.folder.name else f" <small>{brief(facts.folder.name, SHORT)}</small>"
    return brief(facts.label, SHORT) + folder


def _head(title: str) -> str:
    policy = (
        f"default-src 'none'; script-src '{_digest('page.js')}'; style-src '{_digest('page.css')}'; base-uri 'none'; "
    )
    policy += "form-action 'none'"
    return (
        f'<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><meta name="referrer" content="no-referrer">'
        f"<title>{plain(title)}</title><style>{_asset('page.css')}</style></head>"
    )


def _asset(name: str) -> str:
    return files("r1_lightning.review.page").joinpath(name).read_text(encoding="utf-8")


def _digest(name: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(_asset(name).encode()).digest()).decode()}"


def _verdict(seen: Seen, prefix: str = "") -> str:
    verdict = seen.review.verdict
    state = "".join(letter if letter.isalpha() else "-" for letter in verdict.state)
    rows = "".join(map(_advisory, seen.review.advisories))
    names = ("advisory", "from step", "value", "rule", "threshold", "first step to take")
    head = f"<thead><tr>{''.join(f'<th>{name}</th>' for name in names)}</tr></thead>"
    table = f'<table class="advisories">{head}{rows}</table>' if rows else "<p>No advisory.</p>"
    return f'<p class="sentence {state}">{prefix}{inert(verdict.sentence)}</p>{_outside(seen.review)}{table}'


def _outside(seen: Review) -> str:
    """Return which curves leave the band, and the settings in which the run differs from those that made it."""
    rows = "".join(
        f"<tr><th>{inert(one.name)}</th><td>{one.from_step}</td><td>{number(one.value)}</td>"
        f"<td>{number(one.low)} to {number(one.high)}</td></tr>"
        for one in seen.outside
    )
    head = "<thead><tr><th>outside the band</th><th>from step</th><th>value</th><th>expected</th></tr></thead>"
    unlike = f"<p>Other settings than the band's: {inert(', '.join(seen.unlike))}.</p>" if seen.unlike else ""
    return unlike + (f"<table>{head}{rows}</table>" if rows else "")


def _advisory(advisory: Advisory) -> str:
    rule = advisory.rule + (f" ({advisory.exactly})" if advisory.exactly else "")
    cells = (advisory.from_step, advisory.value, rule, advisory.threshold, advisory.advice)
    return f"<tr><th>{inert(advisory.name)}</th>{''.join(f'<td>{inert(_text(cell))}</td>' for cell in cells)}</tr>"


def _text(value: object) -> str:
    return "-" if value is None else number(value) if isinstance(value, float) else str(value)


def _rollouts(seen: Seen, known: rollouts.Numbers) -> str:
    refused = f'<p class="refused">The records end early: {inert(seen.refused)}</p>' if seen.refused else ""
    if not seen.records:
        return f"{refused}<p>This run left no records of its completions.</p>"
    return f'{refused}<div id="tools"></div>{rollouts.section(seen.records, ROOM, known)}'


def _both(own: Seen, other: Seen, known: rollouts.Numbers) -> str:
    rows = two_runs.differences(own.facts.settings, other.facts.settings)
    pairs = two_runs.answered_by_both(own.records, other.records)
    return f"{two_runs.settings_table(rows)}<h3>Answered by both</h3>{two_runs.section(pairs, ROOM_OF_PAIRS, known)}"


def _settings(facts: RunFacts) -> str:
    return f"<details><summary>{len(facts.settings)} settings</summary>{_table(facts.settings)}</details>"


def _origin(seen: Seen) -> str:
    facts = seen.facts
    lines = "".join(f"<li>{' · ' * depth}{brief(line, LONG)}</li>" for depth, line in facts.lineage)
    told = phases.phases(seen.review.series, facts.settings, facts.work)
    rows = "".join(
        f"<tr><th>{phase.name}</th><td>{phases.seconds(phase.seconds)}</td>"
        f"<td>{'-' if phase.tokens is None else f'{phase.tokens:,.0f}'}</td></tr>"
        for phase in told
    )
    work = "" if facts.work is None else f"<p>{phases.seconds(facts.work.seconds)} of work in all{_unknown(facts)}.</p>"
    timed = f"<table><thead><tr><th>phase</th><th>time</th><th>tokens</th></tr></thead>{rows}</table>" if rows else ""
    results = f"<pre>\n{inert_lines(facts.table)}</pre>" if facts.table else _table(facts.metrics)
    return (
        f'<p>{facts.state}</p><ul class="lineage">{lines}</ul><h3>Time and tokens</h3>{work}{timed}'
        f"<h3>Machine</h3>{_table(facts.environment)}<h3>Results</h3>{results}"
    )


def _unknown(facts: RunFacts) -> str:
    count = 0 if facts.work is None else facts.work.n_unknown
    return f", and {count} processes that did not say when they ended" if count else ""


def _table(values: Mapping[str, str]) -> str:
    rows = "".join(
        f"<tr><th>{brief(name, SHORT)}</th><td>{brief(value, LONG)}</td></tr>" for name, value in values.items()
    )
    return f"<table>{rows}</table>"
