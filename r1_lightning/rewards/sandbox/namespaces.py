"""Isolation of a sandbox: namespaces, a private root folder, dropped privileges. Linux calls through ctypes, in order of use.

Why not bubblewrap: users would have to install it, its system-call filter would have to come compiled from us, and it starts a new
interpreter for every case. This module needs only Python and a kernel of 5.12 or newer that lets this user create user namespaces.

Standard library only: this runs inside the sandbox, before the answer. Every failure is an `OSError` whose text names the step.
"""

from __future__ import annotations

import ctypes
import os
import signal
import struct
import sys
from collections.abc import Mapping
from pathlib import Path

from r1_lightning.rewards.sandbox import allowed_packages

NEW_ROOT = (
    "/sys"  # the mount point of the new root (in our namespace only): exists everywhere, and Python does not need it
)
TMP = "/tmp"
ROOT_BYTES, MOST_FILES = 2**20, 1_000
CASE = "/dev/case"  # the folder with the file names of a case's standard input and output
DEVICES = ("null", "zero", "urandom")  # the machine's devices that neither store nor reveal anything
INSIDE_ID = (
    1  # user and group of an answer inside; outside they map to nobody if root starts the sandbox, else to the user
)

# linux/sched.h, linux/mount.h, linux/prctl.h
_CLONE_NEW = {
    "mount": 0x00020000, "cgroup": 0x02000000, "host name": 0x04000000, "IPC": 0x08000000,
    "user": 0x10000000, "process": 0x20000000, "network": 0x40000000,
}  # fmt: skip
_MS_NOSUID, _MS_NODEV, _MS_NOEXEC, _MS_BIND, _MS_REC, _MS_PRIVATE = 2, 4, 8, 4096, 16384, 1 << 18
_MNT_DETACH = 2
_ATTR_RDONLY, _ATTR_NOSUID, _ATTR_NODEV, _AT_RECURSIVE = 1, 2, 4, 0x8000
_SYS_MOUNT_SETATTR = 442  # the same on every architecture
_SYS_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS = 1, 4, 24, 38
_CAPABILITY_VERSION_3, _LAST_CAPABILITY = 0x20080522, 63


_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


