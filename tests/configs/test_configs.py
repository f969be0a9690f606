"""Every option and every experiment composes, and every target takes what its file gives it."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from omegaconf import OmegaConf

from r1_lightning.run.checks.validate import validate
from r1_lightning.run.config.compose import SHARED_GROUPS, compose_parent, compose_stage, composing, options
from r1_lightning.run.graph.fingerprints import COUNTED

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
GROUPS = (
    "model",
    "task",
    "data",
    "rollout",
    "reward",
    "optim",
    "precision",
    "trainer",
    "callbacks",
    "logger",
    "launcher",
    "paths",
    "objective",
    "stage",
    "benchmarks",
    "experiment",
    "debug",
)
FILES = sorted(
    path.relative_to(CONFIGS).with_suffix("").as_posix()
    for path in CONFIGS.glob("*/*.yaml")
    if path.parent.name != "table"  # no options of train.py: tests/run/commands/tables reads them
)
# Options that fit one stage only.
STAGE_OF = {
    "data/chat": "sft",
    "data/text": "pretrain",
    "data/grouped_rollouts": "grpo",
    "data/preference_pairs": "reward_model",
    "data/preference_file": "reward_model",
    "data/preference_samples": "reward_model",
    "data/judged_preferences": "reward_model",
    "data/general_preferences": "reward_model",
    "data/safety_labels": "reward_model",
    "data/teacher_traces": "distill",
    "data/teacher_cache": "distill",
    "data/on_policy": "distill",
    "benchmarks/all": "sample",
    "objective/forward_kl": "distill",
    "objective/reverse_kl": "distill",
    "objective/js": "distill",
    "objective/helpful": "reward_model",
    "objective/safety": "reward_model",
    "objective/dpo": "dpo",
    "objective/ipo": "dpo",
}
# What judges each task's answers, which is also the name of a reward that can.
JUDGED_BY = {path.stem: yaml.safe_load(path.read_text()).get("judge", "exact") for path in CONFIGS.glob("task/*.yaml")}
# Options that only another option has room for.
GOES_WITH = {
    "rollout/paper": ["model=v3_671b"],
    "reward/r1": ["task.template=r1"],
    "reward/r1_code": ["task.template=r1"],
    "reward/r1_math": ["task.template=r1"],
    "reward/r1_stage_1_code": ["task=programs"],
    "reward/reasoning_gym": ["task=reasoning_gym"],
    **{f"task/{name}": [f"reward={judge}"] for name, judge in JUDGED_BY.items() if judge != "exact"},
    "task/gsm8k_chat": ["reward=r1_math"],
    "reward/r1_opened": ["task.template=deepseek_r1"],
    "reward/r1_tiny_stage_2": ["task.template=r1"],
    "model/hf_lora": ["stage.reference_refresh_steps=0"],
    "data/preference_samples": ["rollout=default", "reward=r1_zero"],
    "data/judged_preferences": ["rollout=default", "+stage.inputs.judge={stage: pretrain}"],
    "data/safety_labels": ["objective=safety"],
    "data/on_policy": ["rollout=default"],
}

# Options whose task reads its files when it is made; the others read rows when they are first asked for one.
READ_AT_ONCE = ("task/gsm8k", "experiment/gsm8k_smoke")


@pytest.fixture(autouse=True)
def hydra() -> Iterator[None]:
    with composing():
        yield


def test_the_groups_come_in_the_order_of_the_house() -> None:
    defaults = yaml.safe_load((CONFIGS / "train.yaml").read_text())["defaults"]
    named = [next(iter(item)) for item in defaults if isinstance(item, dict)]
    assert [name for name in named if not name.startswith(("override", "optional"))] == list(GROUPS)
    assert sorted({path.split("/")[0] for path in FILES}) == sorted(GROUPS), "a folder without a group, or the reverse"


def test_every_group_is_shared_or_a_stage_s_own() -> None:
    """What a parent shares with its child, and what counts in a fingerprint, are decided for every group."""
    assert set(SHARED_GROUPS) <= set(GROUPS)
    assert set(COUNTED) - {"seed"} <= set(GROUPS)
    uncounted = set(GROUPS) - set(COUNTED)
    named_by_what_they_set = {"objective", "benchmarks", "experiment", "debug"}
    assert uncounted == {"trainer", "callbacks", "logger", "launcher", "paths", *named_by_what_they_set}


@pytest.mark.parametrize("file", FILES)
def test_every_option_composes_and_fits_its_target(file: str, request: pytest.FixtureRequest) -> None:
    group, option = file.split("/")
    judges = group in ("reward", "stage", "experiment", "task")
    if judges and "CodeReward" in OmegaConf.to_yaml(compose_stage([f"{group}={option}"]).config):
        request.getfixturevalue("isolated")  # refused where programs cannot be isolated
    stage = [f"stage={STAGE_OF[file]}"] if file in STAGE_OF else []
    data = request.getfixturevalue("shared_dir") / "data" if file in READ_AT_ONCE else "nowhere"
    config = compose_stage([f"{group}={option}", f"paths.data={data}", *stage, *GOES_WITH.get(file, [])])
    validate(config.config)  # raises for a leaf that its target does not take
    assert config.choices[group] == option
    for role, spec in config.inputs.items():
        parent = compose_parent(config, role)
        validate(parent.config)
        assert parent.name == (spec.experiment or spec.stage), role


@pytest.mark.parametrize("stage", [file.split("/")[1] for file in FILES if file.startswith("stage/")])
def test_a_stage_sets_only_what_is_its_own(stage: str) -> None:
    """A stage's file that changed a shared group would give its inputs another model than itself."""
    content = yaml.safe_load((CONFIGS / "stage" / f"{stage}.yaml").read_text())
    overridden = {key.split("/")[-1] for item in content.pop("defaults", []) for key in item}
    assert not overridden & set(SHARED_GROUPS) and not set(content) & {*SHARED_GROUPS, "seed"}


