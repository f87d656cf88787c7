"""Choosing the device that the lessons compute on, and the threads. Introduced in lesson 00."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager

import torch

GIB = 2**30
THREADS_SET = {"OMP_NUM_THREADS", "MKL_NUM_THREADS"}


def available_kinds() -> list[str]:
    """List the kinds of device that PyTorch can use here, the fastest first.

    First comes the accelerator if there is one, "cuda" (NVIDIA or AMD), "mps" (Apple) or "xpu"
    (Intel) for example; "cpu" is always last.
    """
    if torch.accelerator.is_available():
        return [torch.accelerator.current_accelerator().type, "cpu"]
    return ["cpu"]


def pick_device(prefer: str | torch.device | None = None) -> torch.device:
    """Choose the device to compute on.

    Args:
        prefer: a device or its name, such as "cpu", "cuda" or "cuda:1"; when None, the
            accelerator if there is one, otherwise the CPU.

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
    devices = 1 if device.type == "cpu" else torch.accelerator.device_count()
    if device.index is not None and device.index >= devices:
        raise ValueError(f"expected a {device.type} index below {devices}, got {device}")
    return device


def describe_device(device: str | torch.device) -> str:
    """Say in one line the kind, name and memory of a device, and the threads of the CPU.

    Args:
        device: a device that exists here, or its name.

    Raises:
        ValueError: as `pick_device` does.
    """
    device = pick_device(device)
    chip = platform.processor() or platform.machine()
    if device.type in ("cuda", "xpu"):
        card = getattr(torch, device.type).get_device_properties(device)
        return f"{device}: {card.name}, {card.total_memory / GIB:.0f} GiB of memory"
    if device.type == "mps":
        memory = torch.mps.recommended_max_memory() / GIB
        return f"{device}: the GPU of this {chip} Mac, {memory:.0f} GiB of memory"
    if device.type == "cpu":
        threads, memory = torch.get_num_threads(), ""
        if hasattr(os, "sysconf"):  # not on Windows
            size = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
            memory = f", {size / GIB:.0f} GiB of memory"
        return f"{device}: {chip}, {threads} thread{'s' * (threads != 1)}{memory}"
    return str(device)


def suggest_threads() -> int:
    """Say how many threads PyTorch should use: one for each CPU that this process may use.

    Those are the CPUs of its affinity mask, or fewer where its control group (a container) has
    a smaller quota. More threads than that wait for each other, and a training step can take
    ten times as long.
    """
    from joblib import cpu_count  # only those who train need it

    return cpu_count()


@contextmanager
def use_suggested_threads() -> Iterator[None]:
    """Use no more threads than `suggest_threads` says, and then as many as before.

    A number that the user chose stays: by the variables OMP_NUM_THREADS or
    MKL_NUM_THREADS, or by `torch.set_num_threads` if it is not what PyTorch takes by itself.
    """
    before, suggested = torch.get_num_threads(), suggest_threads()
    on_linux = hasattr(os, "sched_getaffinity")
    cpus = len(os.sched_getaffinity(0)) if on_linux else os.cpu_count() or 1
    usual = (cpus, cpus // 2)  # a thread per CPU, or per core of two CPUs
    if before <= suggested or before not in usual or THREADS_SET & set(os.environ):
        yield
        return
    torch.set_num_threads(suggested)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def keep_random_state() -> Iterator[None]:
    """Give PyTorch's random state back as it was, on the CPU and on the accelerator."""
    kind = available_kinds()[0]
    on_apple = torch.mps.get_rng_state() if kind == "mps" else None
    started = kind in ("cuda", "xpu") and getattr(torch, kind).is_initialized()
    devices = range(torch.accelerator.device_count()) if started else []
    try:
        with torch.random.fork_rng(devices, device_type=kind if started else "cuda"):
            yield
    finally:
        if on_apple is not None:
            torch.mps.set_rng_state(on_apple)
