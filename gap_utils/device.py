"""Choosing the device that the lessons compute on. Introduced in lesson 00."""

from __future__ import annotations

import platform

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
