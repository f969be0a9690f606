"""Every line that README.md and docs/guide.md tell a reader to type, taken from the documents, at small size."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from r1_lightning.run.checks.validate import validate
from r1_lightning.run.commands import reproduce_table
from r1_lightning.run.commands.notebook import load, save
from r1_lightning.run.config.compose import compose_stage, composing
from r1_lightning.run.config.program import SCRIPT_OF
from r1_lightning.run.config.stage_config import StageConfig
from r1_lightning.run.graph.plan import plan
from tests.run.documented import Piece, commands, fill, options, programs, unfilled
from tests.run.readers_things import planned, trained
from tests.support.commands import CONFIGS, ROOT, SMALL_MODEL, environment

COMMANDS, OPTIONS = commands(), options()

# What a section is about: its options are typed beside this, unless they name a stage of their own.
SECTIONS = {
    "Reward models": ("stage=reward_model",),
    "DPO": ("stage=dpo",),
    "Fine-tuning": ("stage=sft", "data.examples.file=FILE"),
    "Distillation": ("stage=distill",),
    "Rejection sampling": ("stage=sample",),
    "On a cluster": ("launcher=slurm",),
}
# Sections about a command that reads KEY=VALUE words itself: how it reads them.
OTHERS = {"Tables of the papers": reproduce_table.parse}
SCORED = ("reward=model_score", "+stage.inputs.score.folder=FOLDER")
STUDENT = ("experiment=distill_qwen_1_5b", "init_from=FOLDER", "data.examples.file=FILE")
# What the sentence around an option asks for besides, and what it stands for.
BESIDE: dict[str, tuple[str, ...]] = {
    "reward=model_score": ("stage=grpo",),
    "+stage.inputs.score.folder=FOLDER": ("stage=grpo", *SCORED[:1]),
    "reward.rewards.score.part=summary": ("stage=grpo", *SCORED),
    "reward=r1_stage_2 task=r1_stage_2": ("stage=grpo", "paths.data=FOLDER"),
    "Rewards: reward=r1": ("task.template=r1",),
    "task.template=r1": ("reward=r1",),
    "task.source.train.file=FILE": ("task=rows", "init_from=FOLDER", "reward=math"),
    "task.source.unreadable=drop": ("task=rows", "task.source.train.file=FILE", "init_from=FOLDER", "reward=math"),
    "reward.rewards.accuracy.code.packages=[numpy]": ("reward=code",),
    "+data.validation_rows=200": ("stage=sft", "data.examples.file=FILE"),
    "callbacks.evaluation.best=val/loss": ("stage=sft", "data.examples.file=FILE", "+data.validation_rows=10"),
    "data=preference_file": ("stage=reward_model", "data.preferences.file=FILE"),
    "task=programs stage.evaluation.problems=400": ("reward=code",),
    "experiment=paper_r1_stage_2": ("paths.data=FOLDER",),
    "data.preferences.file=FILE": ("stage=reward_model", "data=preference_file"),
    "objective=safety": ("stage=reward_model", "data=safety_labels"),
    "+stage.inputs.data.folder=FOLDER": ("stage=sft",),
    "experiment=distill_qwen_1_5b": STUDENT[1:],
    "Fine-tuning: init_from=FOLDER": (STUDENT[0], STUDENT[2]),
    "Fine-tuning: data.examples.file=FILE": STUDENT[:2],
    "Data sets: init_from=FOLDER": (
        "model=hf",
        "task=mbpp",
        "paths.data=FOLDER",
        "reward=code",
        "stage.evaluation.problems=3",
    ),
    "model=hf": ("init_from=FOLDER",),
    "DPO: model=hf_lora": ("stage=dpo", "init_from=FOLDER"),
    "model=hf_lora stage.reference_refresh_steps=0": ("init_from=FOLDER",),
    "stage.shares={reasoning: 3, general: 1}": ("stage=sample", "+stage.sources.general.file=FILE"),
    "+task@stage.benchmarks.math500=math500": ("stage=sample", "paths.data=FOLDER"),
    "stage.rewrite_as=r1": ("stage=sample",),
    "task.source.manner=clean": ("task=r1_tiny",),
    "precision.rollouts_only=true": ("precision=fp8_emulated",),
    "precision.gradient_blocks=true": ("precision=fp8_emulated",),
    "precision.power_of_two_scales=false": ("precision=fp8_emulated",),
}
# Options that no test plans, and why.
UNPLANNED = {
    "data.examples.hub=OWNER/NAME": "asks the hub",
    "task.source.train.hub=OWNER/NAME": "asks the hub",
    "logger=wandb": "needs the package wandb",
    "logger=mlflow": "needs the package mlflow",
    "benchmarks=all": "reads the files of ten benchmarks; tests/configs composes it",
    "mtp=true": "an argument of export_hf.py, which README's row runs",
}
CLUSTER = "tests/run/test_slurm_jobs.py follows README's section on a SLURM of this machine"
# Commands that no test runs, and why.
UNRUN = {
    "pip install -c constraints.txt -e .": "needs a package index",
    "pip install -c constraints.txt -e .[test]": "needs a package index",
    "pip wheel . --no-deps": "tests/architecture/test_packaging.py builds one",
    "pip install -e .[tasks]": "needs a package index",
    "pip install --no-build-isolation .[fp8]": "needs a package index, and a CUDA build of torch",
    "pip install -e .[lora]": "needs a package index",
    "python scripts/train.py stage=grpo debug=fast": "what the test of `stage=grpo` types",
    "python scripts/runs.py": "tests/run/commands/test_runs.py runs it",
    "python scripts/runs.py stage=grpo": "tests/run/commands/test_runs.py runs it",
    "python scripts/review_run.py --band NAME RUN RUN RUN": "tests/run/commands/test_review_run.py makes one of three seeds",
    "python scripts/reproduce_table.py table=ID": "stands for any table; the row of table=stages is run",
    "python scripts/report.py scaling_laws": "hours, and no rows to redraw yet; tests/reports/test_scaling_laws.py draws some",
    "python benchmarks/busy.py": "tests/benchmarks/test_busy.py runs a rehearsal",
    "pytest": "would run this test",
    "pytest -m slow": "would run this test",
    "pytest -m long": "hours",
    "python scripts/board.py --port 6007": "the same server",
    "python scripts/board.py": "a server, which does not end; tests/run/commands/test_board.py asks it for its runs",
    "python scripts/what_has_run.py": "rewrites README; tests/benchmarks/test_what_has_run.py compares its table",
    "python scripts/gpu_check.py --out reports/gpu": "needs a GPU",
    "python scripts/gpu_check.py": "needs a GPU",
    "python scripts/te_check.py": "needs Transformer Engine; tests/benchmarks/te runs it with a stand-in",
    "python scripts/gpu_check.py --rehearse": "minutes; tests/benchmarks/gpu/test_command.py rehearses in parts",
    "python scripts/submit.py stage=grpo launcher.partition=NAME launcher.time=04:00:00 dry_run=true": CLUSTER,
    "python scripts/submit.py stage=grpo launcher.partition=NAME launcher.time=04:00:00": CLUSTER,
    "python scripts/submit.py -m stage=grpo seed=1,2 launcher.partition=NAME": CLUSTER,
    "python scripts/submit.py status": CLUSTER,
    "python scripts/submit.py": CLUSTER,
    "python scripts/submit.py stage=grpo launcher.partition=NAME": CLUSTER,
    "python benchmarks/run.py": "an hour; tests/benchmarks/test_run.py runs it with --quick",
}
R1 = "import sys; from r1_lightning.__main__ import main; sys.argv[0] = 'r1'; sys.exit(main())"
PLANNED = [piece for piece in OPTIONS if piece.key not in UNPLANNED and piece.section not in OTHERS]
FAST = ("debug=fast", "trainer.checkpoint_every_steps=2", "logger=none")
SHORT = (
    "stage.max_steps=1",
    "stage.evaluation=null",
    "rollout.prompts_per_rollout=1",
    "rollout.group_size=2",
    "rollout.micro_batches=1",
    "rollout.max_new_tokens=8",
    "logger=none",
)
# What makes a script's commands small: arguments that are added.
SMALL: dict[str, tuple[str, ...]] = {
    "train.py": FAST,
    "sample.py": (*FAST, "stage.problems=4"),
    "evaluate.py": ("--problems", "2", "--max-new-tokens", "8"),
    "report.py": ("--redraw",),
}


def named(piece: Piece) -> str:
    return f"{piece.document}: {piece.section}: {piece.key}"


def beside(piece: Piece) -> tuple[str, ...]:
    """What is typed beside an option: by its section and itself, by itself, by its section."""
    chosen = BESIDE.get(f"{piece.section}: {piece.key}", BESIDE.get(piece.key))
    own = any(word.startswith(("stage=", "experiment=")) for word in piece.words)
    extra = chosen if chosen is not None else () if own else SECTIONS.get(piece.section, ())
    keys = {word.partition("=")[0] for word in piece.words}
    return tuple(word for word in extra if word.partition("=")[0] not in keys)


# ---------------------------------------------------------------------------------------------------------------- options


@pytest.fixture(scope="module")
def things(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    root = tmp_path_factory.mktemp("reader")
    places = planned(root)
    return {**places, "root": str(root / "runs")}


@pytest.fixture(scope="module")
def own_options(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The configurations with what README tells a reader to write: a model, and a reward with the file it names."""
    folder = tmp_path_factory.mktemp("own")
    configs = shutil.copytree(CONFIGS, folder / "configs")
    shutil.copy(configs / "model" / "tiny.yaml", configs / "model" / "mine.yaml")
    reward = next(text for language, text in programs() if language == "yaml")
    (configs / "reward" / "mine.yaml").write_text(reward, encoding="utf-8")
    (folder / "my_rewards.py").write_text(
        next(text for _, text in programs() if "class Brevity" in text), encoding="utf-8"
    )
    return folder