@pytest.mark.parametrize("file", FILES)
def test_values_are_written_once_and_typed(file: str) -> None:
    """YAML 1.1 reads 1e-3 as text; OmegaConf does not, but a reader's tools do: numbers are written 1.0e-3."""

    def leaves(node: object) -> Iterator[object]:
        for value in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
            yield from leaves(value)
        if not isinstance(node, (dict, list)):
            yield node

    for leaf in leaves(yaml.safe_load((CONFIGS / f"{file}.yaml").read_text())):
        assert not (isinstance(leaf, str) and leaf.replace("e-", "").replace(".", "").isdigit()), f"{leaf!r} is text"


def test_all_benchmarks_are_those_that_a_task_calls_so() -> None:
    """The tasks whose first line calls them a benchmark, and what MATH-500, GSM8K and MBPP hold out beside their training rows."""
    config = compose_stage(["stage=sample", "benchmarks=all"]).config
    called = {path.stem for path in CONFIGS.glob("task/*.yaml") if "a benchmark" in path.read_text().splitlines()[0]}
    assert set(config.stage.benchmarks) == called | {"math500", "gsm8k", "mbpp"}


def test_a_benchmark_says_where_its_rows_are_and_who_judges_them() -> None:
    """The guide leaves that to its file: measures are called after the task, and so is the folder."""
    for path in CONFIGS.glob("task/*.yaml"):
        if "a benchmark" not in path.read_text().splitlines()[0]:
            continue
        task = yaml.safe_load(path.read_text())
        source = task["source"]
        assert task["name"] == path.stem and task["judge"] in ("math", "code") and source["train"] is None
        assert source["test"]["file"].startswith(f"${{paths.data}}/{path.stem}/") and source["test"]["hub"], path.name


def test_the_fast_rows_hold_a_published_tokenizer_s_prompt() -> None:
    """SmolLM2's tokenizer makes 100 to 121 tokens of R1-Zero's prompt with an arithmetic question: 121 + 64 new ones are 185."""
    rollout = compose_stage(["stage=grpo", "debug=fast"]).config.rollout
    assert rollout.row_tokens >= 121 + rollout.max_new_tokens == 185


def test_options_of_every_group_are_listed() -> None:
    assert set(options("stage")) >= {"pretrain", "grpo"} and set(options("precision")) >= {"fp32", "bf16"}


# ------------------------------------------------------------------------------------------- the paper's RL schedules

# experiment -> (row of r1v2_hyperparameters.csv, what differs between the three)
SCHEDULES = {
    "paper_r1_zero": ("R1-Zero RL", {"temperature": 1.0, "steps": 10400, "clip": None, "longer": (8200, 65536)}),
    "paper_r1_stage_1": (
        "RL stage 1 (Dev2)",
        {"temperature": 1.0, "steps": None, "clip": 10.0, "longer": (None, None)},
    ),
    "paper_r1_stage_2": ("RL stage 2 (R1)", {"temperature": 0.7, "steps": 1700, "clip": 10.0, "longer": (None, None)}),
}


