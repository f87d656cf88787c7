"""What a class on one server is set up with, read from the environment and checked.

All that would leave learners without a password, without privacy or without lessons is refused
here, in a sentence, before anything starts.
"""

from __future__ import annotations

import grp
import os
import pwd
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

ROOT = Path(__file__).resolve().parent.parent
GROUP = "gap-learners"
HERE_ONLY = {"127.0.0.1", "::1", "localhost"}
UNITS = {"M": 2**20, "G": 2**30}
FIRST_LESSON = "00_start_here.ipynb"


@dataclass(frozen=True)
class Settings:
    """A class on one server.

    Attributes:
        address: where browsers find it, such as `https://0.0.0.0:8000`.
        certificate: file of the TLS certificate, empty where only this machine is served.
        key: file of its key.
        group: the Unix group whose members may log in.
        state: the folder of the hub's own files.
        lessons: the folder of the lessons that each learner gets a copy of.
        memory: bytes that each process of a learner may hold, a kernel for example.
        threads: that each kernel computes with.
        kernels: that each learner may have at once.
        idle_minutes: after which a kernel, and then a server, is ended.
    """

    address: str = "http://127.0.0.1:8000"
    certificate: str = ""
    key: str = ""
    group: str = GROUP
    state: Path = Path("/var/lib/gap-classroom")
    lessons: Path = ROOT / "notebooks"
    memory: int = 3 * UNITS["G"]
    threads: int = 1
    kernels: int = 3
    idle_minutes: int = 60

    def __post_init__(self):
        where = urlsplit(self.address)
        if where.scheme not in ("http", "https") or not where.hostname or not _port_of(where):
            _refuse("GAP_CLASS_ADDRESS", "an address such as https://0.0.0.0:8000", self.address)
        if where.scheme == "http" and where.hostname not in HERE_ONLY:
            raise ValueError(
                f"expected https in GAP_CLASS_ADDRESS, got {self.address}: without it everybody "
                "on the network can read the passwords"
            )
        for name, file in (
            ("GAP_CLASS_CERTIFICATE", self.certificate),
            ("GAP_CLASS_KEY", self.key),
        ):
            if where.scheme == "https" and not Path(file).is_file():
                _refuse(f"{name}, since the address is https", "a file", file or "nothing")
            if where.scheme == "http" and file:
                _refuse(f"{name}, since the address is http", "nothing", file)
        if self.memory < 2 * UNITS["G"]:
            # a kernel begins with 1.1 GB, most of it shared
            _refuse("GAP_CLASS_MEMORY", "at least 2G", f"{self.memory / UNITS['G']:.1f}G")

    @property
    def socket(self) -> Path:
        """Where learners ask for servers and kernels."""
        return self.state / "warm.sock"


