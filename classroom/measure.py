"""What the processes of a class take: memory, shared pages by their share, and CPU time."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")


class Meter:
    """Reads /proc again and again, and adds up.

    Args:
        learners: numbers of the learners' accounts.
        hub: number of the hub's process.

    Attributes:
        seconds: CPU time so far of "learners", "hub" (with its proxy, and what is shared) and
            "test", which is this process with its browser.
        memory: of each reading, the megabytes of each learner, and of the hub under 0.
    """

    def __init__(self, learners: set[int], hub: int):
        self.learners, self.hub = learners, hub
        self.seconds: Counter[str] = Counter()
        self.memory: list[dict[int, float]] = []
        self._before = {process: seconds for process, (_, _, seconds) in _processes().items()}

    def read(self, with_memory: bool = True) -> None:
        """Add the CPU time since the last reading, and note the memory."""
        found = _processes()
        hub, all_of_it = _descendants(self.hub, found), _descendants(os.getpid(), found)
        taken: dict[int, float] = defaultdict(float)
        for process, (_, account, seconds) in found.items():
            if account not in self.learners and process not in all_of_it:
                continue
            who = "learners" if account in self.learners else "hub" if process in hub else "test"
            self.seconds[who] += seconds - self._before.get(process, 0)
            self._before[process] = seconds
            if with_memory and who != "test":
                taken[account if who == "learners" else 0] += _megabytes(process)
        if with_memory:
            self.memory.append(dict(taken))


def _processes() -> dict[int, tuple[int, int, float]]:
    """Parent, account and CPU seconds of each process."""
    found = {}
    for path in Path("/proc").iterdir():
        if not path.name.isdigit():
            continue
        try:
            fields = (path / "stat").read_text().rpartition(")")[2].split()
            account = path.stat().st_uid
        except (FileNotFoundError, ProcessLookupError):  # it has just ended
            continue
        seconds = (int(fields[11]) + int(fields[12])) / TICKS
        found[int(path.name)] = int(fields[1]), account, seconds
    return found


def _descendants(ancestor: int, found: dict[int, tuple[int, int, float]]) -> set[int]:
    """A process, its children, their children, and so on."""
    family = {ancestor} & found.keys()
    while more := {p for p, (parent, *_) in found.items() if parent in family} - family:
        family |= more
    return family


def _megabytes(process: int) -> float:
    """The memory of a process, of pages that others have too only its share (PSS)."""
    try:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024
