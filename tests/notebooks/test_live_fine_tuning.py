"""What lesson 08 trains where its switch is on, here with a handful of pictures."""

from __future__ import annotations

import re
from copy import deepcopy

import pytest
import test_structure
import torch

from run_study import BATCH, EPOCHS, FINE_TUNING

LESSON = test_structure.LESSONS[8]
SMALL = {  # in the lesson -> in this test
    "RUN_LIVE = False": "RUN_LIVE = True",
    '"train": 1000, "validation": 200, "test": 1000': '"train": 12, "validation": 6, "test": 8',
    "maps, 20, ": "maps, 2, ",
    "data, 10, ": "data, 1, ",
}


@pytest.fixture
def cells():
    """What makes the network, and the cells of the switch."""
    sources = [c.source for c in test_structure.code_cells(test_structure.read(LESSON))]
    wanted = ("gap_utils.backbones import", "= load_backbone()", "replace_head(backbone")
    wanted += ("def enlarge", "RUN_LIVE")
    return [source for source in sources if any(text in source for text in wanted)]


def state_of(model):
    return deepcopy(model.state_dict())


def changed(before, after):
    return {name for name in before if not torch.equal(before[name], after[name])}


def test_the_switch_trains_as_the_study_did(cells):
    for way, what in (("frozen", "model[1:], maps"), ("fine-tuned", "model, data")):
        recipe = f"Recipe(learning_rate={FINE_TUNING[way]}, batch_size={BATCH})"
        assert f"fit({what}, {EPOCHS[way]}, {recipe})" in "".join(cells[-2:])


def test_switched_off_nothing_is_trained(cells, capsys):
    names = {}  # not even a model is there
    for source in cells[-2:]:
        exec(source, names)
    assert names["RUN_LIVE"] is False
    assert capsys.readouterr().out == ""


def test_the_head_is_first_and_batch_norm_keeps_what_it_remembers(cells, capsys):
    text = "\0".join(cells)
    for large, small in SMALL.items():
        assert text.count(large) == 1
        text = text.replace(large, small)
    names = {}
    *first, head, whole = text.split("\0")
    for source in first:
        exec(source, names)
    states = [state_of(names["model"])]
    for source in (head, whole):
        exec(source, names)
        states.append(state_of(names["model"]))
    assert changed(*states[:2]) == {"linear.weight", "linear.bias"}
    parameters = {name for name, _ in names["model"].named_parameters()}
    assert changed(*states[1:]) == parameters  # and no running mean or variance
    assert re.findall(r"(frozen|fine-tuned): \d+\.\d%", capsys.readouterr().out) == [
        "frozen",
        "fine-tuned",
    ]
