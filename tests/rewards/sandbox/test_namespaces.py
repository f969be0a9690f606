"""Isolation: the content of the root folder, and that each part of the isolation works without the others."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from r1_lightning.rewards.sandbox import namespaces
from r1_lightning.rewards.sandbox.namespaces import python_folders


def test_the_folders_are_those_of_python_and_no_home() -> None:
    if sys.platform != "linux":
        pytest.skip("there is no /proc/self/maps")
    folders, links, hidden = python_folders()
    library = os.path.dirname(os.path.realpath(os.__file__))
    assert any(library == folder or library.startswith(f"{folder}/") for folder in folders)
    assert not any(other.startswith(f"{folder}/") for folder in folders for other in folders)  # none inside another
    for private in (Path.home(), Path("/etc"), Path("/"), Path("/usr"), Path.cwd(), Path(sys.prefix)):
        assert str(private) not in folders or str(private) == library
    assert all(link in ("/lib", "/lib32", "/lib64") for link in links)
    assert all(folder.endswith("-packages") for folder in hidden)


def test_a_failed_call_names_its_step() -> None:
    if sys.platform != "linux":
        pytest.skip("Linux calls")
    with pytest.raises(OSError, match="mount nothing at /nowhere: "):
        namespaces._mount("none", "/nowhere", "nothing", 0)
    with pytest.raises(OSError, match="umount2: "):
        namespaces._call("umount2", b"/nowhere", 0)


# A program that sets up only the namespaces, without the system-call filter, and tries to escape.
WALLS_ONLY = """
import json, os, socket, sys
from r1_lightning.rewards.sandbox import namespaces
namespaces.die_with_parent(os.getppid())
namespaces.leave_namespaces()
print("unshared", flush=True)
sys.stdin.readline()
if os.fork():
    os.wait()
    sys.exit()
namespaces.build()
os.chdir(namespaces.fresh_tmp(1))
namespaces.drop_rights()
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
def can(action):
    try:
        return bool(action())
    except OSError:
        return False
def connects(port):
    with socket.socket() as client:
        client.settimeout(5)
        return client.connect_ex(("127.0.0.1", port)) == 0
TRIED = {
    "network": lambda: connects(int(sys.argv[1])),
    "interfaces that are up": lambda: [name for _, name in socket.if_nameindex() if name != "lo"],
    "mount": lambda: libc.mount(b"x", b"/tmp", b"tmpfs", 0, None) == 0,
    "unmount": lambda: libc.umount2(b"/tmp", 2) == 0,
    "chroot": lambda: os.chroot("/tmp") is None,
    "host name": lambda: socket.sethostname("x") is None,
    "root": lambda: os.setuid(0) is None,
    "parent": lambda: os.getppid() != 0,
    "kill": lambda: os.kill(int(sys.argv[2]), 0) is None,
    "private file": lambda: open(sys.argv[3]).read(),
    "write": lambda: open("/x", "w"),
    "write to the library": lambda: open(os.path.dirname(os.__file__) + "/x", "w"),
    "fill": lambda: open("y", "wb").write(bytes(2 << 20)),
    "proc": lambda: os.listdir("/proc"),
}
print(json.dumps({"done": [name for name, action in TRIED.items() if can(action)], "user": os.getresuid()}))
"""


@pytest.mark.usefixtures("isolated")
def test_namespaces_hold_without_the_filter(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("42", encoding="utf-8")
    with socket.create_server(("127.0.0.1", 0)) as server:
        arguments = [str(server.getsockname()[1]), str(os.getpid()), str(secret)]
        process = subprocess.Popen(
            [os.path.realpath(sys.executable), "-s", "-S", "-c", WALLS_ONLY, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={"PYTHONPATH": str(Path(namespaces.__file__).parents[3])},
            text=True,
        )
        assert process.stdin is not None and process.stdout is not None
        assert process.stdout.readline() == "unshared\n"
        namespaces.write_ids(process.pid)
        said, _ = process.communicate("go\n", timeout=60)
    assert json.loads(said) == {"done": [], "user": [namespaces.INSIDE_ID] * 3}
