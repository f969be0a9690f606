"""The batch script: its text, word for word, and what bash makes of it with programs in the place of SLURM's own."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from r1_lightning.run.commands.sbatch import Job, Task, render
from r1_lightning.run.config.exit_codes import AGAIN
from r1_lightning.types.errors import InvalidInput
from tests.run.config.test_slurm import settings

GOLDEN = Path(__file__).with_name("job.sh.txt")
# Everything that a shell, or SLURM's reading of `#SBATCH`, could take for more than text.
HOSTILE = (
    "name=$(touch hurt)",
    "name=`touch hurt`",
    "name='; touch hurt; '",
    'name="; touch hurt; "',
    "name=a\n#SBATCH --nodes=99\ntouch hurt",
    "name=\\",
    "name=!!",
    "name=*",
    "name=~ $HOME ${HOME}",
    "",
    "-n",
    "name=中文 𝔘",
    "@SETUP@ @SRUN@ @AGAIN@",
)
# srun, which writes its words and variables; the check of the folder is a step of its own, which it runs.
SRUN = """#!/usr/bin/env bash
if [ "$4" = bash ]; then [ -z "$SEEN" ] || exit "$SEEN"; exec "${@:4}"; fi
for code in $NOTES; do echo "$code" >>"$R1_EXIT_CODES"; done
printf '%s\\0' "$@" >"$TOLD/srun"
env -0 >"$TOLD/env"
exit ${CODE:-0}
"""
SCONTROL = """#!/usr/bin/env bash
echo "$*" >"$TOLD/scontrol"
"""


def job(folder: Path, words: tuple[str, ...] = ("train", "stage=grpo"), **changed: Any) -> Job:
    return Job(
        "r1-grpo-0123456789", settings(**changed), (Task(folder, words),), Path("/code"), folder.parent, "python"
    )


def test_the_text_of_a_script() -> None:
    """Every setting once; written anew by `python -m tests.run.commands.test_sbatch`."""
    assert golden() == GOLDEN.read_text(encoding="utf-8")


def golden() -> str:
    slurm = settings(
        account="proj",
        partition="gpu",
        qos="high",
        constraint="[a100|h100]",
        gres="nvme:1",
        mem="64G",
        time="04:00:00",
        nodes=2,
        gpus_per_node=8,
        cpus_per_task=6,
        at_once=1,
        modules=["cuda/12.6", "my module"],
        setup=["source /site/env.sh && ulimit -n 65536"],
        env={"NCCL_SOCKET_IFNAME": "ib0", "GREETING": "it's $(me)"},
        container=["apptainer", "exec", "--nv", "/images/r 1.sif"],
        srun_args=["--cpu-bind=none"],
        sbatch_args=["--reservation=r1"],
    )
    tasks = [
        Task(Path(f"/shared/my runs/slurm/grpo-{digit * 10}"), ("train", "stage=grpo", f"seed={digit}", "name=a 'b'"))
        for digit in "01"
    ]
    return render(
        Job("r1-grpo", slurm, tuple(tasks), Path("/shared/my runs/slurm/code/abc"), Path("/shared/here"), "python3", 8)
    )


def executed(folder: Path, text: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a script by bash as SLURM would, with small programs as srun and scontrol; what they were told lies in `folder`."""
    programs = folder / "bin"
    programs.mkdir(exist_ok=True)
    for name, program in (("srun", SRUN), ("scontrol", SCONTROL)):
        (programs / name).write_text(program)
        (programs / name).chmod(0o755)
    script = folder / "job.sh"
    script.write_text(text)
    around = {"SLURM_JOB_ID": "7", "SLURM_JOB_NUM_NODES": "1", "SLURM_JOB_NODELIST": "n1", "SLURM_NODEID": "0"}
    path = f"{programs}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, **around, "PATH": path, "TOLD": str(folder), "RANK": "3", **variables}
    return subprocess.run(["bash", script], capture_output=True, text=True, env=environment, cwd=folder, timeout=60)


def told(folder: Path, name: str = "srun") -> list[str]:
    return (folder / name).read_text(encoding="utf-8").split("\0")[:-1]


def test_no_word_is_more_than_text_to_bash(tmp_path: Path) -> None:
    folder = tmp_path / "it's $(touch hurt) `x` 中 #"
    hostile = {"env": {"TEXT": HOSTILE[4]}, "container": ["run in", "$(touch hurt)"]}
    done = executed(tmp_path, render(job(folder, ("train", *HOSTILE), **hostile)))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert told(tmp_path)[-len(HOSTILE) - 1 :] == ["train", *HOSTILE]
    assert told(tmp_path)[:4] == ["--kill-on-bad-exit=1", "run in", "$(touch hurt)", "python"]
    variables = dict(word.partition("=")[::2] for word in told(tmp_path, "env"))
    assert variables["TEXT"] == HOSTILE[4] and "RANK" not in variables
    assert variables["PYTHONPATH"].split(os.pathsep)[0] == "/code"
    assert not list(tmp_path.rglob("hurt"))
    assert [path.name for path in folder.iterdir() if "seen" in path.name] == []