def read_settings(environment: Mapping[str, str], cores: int, learners: int) -> Settings:
    """Read the variables `GAP_CLASS_…`.

    Args:
        environment: the variables.
        cores: of this machine.
        learners: who may log in, and so how many share the cores.

    Raises:
        ValueError: if a variable is unknown or cannot be meant, in one sentence.

    Example:
        >>> read_settings({}, cores=16, learners=5).threads
        3
    """
    given = {
        name.removeprefix("GAP_CLASS_").lower(): value
        for name, value in environment.items()
        if name.startswith("GAP_CLASS_")
    }
    known = [*Settings.__dataclass_fields__]
    if unknown := [name for name in given if name not in known]:
        names = ", ".join(f"GAP_CLASS_{name.upper()}" for name in known)
        raise ValueError(f"expected one of {names}, got GAP_CLASS_{unknown[0].upper()}")
    # more threads than cores wait for each other
    values: dict[str, object] = {"threads": max(1, cores // max(learners, 1)), **given}
    for name in ("threads", "kernels", "idle_minutes"):
        if name in given:
            values[name] = _whole(f"GAP_CLASS_{name.upper()}", given[name])
    if "memory" in given:
        values["memory"] = _bytes("GAP_CLASS_MEMORY", given["memory"])
    for name in {"state", "lessons"} & given.keys():
        values[name] = Path(given[name])
        if not values[name].is_absolute():
            _refuse(f"GAP_CLASS_{name.upper()}", "a folder from the root (/…)", given[name])
    return Settings(**values)


def count_cores() -> int:
    """Say how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count()


def let_nobody_read_the_terminal() -> None:
    """Keep the terminal for writing only, since servers of learners get the files of the hub."""
    for number in (0, 1, 2):
        if os.isatty(number):
            path = os.ttyname(number) if number else os.devnull
            file = os.open(path, os.O_NOCTTY | (os.O_WRONLY if number else os.O_RDONLY))
            os.dup2(file, number)
            os.close(file)


def learners_of(group: str) -> list[str]:
    """List who may log in: all members of a Unix group, by name."""
    try:
        found = grp.getgrnam(group)
    except KeyError:
        return []
    own = [entry.pw_name for entry in pwd.getpwall() if entry.pw_gid == found.gr_gid]
    return sorted({*own, *found.gr_mem})


def check_machine(settings: Settings, learners: list[str]) -> None:
    """See that this machine can keep learners apart and has lessons for them.

    Raises:
        ValueError: if it cannot, in one sentence.
    """
    if not sys.platform.startswith("linux"):
        raise ValueError(f"expected Linux, got {sys.platform}")
    if os.geteuid() != 0:
        raise ValueError(
            "expected to be started as root, with sudo, got the user "
            f"{pwd.getpwuid(os.geteuid()).pw_name}: only root can give each learner an account"
        )
    if not learners:
        raise ValueError(
            f"expected learners in the group {settings.group}, got none: make their accounts "
            "with classroom/accounts.py"
        )
    _check_passwords(learners)
    _check_folders(learners)
    _check_reading(learners[0], settings.lessons)


def _check_passwords(learners: list[str]) -> None:
    shadow = subprocess.run(["getent", "shadow", *learners], capture_output=True, text=True)
    secrets = dict(line.split(":")[:2] for line in shadow.stdout.splitlines())
    for name in learners:
        if pwd.getpwnam(name).pw_uid == 0:
            raise ValueError(f"expected learners only, got {name}, who is root")
        if not secrets.get(name, "").startswith("$"):
            raise ValueError(
                f"expected a password for each learner, got none for {name}: "
                f"give one with: sudo passwd {name}"
            )


def _check_folders(learners: list[str]) -> None:
    for name in learners:
        home = Path(pwd.getpwnam(name).pw_dir)
        if not home.is_dir() or home.stat().st_mode & 0o077:
            raise ValueError(
                f"expected a folder that nobody but {name} can read, got {home}: "
                f"close it with: sudo chmod 700 {home}"
            )


def _check_reading(name: str, lessons: Path) -> None:
    """Run Python as a learner would, on the files that all learners read."""
    if not (lessons / FIRST_LESSON).is_file():
        _refuse("GAP_CLASS_LESSONS", f"a folder with {FIRST_LESSON}", lessons)
    learner = pwd.getpwnam(name)
    files = [str(ROOT / "gap_utils" / "__init__.py"), str(lessons / FIRST_LESSON)]
    code = "import ssl, sys, ipykernel, jupyterhub; [open(file).close() for file in sys.argv[1:]]"
    try:
        run = subprocess.run(
            [sys.executable, "-c", code, *files],
            user=learner.pw_uid,
            group=learner.pw_gid,
            extra_groups=[],
            cwd="/",
            env={},
            capture_output=True,
            text=True,
        )
    except PermissionError:
        run = None
    if run is None or run.returncode:
        raise ValueError(
            f"expected that learners can read {ROOT} and {lessons} and run {sys.executable}, but "
            f"{name} cannot: move them out of a home folder, to /opt for example"
        )


def _whole(name: str, text: str) -> int:
    if not re.fullmatch(r"[1-9]\d{0,5}", text):
        _refuse(name, "a whole number from 1", text)
    return int(text)


def _bytes(name: str, text: str) -> int:
    if not re.fullmatch(r"[1-9]\d{0,5}[MG]", text):
        _refuse(name, "memory such as 2500M or 4G", text)
    return int(text[:-1]) * UNITS[text[-1]]


def _port_of(where) -> int | None:
    try:
        return where.port
    except ValueError:
        return None


def _refuse(name: str, wanted: str, got: object) -> None:
    raise ValueError(f"expected {wanted} in {name}, got {got}")
