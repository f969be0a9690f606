"""One page that tells whether a run is to be trusted: `r1 review-run runs/grpo-tiny-arithmetic-0123456789`.

The page is one HTML file, by default review.html in the run's folder, that opens without a network: verdict, curves with what is
expected of them, advisories, completions with the reason of every reward, configuration, lineage. With a second run its curves
stand over those of the first, and the same prompts are shown as both answered them. Nothing else is written.

`--band NAME RUN RUN RUN` makes what is expected: the band of an experiment, from at least three finished runs that differ in the
seed alone. Without `--out` it lies in the folder `expected` beside the first of them, where the verdicts of all runs there find it.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from r1_lightning.artefacts.files import output_folder
from r1_lightning.review.expected import band_of_runs, place_of, write_band
from r1_lightning.review.page.document import PAGE, look, write_page
from r1_lightning.run.config.machine import run_as_command
from r1_lightning.run.config.program import command_line
from r1_lightning.types.errors import require

MOST_SEEN = 2  # runs on a page
NAME = re.compile(r"[a-z0-9][a-z0-9_.]{0,99}")  # of a band, and of its file


def main() -> int:
    """The command line of `r1 review-run`; returns the exit code."""
    return run_as_command(_write)


def _write() -> int:
    parser = argparse.ArgumentParser(
        prog=command_line("review-run"),
        description=(__doc__ or "").partition("\n\n")[2],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="folders of runs, finished or not")
    parser.add_argument(
        "--out", type=Path, help=f"the file to write, in place of RUN/{PAGE} or RUN/../expected/NAME.json"
    )
    parser.add_argument("--band", metavar="NAME", help="write the band of the experiment NAME in place of a page")
    arguments = parser.parse_args()
    if arguments.band is not None:
        return _write_band(arguments.band, arguments.runs, arguments.out)
    require(len(arguments.runs) <= MOST_SEEN, "runs", len(arguments.runs), f"a page shows {MOST_SEEN} at most")
    seen = [look(folder) for folder in arguments.runs]
    out = arguments.out or arguments.runs[0] / PAGE
    size = write_page(seen[0], seen[1] if len(seen) > 1 else None, out)
    for one in seen:
        print(one.review.verdict.sentence)
    print(f"{out}: {size / 1e6:.1f} MB")
    return 0


def _write_band(name: str, runs: list[Path], out: Path | None) -> int:
    require(NAME.fullmatch(name) is not None, "band", name, "it must be of lower case letters, digits, _ and .")
    band = band_of_runs(name, runs)
    if out is None:
        out = place_of(name, runs[0])
        with output_folder(out.parent):
            out.parent.mkdir(exist_ok=True)
    write_band(out, band)
    print(f"{out}: the band of {len(band.series)} curves over {len(band.seeds)} seeds")
    return 0
