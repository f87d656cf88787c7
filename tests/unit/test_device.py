import os
import platform
import subprocess
import sys
from types import SimpleNamespace

import joblib
import pytest
import torch

from gap_utils.device import (
    available_kinds,
    describe_device,
    keep_random_state,
    pick_device,
    use_suggested_threads,
)
from nbval_pictures import ROOT


@pytest.fixture
def machine(monkeypatch):
    """Set which accelerator PyTorch reports."""

    def has(kind=None, count=1):
        card = SimpleNamespace(name=f"Card {kind}", total_memory=24 * 2**30)
        found = torch.device(kind) if kind else None
        monkeypatch.setattr(torch.accelerator, "is_available", lambda: kind is not None)
        monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: found)
        monkeypatch.setattr(torch.accelerator, "device_count", lambda: count)
        for module in (torch.cuda, torch.xpu):
            monkeypatch.setattr(module, "get_device_properties", lambda device: card)
        monkeypatch.setattr(torch.mps, "recommended_max_memory", lambda: 12 * 2**30)

    return has


@pytest.mark.parametrize("kind", ["cuda", "mps", "xpu"])
def test_the_accelerator_is_picked_before_the_cpu(machine, kind):
    machine(kind)
    assert pick_device() == torch.device(kind)
    assert available_kinds() == [kind, "cpu"]
    machine()
    assert pick_device() == torch.device("cpu")
    assert available_kinds() == ["cpu"]


def test_a_preferred_device_is_picked_or_named_as_absent(machine):
    machine("cuda", 2)
    assert pick_device("cpu") == torch.device("cpu")
    assert pick_device(torch.device("cuda:1")) == torch.device("cuda:1")
    with pytest.raises(ValueError, match="expected a cuda index below 2, got cuda:2"):
        pick_device("cuda:2")
    with pytest.raises(ValueError, match=r"one of the devices here \(cuda, cpu\), got mps"):
        pick_device("mps")
    with pytest.raises(ValueError, match='such as "cpu" or "cuda", got \'gpu\''):
        pick_device("gpu")
    machine()
    with pytest.raises(ValueError, match=r"one of the devices here \(cpu\), got cuda"):
        pick_device("cuda")


def test_the_line_of_lesson_00(machine, monkeypatch):
    monkeypatch.setattr(platform, "processor", lambda: "")
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(os, "sysconf", {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 2**22}.get)
    machine("cuda")
    assert describe_device("cuda") == "cuda: Card cuda, 24 GiB of memory"
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    assert describe_device("cpu") == "cpu: x86_64, 2 threads, 16 GiB of memory"
    monkeypatch.delattr(os, "sysconf")  # as on Windows
    assert describe_device("cpu") == "cpu: x86_64, 2 threads"
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    assert describe_device("cpu") == "cpu: x86_64, 1 thread"
    machine("xpu")
    assert describe_device("xpu") == "xpu: Card xpu, 24 GiB of memory"
    monkeypatch.setattr(platform, "processor", lambda: "arm")
    machine("mps")
    assert describe_device(pick_device()) == "mps: the GPU of this arm Mac, 12 GiB of memory"


@pytest.fixture
def threads(monkeypatch):
    """Set the CPUs of the machine, those that may be used, and PyTorch's threads."""
    before = torch.get_num_threads()

    def are(cpus, allowed, now):
        monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(cpus)), raising=False)
        monkeypatch.setattr(joblib, "cpu_count", lambda: allowed)
        torch.set_num_threads(now)

    yield are
    torch.set_num_threads(before)


def threads_inside():
    with use_suggested_threads():
        return torch.get_num_threads()


def test_too_many_threads_are_lowered_for_a_while(threads, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    for now in (8, 4):  # what PyTorch takes on 8 CPUs, or on 4 cores of 2
        threads(8, 2, now)
        assert threads_inside() == 2
        assert torch.get_num_threads() == now
        with pytest.raises(KeyError), use_suggested_threads():
            raise KeyError
        assert torch.get_num_threads() == now


def test_threads_that_the_user_chose_stay(threads, monkeypatch):
    threads(8, 2, 3)
    assert threads_inside() == 3
    threads(8, 2, 1)
    assert threads_inside() == 1
    threads(8, 2, 8)
    monkeypatch.setenv("OMP_NUM_THREADS", "8")
    assert threads_inside() == 8


def test_the_random_state_is_given_back(machine, monkeypatch):
    machine("mps")
    on_apple = []
    monkeypatch.setattr(torch.mps, "get_rng_state", lambda: "its state")
    monkeypatch.setattr(torch.mps, "set_rng_state", on_apple.append)
    state = torch.get_rng_state()
    with pytest.raises(KeyError), keep_random_state():
        torch.manual_seed(7)
        raise KeyError
    assert torch.equal(torch.get_rng_state(), state)
    assert on_apple == ["its state"]


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="there is no affinity mask here")
def test_the_affinity_mask_counts():
    code = (
        "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
        "from gap_utils.device import suggest_threads; print(suggest_threads())"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert run.stdout == "1\n", run.stderr


@pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch sees no CUDA device here")
def test_on_a_real_gpu():
    device = pick_device()
    assert device.type == "cuda"
    assert torch.cuda.get_device_name(0) in describe_device(device)
    assert describe_device(device).endswith("GiB of memory")
    assert torch.ones(2, device=device).sum().item() == 2
