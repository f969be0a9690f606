"""Bands in files: one JSON file per experiment in `expected/`, found by the settings of a run, and made from finished runs.

Some are shipped with the package. Those that a person makes lie in a folder of the same name beside the runs (`runs/expected/`),
where every review of a run beside them finds them; of two that are equally near, a person's own counts.

    {"experiment": "r1_zero_tiny", "seeds": [0, 1, 2], "window": 1,
     "series": {"rollout/reward_mean": {"steps": [...], "low": [...], "high": [...]}}, "settings": {"optim.lr": "0.0001", ...}}

A run is compared with the band whose settings are nearest to its own: the same model, the same classes of stage, task, data,
rewards and optimizer, and at most MOST_DIFFERENCES settings that differ, which are told beside the verdict. Seed, device and
folders do not count.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from r1_lightning.artefacts.file_names import CONFIG, MARKER
from r1_lightning.artefacts.files import write_text
from r1_lightning.review.bands import MOST_POINTS, Band, Bounds, make_band
from r1_lightning.review.run_files import LONGEST, read_mapping, settings_of
from r1_lightning.review.series import NAME, Series, read_series
from r1_lightning.types.errors import InvalidInput, require

FOLDER = "expected"  # in the package, and beside runs
MAX_BYTES, MAX_BANDS = 2**19, 100  # of a file, and of files beside a run; a shipped one has 4 to 20 KB
MOST_DIFFERENCES = 4
# The metrics of a band, where a run logs them: what is learned, and what goes wrong first. Not the KL divergence, which single
# tokens move by orders of magnitude, nor speed, which is the machine's.
BANDED = (
    "rollout/reward_mean",
    "rollout/accuracy_mean",
    "rollout/format_mean",
    "rollout/language_mean",
    "rollout/score_mean",
    "rollout/completion_tokens_mean",
    "rollout/finished_fraction",
    "rollout/mixed_language_fraction",
    "rollout/zero_variance_fraction",
    "policy/entropy",
)
LOSS = "train/loss"  # of every stage but RL, whose loss says nothing
SAME_GROUP, SAME_LEAF = "model.", "_target_"  # settings in which a run and its band must agree


def read_band(text: str, source: str) -> Band:
    """Return the band written in JSON. Raises `InvalidInput` naming `source` for anything else."""
    try:
        value = json.loads(text)
        series = {str(name): _bounds(bounds) for name, bounds in value["series"].items()}
        settings = {str(key): str(text) for key, text in value.get("settings", {}).items()}
        seeds, window = tuple(int(seed) for seed in value["seeds"]), int(value["window"])
        if not all(map(NAME.fullmatch, series)):
            raise ValueError("a curve's name is none that a run logs")
        band = Band(_seen(str(value["experiment"]))[:LONGEST], seeds, series, window, settings)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise InvalidInput(f"{source} is not allowed: it is no band ({' '.join(str(error).split())})") from error
    require(band.window >= 1, f"{source}: window", band.window, "it must be at least 1")
    return band


def _bounds(value: Mapping[str, Any]) -> Bounds:
    steps = tuple(int(step) for step in value["steps"])
    low, high = (tuple(float(number) for number in value[key]) for key in ("low", "high"))
    if not len(steps) == len(low) == len(high) or not steps or list(steps) != sorted(set(steps)):
        raise ValueError("steps, low and high must be of one length, and steps rising")
    if not all(map(math.isfinite, (*low, *high))):
        raise ValueError("low and high must be finite")
    return Bounds(steps, low, high)


def text_of(band: Band) -> str:
    """Return the band as JSON, a line for each list of numbers, so that a difference of two versions can be read."""
    series = ",\n".join(
        f"  {json.dumps(name)}: {{\n"
        + ",\n".join(f'   "{key}": {json.dumps(list(getattr(bounds, key)))}' for key in ("steps", "low", "high"))
        + "\n  }"
        for name, bounds in sorted(band.series.items())
    )
    settings = json.dumps(dict(sorted(band.settings.items())), indent=1, ensure_ascii=False).replace("\n", "\n ")
    return (
        f'{{\n "experiment": {json.dumps(band.experiment)},\n "seeds": {json.dumps(list(band.seeds))},\n'
        f' "window": {band.window},\n "series": {{\n{series}\n }},\n "settings": {settings}\n}}\n'
    )


def write_band(path: Path, band: Band) -> None:
    """Write the band to `path`, atomically; `InvalidInput` if its folder cannot be written."""
    write_text(path, text_of(band))


@functools.cache
def shipped() -> tuple[Band, ...]:
    """Return every band that the package ships, by name."""
    folder = resources.files("r1_lightning.review").joinpath(FOLDER)
    files = sorted((file for file in folder.iterdir() if file.name.endswith(".json")), key=lambda file: file.name)
    return tuple(read_band(file.read_text(encoding="utf-8"), file.name) for file in files)


def place_of(name: str, run: Path) -> Path:
    """Return the file of the band `name` that is made for runs beside `run`."""
    return run.absolute().parent / FOLDER / f"{name}.json"


def known(run: Path) -> tuple[Band, ...]:
    """Return every band that a run in the folder `run` may be compared with: first those beside it, then the shipped ones.

    Raises `InvalidInput` for a file beside it that is no band or cannot be read, and for more than MAX_BANDS of them.
    """
    folder = place_of("", run).parent
    files = sorted(folder.glob("*.json"))
    require(len(files) <= MAX_BANDS, f"bands in {folder}", len(files), f"at most {MAX_BANDS} files are read")
    return (*map(_read_file, files), *shipped())


def _read_file(file: Path) -> Band:
    try:
        size = file.stat().st_size
        require(
            file.is_file() and size <= MAX_BYTES, "band", str(file), f"it must be a file of at most {MAX_BYTES} bytes"
        )
        return read_band(file.read_text(encoding="utf-8", errors="replace"), str(file))
    except OSError as error:
        raise InvalidInput(f"{file} cannot be read: {' '.join(str(error).split())}") from error


def band_for(settings: Mapping[str, str], bands: Sequence[Band] | None = None) -> tuple[Band, list[str]] | None:
    """Return the band nearest to these settings, and in words where they differ from the band's; None if none is near.

    A difference reads `optim.lr=0.01 (0.0001)`: the run's value, and the band's in brackets; `-` is a setting that is not there.
    """
    near = []
    for band in shipped() if bands is None else bands:
        names = sorted(set(settings) | set(band.settings))
        unlike = [name for name in names if settings.get(name) != band.settings.get(name)]
        is_other = any(name.startswith(SAME_GROUP) or name.endswith(SAME_LEAF) for name in unlike)
        if band.settings and len(unlike) <= MOST_DIFFERENCES and not is_other:
            told = [_seen(f"{name}={settings.get(name, '-')} ({band.settings.get(name, '-')})") for name in unlike]
            near.append((len(unlike), band, told))
    if not near:
        return None
    _, band, told = min(near, key=lambda one: one[0])  # the first of those that are equally near
    return band, told


def _seen(text: str) -> str:
    """Return `text` with escapes in place of what moves a terminal's cursor or shows nothing: a configuration may be anybody's."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)


