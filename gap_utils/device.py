"""Choosing the device that the lessons compute on. Introduced in lesson 00."""

from __future__ import annotations

import math
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

KINDS = ("cuda", "mps", "xpu", "cpu")


def available_kinds() -> list[str]:
    """List the kinds of device that PyTorch can use here, the fastest first.

    Returns:
        Some of "cuda" (NVIDIA or AMD), "mps" (Apple), "xpu" (Intel); "cpu" is always last.
    """
    found = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "xpu": torch.xpu.is_available(),
        "cpu": True,
    }
    return [kind for kind in KINDS if found[kind]]


def pick_device(prefer: str | torch.device | None = None) -> torch.device:
    """Choose the device to compute on.

    Args:
        prefer: a device or its name, such as "cpu", "cuda" or "cuda:1"; when None, the
            first that is there of CUDA, MPS, XPU and CPU.

    Returns:
        The device.

    Raises:
        ValueError: if the preferred device does not exist here or is no device name.

    Example:
        >>> pick_device("cpu")
        device(type='cpu')
    """
    kinds = available_kinds()
    if prefer is None:
        return torch.device(kinds[0])
    try:
        device = torch.device(prefer)
    except (RuntimeError, TypeError) as error:
        raise ValueError(
            f'expected a device name such as "cpu" or "cuda", got {prefer!r}'
        ) from error
    if device.type not in kinds:
        raise ValueError(f"expected one of the devices here ({', '.join(kinds)}), got {device}")
    count = {"cuda": torch.cuda.device_count, "xpu": torch.xpu.device_count}
    devices = count[device.type]() if device.type in count else 1
    if device.index is not None and device.index >= devices:
        raise ValueError(f"expected a {device.type} index below {devices}, got {device}")
    return device


def describe_device(device: str | torch.device) -> str:
    """Say in one line what a device is.

    Args:
        device: a device that exists here, or its name.

    Returns:
        Its kind and name, and for the CPU how many threads PyTorch uses.

    Raises:
        ValueError: as `pick_device` does.
    """
    device = pick_device(device)
    if device.type == "cuda":
        return f"{device}: {torch.cuda.get_device_name(device)}"
    if device.type == "xpu":
        return f"{device}: {torch.xpu.get_device_name(device)}"
    chip = platform.processor() or platform.machine()
    if device.type == "mps":
        return f"{device}: the GPU of this {chip} Mac"
    return f"{device}: {chip}, {torch.get_num_threads()} threads"


def suggest_threads() -> int:
    """Say how many threads PyTorch should use on this CPU.

    Returns:
        The number of CPUs that this process may use: those of its affinity mask, or fewer
        where its control group (a container) has a smaller quota. More threads than that
        wait for each other, and a training step can take ten times as long.

    Source:
        `sched_getaffinity(2)`; "cpu.max" and "cpu.cfs_quota_us" in the Linux kernel's
        documentation of control groups 2 and 1.
    """
    return max(1, math.ceil(min(_cpus(), _cpu_quota())))


def _cpus() -> int:
    """The CPUs in the affinity mask of this process."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS and Windows
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _cpu_quota(root: Path = Path("/")) -> float:
    """CPUs that the control groups of this process allow; infinite where they set no limit."""
    quotas = [math.inf]
    groups = root / "proc/self/cgroup"
    if not groups.is_file():
        return math.inf
    for line in groups.read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        base = root / "sys/fs/cgroup" / controllers
        # inside a container the group may be mounted as the root: the path then leads nowhere
        group = base / path.lstrip("/")
        for place in (group, *group.parents):
            quotas.append(_read_quota(place))
            if place == base:
                break
    return min(quotas)


def _read_quota(place: Path) -> float:
    try:
        words = (place / "cpu.max").read_text().split()
    except OSError:
        try:
            names = ("cpu.cfs_quota_us", "cpu.cfs_period_us")
            words = [(place / name).read_text().strip() for name in names]
        except OSError:
            return math.inf
    quota, period = words
    return math.inf if quota in ("max", "-1") else int(quota) / int(period)


@contextmanager
def use_suggested_threads() -> Iterator[None]:
    """Use no more threads than `suggest_threads` says, and then as many as before.

    A number that the user chose stays: by the variables OMP_NUM_THREADS or
    MKL_NUM_THREADS, or by `torch.set_num_threads` unless it is what PyTorch takes by itself.
    """
    before, suggested = torch.get_num_threads(), suggest_threads()
    own_choice = before not in (_cpus(), _cpus() // 2)  # PyTorch takes one per CPU or per core
    set_outside = {"OMP_NUM_THREADS", "MKL_NUM_THREADS"} & set(os.environ)
    if before <= suggested or own_choice or set_outside:
        yield
        return
    torch.set_num_threads(suggested)
    try:
        yield
    finally:
        torch.set_num_threads(before)
