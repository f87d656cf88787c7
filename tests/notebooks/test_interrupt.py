"""A learner presses ■ while a network trains."""

from __future__ import annotations

import threading
import time

import pytest
from jupyter_client.manager import start_new_kernel

from nbval_pictures import ROOT

TRAIN = """
from gap_utils.data import load_fashion_mnist
from gap_utils.models import build_convnet
from gap_utils.inference import evaluate
from gap_utils.training import fit

data = load_fashion_mnist()
network = build_convnet()
history = fit(network, data, epochs=1000, checkpoint={checkpoint!r}, progress=False)
print("the cell goes on")
"""
LOOK = """
print(len(history), history.epoch.tolist() == list(range(1, len(history) + 1)))
print(evaluate(network, data.validation).accuracy == history.validation_accuracy.iloc[-1])
"""


@pytest.fixture
def kernel():
    manager, client = start_new_kernel(cwd=str(ROOT), kernel_name="python3")
    yield manager, client
    client.stop_channels()
    manager.shutdown_kernel(now=True)


def test_interrupting_the_kernel_keeps_model_and_history(kernel, tmp_path):
    manager, client = kernel
    checkpoint = tmp_path / "run.pt"
    printed: list[str] = []

    def collect(message):
        if message["msg_type"] == "stream":
            printed.append(message["content"]["text"])

    def press_stop():
        deadline = time.monotonic() + 120
        while not checkpoint.exists() and time.monotonic() < deadline:
            time.sleep(0.1)  # the first epoch is not over yet
        manager.interrupt_kernel()

    threading.Thread(target=press_stop).start()
    for code in (TRAIN.format(checkpoint=str(checkpoint)), LOOK):
        reply = client.execute_interactive(code, output_hook=collect, timeout=180)
        assert reply["content"]["status"] == "ok"
    text = "".join(printed)
    assert "Interrupted: the model is as after epoch" in text
    assert "the cell goes on" in text
    count, in_order, as_told = text.split()[-3:]
    assert int(count) >= 1
    assert in_order == as_told == "True"
