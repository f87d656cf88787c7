"""A learner presses ■ while a cell trains one network after another."""

from __future__ import annotations

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
networks, histories = {{}}, {{}}
for head in ("gap", "gmp"):
    networks[head] = build_convnet(head)
    histories[head] = fit(
        networks[head], data, epochs=1000, checkpoint={checkpoint!r}, progress=False, name=head
    )
"""
LOOK = """
import sys

history = sys.last_value.history
print(list(networks), list(histories))
print(len(history), history.epoch.tolist() == list(range(1, len(history) + 1)))
print(evaluate(networks["gap"], data.validation).accuracy == history.validation_accuracy.iloc[-1])
"""


@pytest.fixture
def kernel():
    manager, client = start_new_kernel(cwd=str(ROOT), kernel_name="python3")
    yield manager, client
    client.stop_channels()
    manager.shutdown_kernel(now=True)


def test_interrupting_the_kernel_stops_the_cell_and_those_that_wait(kernel, tmp_path):
    manager, client = kernel
    checkpoint = tmp_path / "run.pt"
    training = client.execute(TRAIN.format(checkpoint=str(checkpoint)))
    waiting = client.execute("print('the next cell')")
    deadline = time.monotonic() + 120
    while not checkpoint.exists() and time.monotonic() < deadline:
        time.sleep(0.1)  # the first epoch is not over yet
    manager.interrupt_kernel()
    replies = {}
    while not {training, waiting} <= replies.keys():
        message = client.get_shell_msg(timeout=120)
        replies[message["parent_header"]["msg_id"]] = message["content"]
    assert replies[training]["ename"] == "TrainingInterrupted"
    assert replies[waiting]["status"] == "aborted"

    printed: list[str] = []

    def collect(message):
        if message["msg_type"] == "stream":
            printed.append(message["content"]["text"])

    reply = client.execute_interactive(LOOK, output_hook=collect, timeout=180)
    assert reply["content"]["status"] == "ok"
    heads, count, told = "".join(printed).splitlines()
    assert heads == "['gap'] []"
    count, in_order = count.split()
    assert int(count) >= 1
    assert in_order == told == "True"
    assert replies[training]["evalue"] == f"gap: the model is as after epoch {count} of 1000"