def band_of_runs(experiment: str, folders: Sequence[Path]) -> Band:
    """Return the band of finished runs that differ in their seeds alone, one per seed.

    Raises `InvalidInput` for a run that is not complete, for a seed that comes twice, for other settings than the first run's, or
    for too few seeds.
    """
    seeds: list[int] = []
    curves: list[dict[str, Series]] = []
    settings: list[dict[str, str]] = []
    for folder in folders:
        config = read_mapping(folder / CONFIG)
        require(
            (folder / MARKER).is_file() and bool(config), "run", str(folder), "it must be the folder of a complete run"
        )
        seed = config.get("seed")
        if not isinstance(seed, int) or seed in seeds:
            raise InvalidInput(f"seed of {folder}={seed!r} is not allowed: it must be one that no other has")
        seeds.append(seed)
        curves.append(read_series(folder))
        settings.append(settings_of(config))
        unlike = sorted(dict(set(settings[0].items()) ^ set(settings[-1].items())))
        require(not unlike, f"settings of {folder}", ", ".join(unlike[:3]), "runs of a band differ in the seed alone")
    names = BANDED if any("rollout/reward_mean" in curve for curve in curves) else (LOSS,)
    last = max((curve[name].steps[-1] for curve in curves for name in names if name in curve), default=0)
    window = math.ceil((last + 1) / MOST_POINTS)
    found: dict[str, list[Series]] = {
        name: [curve[name].averaged(window) for curve in curves if name in curve] for name in names
    }
    return make_band(experiment, found, seeds, window, settings[0] if settings else {})