def composed(piece: Piece, things: Mapping[str, str], own_options: Path) -> StageConfig:
    """The configuration that an option asks for, checked; Hydra must be initialised."""
    places = {name: place for name, place in things.items() if name != "root"}
    words = fill((*beside(piece), *piece.words), places)
    assert not unfilled(words), words
    root = [] if "paths.root=" in piece.key else [f"paths.root={things['root']}"]
    stage = compose_stage([*words, *root])
    validate(stage.config)
    return stage


@pytest.fixture
def here(own_options: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder with the reader's own files, where they type their commands."""
    monkeypatch.chdir(own_options)
    monkeypatch.syspath_prepend(str(own_options))
    with composing(own_options / "configs"):
        yield own_options


def takes_things(piece: Piece) -> bool:
    """Whether a line names something that a reader has: then its plan reads it."""
    return bool(unfilled([*beside(piece), *piece.words]))


@pytest.mark.parametrize("piece", [piece for piece in OPTIONS if piece.section in OTHERS], ids=named)
def test_another_command_reads_every_option_of_its_section(piece: Piece) -> None:
    assert OTHERS[piece.section]([*(() if "table=" in piece.key else ("table=any",)), *piece.words]).table


@pytest.mark.parametrize("piece", [piece for piece in PLANNED if not takes_things(piece)], ids=named)
def test_every_documented_option_is_composed(piece: Piece, things: Mapping[str, str], here: Path) -> None:
    assert composed(piece, things, here).stage


@pytest.mark.parametrize(
    "piece",
    [pytest.param(piece, marks=() if takes_things(piece) else pytest.mark.slow) for piece in PLANNED],
    ids=named,
)
def test_every_documented_option_is_planned(
    piece: Piece, things: Mapping[str, str], here: Path, request: pytest.FixtureRequest
) -> None:
    stage = composed(piece, things, here)
    if "CodeReward" in OmegaConf.to_yaml(stage.config):
        request.getfixturevalue("isolated")  # refused where programs cannot be isolated
    assert plan(stage).fingerprint


def test_no_table_names_what_no_document_has() -> None:
    keys = {piece.key for piece in OPTIONS}
    assert len(keys) >= 80 and set(UNPLANNED) <= keys
    places = keys | {f"{piece.section}: {piece.key}" for piece in OPTIONS}
    assert set(BESIDE) <= places and {*SECTIONS, *OTHERS} <= {piece.section for piece in OPTIONS}
    lines = {piece.key for piece in COMMANDS}
    assert len(lines) >= 35 and set(UNRUN) <= lines
    assert set(SMALL) <= {script_of(piece) for piece in COMMANDS if len(piece.words) > 1}


# --------------------------------------------------------------------------------------------------------------- commands


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    root = tmp_path_factory.mktemp("made")
    places = trained(root)
    model, tokenizer = load(places["RUN"])
    save(model, tokenizer, places["/path/to/deepseek_folder"])
    return places


def script_of(piece: Piece) -> str:
    """The script that a command runs, or would run: `r1 train` is train.py."""
    name = piece.words[1]
    return f"{SCRIPT_OF.get(name, name.replace('-', '_'))}.py" if piece.words[0] == "r1" else Path(name).name


def run(words: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, cwd=folder, env=environment(), capture_output=True, text=True, timeout=600)


@pytest.mark.slow
@pytest.mark.parametrize("piece", [piece for piece in COMMANDS if piece.key not in UNRUN], ids=named)
def test_every_documented_command_runs(piece: Piece, made: Mapping[str, str], tmp_path: Path) -> None:
    script, is_shown = script_of(piece), "--cfg" in piece.words
    more = [word for word in SMALL.get(script, ()) if word not in piece.words and not is_shown]
    if script == "train.py" and not is_shown and not any(word.startswith("init_from=") for word in piece.words):
        more += [word for word in SMALL_MODEL if word.startswith("model.")]
    if script == "train.py" and any("/path/to/" in word for word in piece.words):
        more = list(SHORT)  # debug=fast would take the settings fit for a checkpoint away
    here = tmp_path / "here"
    here.mkdir()
    (tmp_path / "shared").symlink_to(Path(made["paths.data=FOLDER"]).parent)  # where data lie by default
    if "configs" in piece.key:
        for group, option in (("model", "tiny"), ("task", "arithmetic")):
            (here / "configs" / group).mkdir(parents=True)
            shutil.copy(CONFIGS / group / f"{option}.yaml", here / "configs" / group / "mine.yaml")
    if script in ("report.py", "reproduce_table.py"):
        shutil.copytree(ROOT / "reports", here / "reports")
    words = fill((*piece.words[2:], *more), made)
    assert not unfilled(words), words
    program = ["-c", R1, piece.words[1]] if piece.words[0] == "r1" else [str(ROOT / piece.words[1])]
    done = run([sys.executable, *program, *words], here)
    assert done.returncode == 0, f"{' '.join(words)}\n{done.stdout[-1500:]}\n{done.stderr[-3000:]}"


@pytest.mark.slow
def test_the_notebook_of_the_guide_runs(made: Mapping[str, str], tmp_path: Path) -> None:
    """With the token ids that a reader has."""
    text = next(text for _, text in programs() if "r1.load" in text)
    shutil.copytree(made["RUN"], tmp_path / "folder")
    ids = "import torch\ntoken_ids = torch.tensor([[5, 6, 7]])\n"
    done = run(
        [
            sys.executable,
            "-c",
            ids + text + "assert [len(copies) for copies in texts] == [4] and logits.shape[:2] == (1, 3)",
        ],
        tmp_path,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "new_folder" / "config.json").is_file()