def die_with_parent(parent: int | None) -> None:
    """Have the kernel kill this process when the thread that started it ends; end at once if `parent` is already gone.

    `parent` is None in a new process namespace, where its id is unknown and the caller must check for itself.
    """
    _call("prctl", _PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if parent is not None and os.getppid() != parent:
        os._exit(0)


def leave_namespaces() -> None:
    """Unshare namespaces of every kind; the process namespace applies to children. The parent must still map the user ids."""
    if os.geteuid() == 0:
        os.setgroups([])
    _call("unshare", sum(_CLONE_NEW.values()), step=f"unshare ({', '.join(_CLONE_NEW)})")


def build(packages: Mapping[str, str] | None = None) -> int:
    """Replace the root folder by one with the libraries (read-only) and an empty /tmp.

    Returns the descriptor of the folder in which `fresh_streams` writes. `packages` maps names below `allowed_packages.FOLDER` to
    further folders.
    """
    os.umask(0o022)
    _call("sethostname", b"sandbox", len(b"sandbox"))
    folders, links, hidden = python_folders()
    _mount(None, "/", None, _MS_REC | _MS_PRIVATE)
    _mount("tmpfs", NEW_ROOT, "tmpfs", _MS_NOSUID | _MS_NODEV, f"size={ROOT_BYTES},mode=755")
    bound = {folder: folder for folder in folders}
    bound |= {f"{allowed_packages.FOLDER}/{name}": folder for name, folder in (packages or {}).items()}
    for place, folder in bound.items():
        target = NEW_ROOT + place
        os.makedirs(target, exist_ok=True)
        _mount(folder, target, None, _MS_BIND | _MS_REC)
        _read_only(target)
    for folder in hidden:
        _mount("tmpfs", NEW_ROOT + folder, "tmpfs", _MS_NOSUID | _MS_NODEV, "size=4k,mode=755")
        _read_only(NEW_ROOT + folder)
    for link, goal in links.items():
        if not os.path.lexists(NEW_ROOT + link):
            os.symlink(goal, NEW_ROOT + link)
    os.makedirs(NEW_ROOT + TMP, exist_ok=True)
    below = _make_devices()
    os.chdir(NEW_ROOT)
    _syscall("pivot_root", _SYS_PIVOT_ROOT.get(os.uname().machine, -1), b".", b".")
    _call("umount2", b".", _MNT_DETACH)
    os.chdir("/")
    _read_only("/", recursive=False)
    return below


def _make_devices() -> int:
    """Create /dev with three devices and the names of the standard streams, which belong to each case.

    The streams' folder is mounted twice: read-only where the answer sees it, and writable below. Returns the descriptor of the
    writable one.
    """
    os.makedirs(NEW_ROOT + CASE)
    _mount("tmpfs", NEW_ROOT + CASE, "tmpfs", _MS_NOSUID | _MS_NODEV | _MS_NOEXEC, "nr_inodes=8,mode=755")
    below = os.open(NEW_ROOT + CASE, os.O_RDONLY | os.O_DIRECTORY)
    _mount(NEW_ROOT + CASE, NEW_ROOT + CASE, None, _MS_BIND)
    _read_only(NEW_ROOT + CASE)
    for name in DEVICES:
        device = f"/dev/{name}"
        if os.path.exists(device):
            os.close(os.open(NEW_ROOT + device, os.O_CREAT | os.O_WRONLY))
            _mount(device, NEW_ROOT + device, None, _MS_BIND)
            _read_only(NEW_ROOT + device, attributes=_ATTR_RDONLY | _ATTR_NOSUID)
    for name, goal in {"stdin": "case/stdin", "stdout": "case/stdout", "stderr": "null"}.items():
        os.symlink(goal, f"{NEW_ROOT}/dev/{name}")
    return below


def python_folders() -> tuple[list[str], dict[str, str], list[str]]:
    """Return what the interpreter needs of the file system: folders (none inside another), root-level links, hidden folders.

    The folders are those of the standard library and of every loaded shared library. Folders of installed packages are hidden, so
    that verdicts do not depend on what a machine has installed.
    """
    library = os.path.dirname(os.path.realpath(os.__file__))
    found = {library}
    for line in Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace").splitlines():
        name = line[line.find("/") :] if "/" in line else ""
        if ".so" in os.path.basename(name) and os.path.isfile(name):
            found.add(os.path.dirname(os.path.realpath(name)))
    folders = [f for f in sorted(found) if not any(f.startswith(other.rstrip("/") + "/") for other in found)]
    links = {f"/{name}": os.readlink(f"/{name}") for name in ("lib", "lib64", "lib32") if os.path.islink(f"/{name}")}
    packages = [os.path.join(library, name) for name in ("site-packages", "dist-packages")]
    return folders, links, [name for name in packages if os.path.isdir(name)]


def fresh_tmp(megabytes: int) -> str:
    """Mount an empty /tmp of `megabytes` for one case, and return the working folder."""
    _mount(
        "tmpfs",
        TMP,
        "tmpfs",
        _MS_NOSUID | _MS_NODEV | _MS_NOEXEC,
        f"size={megabytes}m,nr_inodes={MOST_FILES},mode=1777",
    )
    return TMP


def fresh_streams(below: int, given: bytes) -> tuple[int, int, int]:
    """Make the streams of one case: read-only standard input with the content `given`, and both ends of standard output.

    Both have file names, so that `open("/dev/stdin")` starts at the beginning, as if input came from a file, and
    `open("/dev/stdout", "w")` prints. `below` is the descriptor that `build` returned.
    """
    for name in os.listdir(below):
        os.unlink(name, dir_fd=below)
    with os.fdopen(os.open("stdin", os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o444, dir_fd=below), "wb") as file:
        file.write(given)
    os.mkfifo("stdout", 0o200, dir_fd=below)
    os.chmod("stdout", 0o222, dir_fd=below)  # independent of the umask
    source = os.open(f"{CASE}/stdin", os.O_RDONLY)
    read = os.open(f"{CASE}/stdout", os.O_RDONLY | os.O_NONBLOCK)  # do not block until there is a writer
    os.set_blocking(read, True)
    return source, read, os.open(f"{CASE}/stdout", os.O_WRONLY)


def drop_tmp() -> None:
    """Unmount the case's /tmp with all of its content."""
    _call("umount2", TMP.encode(), _MNT_DETACH)


def drop_rights() -> None:
    """Switch to another user, drop all capabilities, ignore set-user-id bits, and forbid tracing."""
    for capability in range(_LAST_CAPABILITY + 1):
        if _libc is not None and _libc.prctl(_PR_CAPBSET_DROP, *map(ctypes.c_ulong, (capability, 0, 0, 0))) != 0:
            break  # past the last capability of this kernel
    os.setresgid(INSIDE_ID, INSIDE_ID, INSIDE_ID)
    os.setresuid(INSIDE_ID, INSIDE_ID, INSIDE_ID)
    header, nothing = struct.pack("Ii", _CAPABILITY_VERSION_3, 0), bytes(24)
    _call("capset", header, nothing)
    _call("prctl", _PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    _call("prctl", _PR_SET_DUMPABLE, 0, 0, 0, 0)


def write_ids(process_id: int) -> None:
    """Map, from outside, the user ids of a process in a new user namespace. `OSError` if the kernel refuses.

    If root starts the sandbox, the answer runs as nobody (65534), because the kernel does not limit root's processes. If that id is
    not available, and for any other user, it runs as the user itself.
    """
    folder = Path(f"/proc/{process_id}")
    user, group = os.geteuid(), os.getegid()
    if user == 0:
        try:
            for file in ("gid_map", "uid_map"):
                (folder / file).write_text(f"0 0 1\n{INSIDE_ID} 65534 1\n", encoding="ascii")
            return
        except OSError:
            pass
    (folder / "setgroups").write_text("deny", encoding="ascii")
    (folder / "gid_map").write_text(f"{INSIDE_ID} {group} 1\n", encoding="ascii")
    (folder / "uid_map").write_text(f"{INSIDE_ID} {user} 1\n", encoding="ascii")


def _mount(source: str | None, target: str, kind: str | None, flags: int, options: str | None = None) -> None:
    text = [None if value is None else os.fsencode(value) for value in (source, target, kind, options)]
    _call("mount", *text[:3], flags, text[3], step=f"mount {kind or 'bind'} at {target}")


def _read_only(path: str, recursive: bool = True, attributes: int = _ATTR_RDONLY | _ATTR_NOSUID | _ATTR_NODEV) -> None:
    packed = struct.pack("QQQQ", attributes, 0, 0, 0)
    flags = _AT_RECURSIVE if recursive else 0
    arguments = (-100, os.fsencode(path), flags, packed, len(packed))  # -100 is AT_FDCWD
    _syscall("mount_setattr", _SYS_MOUNT_SETATTR, *arguments)


def _syscall(name: str, number: int, *arguments: int | bytes | None) -> None:
    _call("syscall", number, *arguments, step=name)


def _call(function: str, *arguments: int | bytes | None, step: str = "") -> None:
    """Call a function of the C library; if it does not return 0, raise an `OSError` that names the step."""
    wide = [ctypes.c_long(value) if isinstance(value, int) else value for value in arguments]
    if _libc is None or getattr(_libc, function)(*wide) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{step or function}: {os.strerror(number)}")
