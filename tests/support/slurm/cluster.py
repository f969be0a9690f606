"""A SLURM of one machine for tests: munged, slurmctld and slurmd as children of this process, in a folder that is thrown away.

It needs Debian's packages (`apt-get install --no-install-recommends slurm-wlm slurm-client munge`), no root, no systemd and nothing
below /etc. The daemons stay in the foreground, so that they end with `stop` and by their own handles. Settings that differ from
SLURM's own keep tests short:

    cred_expire=5       a job that is queued again waits so long before it starts (and one second; below 5 it would be 120)
    sched_interval=1    how often jobs that wait are looked at
    KillWait=30         from SIGTERM to SIGKILL, as SLURM has it: a busy machine takes seconds to save
    MinJobAge=3600      `scontrol show job` knows jobs that have ended
    PreemptMode=REQUEUE a job of the partition "urgent" takes the place of those of "test", which are queued again

    python -m tests.support.slurm.cluster       starts one, prints how to use it, and ends it at Ctrl-C
"""

from __future__ import annotations

import getpass
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scancel", "scontrol")
SBIN = ("/usr/sbin", "/sbin")
START_S, STOP_S = 30, 40
CONF = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_min_interval=0,sched_interval=1,bf_interval=1
SlurmdParameters=config_overrides
JobAcctGatherType=jobacct_gather/none
KillWait=30
MinJobAge=3600
ReturnToService=2
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
NodeName={host} NodeHostname={host} NodeAddr=127.0.0.1 Port={node_port} CPUs={cpus} State=UNKNOWN
PartitionName=test Nodes=ALL Default=YES MaxTime=INFINITE State=UP
PartitionName=urgent Nodes=ALL PriorityTier=2 MaxTime=INFINITE State=UP
"""


def missing() -> list[str]:
    """Return the programs of SLURM that are not installed."""
    return [name for name in PROGRAMS if shutil.which(name, path=_path()) is None]


def _path() -> str:
    return os.pathsep.join([os.environ.get("PATH", ""), *SBIN])


class Cluster:
    """One machine of `cpus` processors as a cluster; `environment` leads SLURM's commands to it."""

    def __init__(self, cpus: int = 4) -> None:
        self.folder = Path(
            tempfile.mkdtemp(prefix="r1-slurm-", dir="/tmp")
        )  # short: a socket's path has at most 107 bytes
        self.folder.chmod(0o755)  # munged wants its socket within everybody's reach
        self.environment = {"SLURM_CONF": str(self.folder / "slurm.conf"), "PATH": _path()}
        self.cpus = cpus
        self.daemons: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        """Start the daemons and wait until the node takes jobs. Raises `RuntimeError` with the end of the log if it does not."""
        (self.folder / "state").mkdir()
        (self.folder / "spool").mkdir()
        key = self.folder / "munge.key"
        key.touch(mode=0o600)
        key.write_bytes(os.urandom(1024))
        host, (port, node_port) = socket.gethostname().partition(".")[0], _free_ports(2)
        names = {"folder": self.folder, "host": host, "user": getpass.getuser(), "cpus": self.cpus}
        conf = self.folder / "slurm.conf"
        conf.write_text(CONF.format(port=port, node_port=node_port, **names))
        socket_of = ("--socket", str(self.folder / "munge.socket"))
        files = [f"--{name}-file={self.folder}/munge.{name}" for name in ("key", "pid", "log", "seed")]
        self._daemon("munged", "--foreground", *socket_of, *files, "--num-threads=2")
        self._wait("munged", lambda: self.call("munge", "-S", socket_of[1], "-n").returncode == 0)
        self._daemon("slurmctld", "-D", "-f", str(conf))
        self._wait("slurmctld", lambda: self.call("scontrol", "ping").returncode == 0)
        self._daemon("slurmd", "-D", "-f", str(conf), "-N", host)
        self._wait("slurmd", lambda: "idle" in self.call("sinfo", "-h", "-o", "%t").stdout)

    def stop(self) -> None:
        """Cancel all jobs, end the daemons in the reverse order, and remove the folder."""
        if len(self.daemons) == 3:  # else the steps of jobs would outlive slurmd
            self.cancel_all()
        for daemon in reversed(self.daemons):
            daemon.terminate()
            try:
                daemon.wait(STOP_S)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def cancel_all(self) -> None:
        """Cancel every job and wait until none is left."""
        self.call("scancel", "--user", str(os.getuid()))
        end_s = time.monotonic() + STOP_S
        while self.call("squeue", "-h").stdout.strip() and time.monotonic() < end_s:
            time.sleep(0.2)

    def call(self, *words: str, timeout_s: float = 30.0) -> subprocess.CompletedProcess[str]:
        """Run one of SLURM's commands on this cluster."""
        environment = {**os.environ, **self.environment}
        return subprocess.run(words, capture_output=True, text=True, timeout=timeout_s, env=environment)

    def wait_for(self, job: str, states: tuple[str, ...], limit_s: float) -> dict[str, str]:
        """Wait until `job` is in one of `states`; returns what `scontrol show job` says. `AssertionError` after `limit_s`."""
        end_s = time.monotonic() + limit_s
        while True:
            said = self.call("scontrol", "-o", "show", "job", job).stdout
            found = dict(word.partition("=")[::2] for word in said.split() if "=" in word)
            if found.get("JobState") in states:
                return found
            assert time.monotonic() < end_s, f"job {job} is not {states} after {limit_s} s: {said}"
            time.sleep(0.3)

    def _daemon(self, name: str, *words: str) -> None:
        environment = {**os.environ, **self.environment}
        with (self.folder / f"{name}.out").open("wb") as out:
            program = shutil.which(name, path=_path())
            assert program is not None
            self.daemons.append(subprocess.Popen([program, *words], stdout=out, stderr=out, env=environment))

    def _wait(self, name: str, is_up: Callable[[], bool]) -> None:
        end_s = time.monotonic() + START_S
        while not is_up():
            if time.monotonic() > end_s or self.daemons[-1].poll() is not None:
                log = (self.folder / f"{name}.out").read_text(errors="replace")[-2000:]
                raise RuntimeError(f"{name} does not answer: {log}")
            time.sleep(0.05)


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


def _main() -> None:
    for number in (signal.SIGINT, signal.SIGTERM):  # SIGINT is ignored in what a shell starts in the background
        signal.signal(number, signal.default_int_handler)
    cluster = Cluster()
    try:
        cluster.start()
        print(f"export SLURM_CONF={cluster.environment['SLURM_CONF']}", flush=True)
        signal.pause()
    except KeyboardInterrupt:
        pass
    finally:
        cluster.stop()


if __name__ == "__main__":
    _main()