@pytest.mark.parametrize("experiment", SCHEDULES)
def test_the_papers_schedules_are_not_mixed_up(experiment: str) -> None:
    """R1 sections 2.1, 3.2.1, 3.2.2 and B.4; None is not printed there."""
    own = SCHEDULES[experiment][1]
    config = compose_stage([f"experiment={experiment}"]).config
    rollout, stage = config.rollout, config.stage
    assert (config.optim.lr, stage.objective.kl_coef, stage.reference_refresh_steps) == (3e-6, 0.001, 400)
    assert (rollout.prompts_per_rollout * rollout.group_size, rollout.group_size) == (8192, 16)
    assert rollout.minibatches_per_rollout == 16 and rollout.max_new_tokens == 32768
    assert rollout.sampling_temperature == own["temperature"]
    assert own["steps"] in (None, stage.max_steps) and own["clip"] in (None, stage.objective.clip_eps)
    assert (rollout.longer_from_step, rollout.longer_max_new_tokens) == own["longer"]
    assert ("language" in config.reward.rewards) == (experiment != "paper_r1_zero")


def test_general_data_and_preference_rewards_are_there_in_the_last_400_steps() -> None:
    """R1v2 section 3.2.2 and equations 8 to 10."""
    config = compose_stage(["experiment=paper_r1_stage_2"]).config
    first = config.stage.max_steps - 400
    assert dict(config.reward.from_step) == {"helpful": first, "safety": first}
    parts = config.task.source.parts
    assert {name: part.from_step for name, part in parts.items()} == {"reasoning": 0, "general": first, "safety": first}
    judged = {name: list(node.domains) for name, node in config.reward.rewards.items() if "domains" in node}
    assert judged == {"accuracy": ["reasoning"], "helpful": ["general"], "safety": ["safety"]}
    assert {node.domain for node in parts.values()} == {domain for domains in judged.values() for domain in domains}
    assert set(config.reward.weights.values()) == {1.0}
    makers = {
        role: compose_parent(compose_stage(["experiment=paper_r1_stage_2"]), role).config
        for role in ("helpful", "safety")
    }
    assert [makers[role].data.part for role in makers] == ["summary", "whole"]
    targets = [makers[role].stage.objective["_target_"].rpartition(".")[2] for role in makers]
    assert targets == ["BradleyTerry", "PointWise"]