def test_each_option_is_one_word_to_sbatch(tmp_path: Path) -> None:
    text = render(job(tmp_path / "it's $(touch hurt) 50%j", ("train", HOSTILE[4])))
    head = text[: text.index("\n\n")].splitlines()
    assert head[0] == "#!/usr/bin/env bash" and all(line.startswith("#SBATCH --") for line in head[1:])
    words = [shlex.split(line, comments=False)[1:] for line in head[1:]]
    assert all(len(word) == 1 for word in words)
    assert [f"--output={tmp_path}/it's $(touch hurt) 50%%j/slurm-%j.txt"] in words


def test_a_fresh_job_names_the_file_of_the_run_that_it_begins(tmp_path: Path) -> None:
    folder = tmp_path / "it's $(touch hurt)"
    executed(tmp_path, render(replace(job(folder), fresh=True)))
    assert f"R1_FRESH={folder}/fresh.txt" in told(tmp_path, "env") and not (tmp_path / "hurt").exists()
    executed(tmp_path, render(job(folder)))
    assert not any(word.startswith("R1_FRESH=") for word in told(tmp_path, "env"))


@pytest.mark.parametrize("name", ["two\nlines", "back\\slash", "bell\a"])
def test_a_folder_that_slurm_cannot_name_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidInput, match=r"^paths\.root="):
        render(job(tmp_path / name))


@pytest.mark.parametrize("code", [0, 1, 2, 124])
def test_the_exit_code_of_the_run_is_the_job_s(tmp_path: Path, code: int) -> None:
    done = executed(tmp_path, render(job(tmp_path / "run")), CODE=str(code))
    assert done.returncode == code and not (tmp_path / "scontrol").exists()
    assert [line.split()[3:] for line in (tmp_path / "run" / "attempts.txt").read_text().splitlines()] == [
        ["started", "n1"],
        ["ended", str(code)],
    ]


@pytest.mark.parametrize("code", AGAIN)
def test_saved_means_queued_again_until_the_limit(tmp_path: Path, code: int) -> None:
    """max_requeues=2: after the first and second attempt (0 and 1 restarts) again, after the third no more."""
    text = render(job(tmp_path / "run", max_requeues=2))
    for restarts in (0, 1):
        executed(tmp_path, text, CODE=str(code), SLURM_RESTART_COUNT=str(restarts))
        assert (tmp_path / "scontrol").read_text() == "requeue 7\n"
        (tmp_path / "scontrol").unlink()
    done = executed(tmp_path, text, CODE=str(code), SLURM_RESTART_COUNT="2")
    assert done.returncode == code and not (tmp_path / "scontrol").exists()
    assert sorted(path.name for path in (tmp_path / "run").glob("log-*")) == [f"log-7-{n}.txt" for n in (1, 2, 3)]
    assert (tmp_path / "run" / "latest.txt").resolve().name == "log-7-3.txt"


@pytest.mark.parametrize(
    ("told_by_srun", "noted", "code"),
    [
        (75, "2 75 75", 2),  # a rank was refused, and srun's SIGTERM met the others, which answer 75
        (143, "75 1", 1),
        (137, "75 2", 2),  # SIGKILL, for one that did not answer SIGTERM
        (124, "0 124", 124),
        (75, "75 0 143", 75),
        (138, "", 138),  # no task could write: srun's code, as before
        (1, "75", 1),
        (75, "damaged *", 75),
        (0, "2", 0),  # noted by a command inside the run, which went well
    ],
)
def test_the_first_bad_code_that_a_task_noted_is_the_job_s(
    tmp_path: Path, told_by_srun: int, noted: str, code: int
) -> None:
    done = executed(tmp_path, render(job(tmp_path / "run")), CODE=str(told_by_srun), NOTES=noted)
    assert done.returncode == code
    assert (tmp_path / "scontrol").exists() == (code in AGAIN)
    assert not list((tmp_path / "run").glob("codes-*"))


@pytest.mark.parametrize(("seen", "code"), [(1, 2), (138, 138), (143, 143)])
def test_a_signal_while_the_nodes_look_for_the_folder_means_again(tmp_path: Path, seen: int, code: int) -> None:
    """SLURM's warning may come then already; a node that does not see the folder is bad input."""
    done = executed(tmp_path, render(job(tmp_path / "run")), SEEN=str(seen))
    assert done.returncode == code and not (tmp_path / "srun").exists()
    assert (tmp_path / "scontrol").exists() == (code in AGAIN)
    assert not list((tmp_path / "run").glob("seen-*"))


def test_an_array_s_task_takes_its_own_words(tmp_path: Path) -> None:
    tasks = tuple(Task(tmp_path / f"run {seed}", ("train", f"seed={seed}")) for seed in (5, 6))
    text = render(Job("r1", settings(), tasks, Path("/code"), tmp_path, "python"))
    assert "#SBATCH --array=0-1\n" in text and "slurm-%A_%a.txt" in text
    executed(tmp_path, text, SLURM_ARRAY_JOB_ID="9", SLURM_ARRAY_TASK_ID="1")
    assert told(tmp_path)[-1] == "seed=6" and (tmp_path / "run 6" / "log-9_1-1.txt").is_file()
    assert not (tmp_path / "run 5").exists()


if __name__ == "__main__":
    GOLDEN.write_text(golden(), encoding="utf-8")
    sys.exit(0)
