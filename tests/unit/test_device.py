import platform

import pytest
import torch

from gap_utils.device import available_kinds, describe_device, pick_device


@pytest.fixture
def machine(monkeypatch):
    """Set which devices PyTorch reports."""

    def has(cuda=0, mps=False, xpu=0):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: cuda)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"Card {device.type}")
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
        monkeypatch.setattr(torch.xpu, "is_available", lambda: xpu > 0)
        monkeypatch.setattr(torch.xpu, "device_count", lambda: xpu)
        monkeypatch.setattr(torch.xpu, "get_device_name", lambda device: f"Card {device.type}")

    return has


@pytest.mark.parametrize(
    ("devices", "kind"),
    [
        ({}, "cpu"),
        ({"mps": True}, "mps"),
        ({"xpu": 1}, "xpu"),
        ({"mps": True, "xpu": 1}, "mps"),
        ({"cuda": 2, "mps": True, "xpu": 1}, "cuda"),
    ],
)
def test_the_fastest_kind_is_picked(machine, devices, kind):
    machine(**devices)
    assert pick_device() == torch.device(kind)
    assert available_kinds()[-1] == "cpu"


def test_a_preferred_device_is_picked_or_named_as_absent(machine):
    machine(cuda=2)
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
    machine(cuda=1, xpu=1)
    assert describe_device("cuda") == "cuda: Card cuda"
    assert describe_device("xpu") == "xpu: Card xpu"
    assert describe_device("cpu") == f"cpu: x86_64, {torch.get_num_threads()} threads"
    monkeypatch.setattr(platform, "processor", lambda: "arm")
    machine(mps=True)
    assert describe_device(pick_device()) == "mps: the GPU of this arm Mac"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch sees no CUDA device here")
def test_on_a_real_gpu():
    device = pick_device()
    assert device.type == "cuda"
    assert torch.cuda.get_device_name(0) in describe_device(device)
    assert torch.ones(2, device=device).sum().item() == 2