@pytest.mark.parametrize("experiment", SCHEDULES)
def test_the_papers_schedules_are_those_of_the_table(experiment: str, shared_dir: Path) -> None:
    table = shared_dir / "facts" / "paper_tables" / "r1v2_hyperparameters.csv"
    lines = [line for line in table.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    printed = {row["stage"]: row for row in csv.DictReader(lines)}[SCHEDULES[experiment][0]]
    config = compose_stage([f"experiment={experiment}"]).config
    rollout, stage = config.rollout, config.stage
    ours = {
        "lr": config.optim.lr,
        "kl_coef_beta": stage.objective.kl_coef,
        "rollout_temperature": rollout.sampling_temperature,
        "outputs_per_question_G": rollout.group_size,
        "outputs_per_rollout": rollout.prompts_per_rollout * rollout.group_size,
        "minibatches": rollout.minibatches_per_rollout,
        "batch_per_step": rollout.prompts_per_rollout * rollout.group_size // rollout.minibatches_per_rollout,
        "ref_refresh_steps": stage.reference_refresh_steps,
        "clip_eps": stage.objective.clip_eps,
        "steps": stage.max_steps,
    }
    compared = 0
    for name, value in ours.items():
        text = printed[name].replace("(retained)", "").strip()
        if text and text != "not stated":
            assert float(text) == value, name
            compared += 1
    assert compared >= 8


# --------------------------------------------------------------------------------------------------- the paper's students

# experiment -> (student in r1v2_table6_distill_lr.csv, its learning rate), R1v2 table 6
STUDENTS = {
    "distill_qwen_1_5b": ("DeepSeek-R1-Distill-Qwen-1.5B", 1e-4),
    "distill_qwen_7b": ("DeepSeek-R1-Distill-Qwen-7B", 8e-5),
    "distill_qwen_14b": ("DeepSeek-R1-Distill-Qwen-14B", 7e-5),
    "distill_qwen_32b": ("DeepSeek-R1-Distill-Qwen-32B", 6e-5),
    "distill_llama_8b": ("DeepSeek-R1-Distill-Llama-8B", 5e-5),
    "distill_llama_70b": ("DeepSeek-R1-Distill-Llama-70B", 2e-5),
}


@pytest.mark.parametrize("experiment", STUDENTS)
def test_the_students_are_trained_as_the_paper_says(experiment: str) -> None:
    """R1v2 B.4.3: 2 to 3 passes, a cosine to a tenth of the first learning rate, 32,768 tokens, batches of 64; SFT only."""
    composed = compose_stage([f"experiment={experiment}"])
    config = composed.config
    validate(config)
    assert composed.stage == "sft" and config.model["_target_"].endswith("HFModelConfig")
    assert (config.optim.lr, config.optim.final_lr_factor) == (STUDENTS[experiment][1], 0.1)
    assert (config.data.row_tokens, config.data.examples_per_batch) == (32768, 64)
    assert config.data.epochs in (2, 3) and config.stage.max_steps is None
    assert config.task.template == "r1" and not config.get("reward")


def test_the_students_are_those_of_the_table(shared_dir: Path) -> None:
    table = shared_dir / "facts" / "paper_tables" / "r1v2_table6_distill_lr.csv"
    lines = [line for line in table.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    printed = {row["student"]: row for row in csv.DictReader(lines)}
    assert dict(STUDENTS.values()) == {student: float(row["initial_lr"]) for student, row in printed.items()}
    for experiment, (student, _) in STUDENTS.items():
        text = (CONFIGS / "experiment" / f"{experiment}.yaml").read_text(encoding="utf-8")
        assert f"{student} as published" in text and f"of {printed[student]['base_model']}," in text


def test_fine_tuning_by_default_is_that_of_r1() -> None:
    """R1v2 B.4.2: a cosine from 5e-5 to 5e-6, 2 to 3 passes."""
    config = compose_stage(["stage=sft"]).config
    assert (config.optim.lr, config.optim.lr * config.optim.final_lr_factor) == (5e-5, pytest.approx(5e-6))
    assert config.data.epochs in (2, 3) and config.stage.mtp_loss_weight > 0


# experiment -> the experiments it takes, R1v2 figure 2 (students: section 3.1, another base on the data of Dev3)
GRAPH = {
    "r1_base_tiny": {},
    "r1_zero_family": {"base": "r1_base_tiny"},
    "r1_cold_start_tiny": {"base": "r1_zero_family"},
    "r1_dev1_tiny": {"base": "r1_base_tiny", "data": "r1_cold_start_tiny"},
    "r1_dev2_tiny": {"base": "r1_dev1_tiny"},
    "r1_800k_tiny": {"base": "r1_dev2_tiny"},
    "r1_dev3_tiny": {"base": "r1_base_tiny", "data": "r1_800k_tiny"},
    "r1_helpful_tiny": {"base": "r1_base_tiny"},
    "r1_safety_tiny": {"base": "r1_base_tiny"},
    "r1_model_tiny": {"base": "r1_dev3_tiny", "helpful": "r1_helpful_tiny", "safety": "r1_safety_tiny"},
    "r1_student_tiny": {"base": "r1_student_base_tiny", "data": "r1_800k_tiny"},
    "r1_student_rl_tiny": {"base": "r1_student_base_tiny"},
}


def test_the_graph_of_r1_is_the_papers(isolated: None) -> None:
    """Both fine-tunings begin with the base, the first RL with the first of them, the second with the second."""
    composed = {name: compose_stage([f"experiment={name}"]) for name in GRAPH}
    found = {name: {role: spec.experiment for role, spec in config.inputs.items()} for name, config in composed.items()}
    assert found == GRAPH
    language = {
        name: config.config.reward.weights.get("language")
        for name, config in composed.items()
        if config.stage == "grpo"
    }
    assert language == {"r1_zero_family": None, "r1_dev2_tiny": 1.0, "r1_model_tiny": 1.0, "r1_student_rl_tiny": None}
    templates = {name: config.config.task.template for name, config in composed.items()}
    in_r1_form = {name for name, template in templates.items() if template == "r1"}
    assert in_r1_form == set(GRAPH) - {
        *("r1_base_tiny", "r1_zero_family", "r1_cold_start_tiny", "r1_student_base_tiny", "r1_student_rl_tiny")
    }
