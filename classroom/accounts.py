"""Make an account of this machine, with a password of its own, for each learner of a class.

    umask 077
    sudo .venv/bin/python classroom/accounts.py learners.txt >> passwords.txt

The file names one learner a line, in small letters, for example `anna` or `ben-k`. Learners that
are there already stay as they are. Nobody but its owner and root can read a learner's folder, and
the accounts open no shell: they are for the hub alone.
"""

from __future__ import annotations

import grp
import os
import pwd
import re
import secrets
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from classroom.settings import GROUP, learners_of

# without letters and digits that look alike; 12 of 29 are 58 bits
LETTERS = "abcdefghijkmnpqrstuvwxyz23456789"


def read_names(text: str) -> list[str]:
    r"""Read the names of learners, one a line.

    Raises:
        ValueError: if one cannot be the name of an account, or is there twice.

    Example:
        >>> read_names("anna\nben-k\n")
        ['anna', 'ben-k']
    """
    names = [line.strip() for line in text.splitlines() if line.strip()]
    for name in names:
        if not re.fullmatch(r"[a-z][a-z0-9-]{0,19}", name):
            raise ValueError(
                f"expected names of at most 20 small letters, digits and hyphens, got {name!r}"
            )
        if names.count(name) > 1:
            raise ValueError(f"expected each name once, got {name!r} twice")
    if not names:
        raise ValueError("expected a name a line, got an empty file")
    return names


def add_learners(names: list[str], group: str = GROUP) -> dict[str, str]:
    """Make the accounts that are missing; return their passwords.

    Raises:
        ValueError: if a name belongs to an account that is no learner's; then none is made.
    """
    known = learners_of(group)
    for name in names:
        if name not in known and _exists(name):
            raise ValueError(
                f"expected names that are free on this machine, got {name!r}, which is an "
                f"account outside the group {group}"
            )
    if not _group_exists(group):
        subprocess.run(["groupadd", group], check=True)
    passwords = {}
    for name in names:
        if name in known:
            continue
        options = ["--create-home", "--gid", group, "--shell", "/usr/sbin/nologin"]
        subprocess.run(["useradd", *options, name], check=True)
        os.chmod(pwd.getpwnam(name).pw_dir, 0o700)
        word = "".join(secrets.choice(LETTERS) for _ in range(12))
        passwords[name] = "-".join(word[start : start + 4] for start in (0, 4, 8))
    lines = "".join(f"{name}:{password}\n" for name, password in passwords.items())
    subprocess.run(["chpasswd"], input=lines, text=True, check=True)
    return passwords


def _exists(name: str) -> bool:
    try:
        return bool(pwd.getpwnam(name))
    except KeyError:
        return False


def _group_exists(name: str) -> bool:
    try:
        return bool(grp.getgrnam(name))
    except KeyError:
        return False


def main(arguments: list[str]) -> None:
    """Make the accounts that a file names, and print their passwords."""
    if len(arguments) != 1 or not Path(arguments[0]).is_file():
        sys.exit(
            f"expected a file with a learner's name a line, got {' '.join(arguments) or 'nothing'}"
        )
    if os.geteuid() != 0:
        sys.exit("expected to be started as root, with sudo: only root can make accounts")
    try:
        names = read_names(Path(arguments[0]).read_text(encoding="utf-8"))
        passwords = add_learners(names)
    except ValueError as error:
        sys.exit(str(error))
    for name, password in passwords.items():
        print(name, password)
    if there := [name for name in names if name not in passwords]:
        print("there already, with the same password:", ", ".join(there), file=sys.stderr)


if __name__ == "__main__":
    main(sys.argv[1:])
