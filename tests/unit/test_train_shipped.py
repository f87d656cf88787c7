import json
import shutil
from dataclasses import replace

import pytest
from safetensors.torch import load

from gap_utils.data import load_fashion_mnist
from gap_utils.models import ASSETS, TRAINED, build_convnet
from tools import run_study, train_shipped


@pytest.mark.parametrize("head", ["gap", "gmp"])
def test_what_looks_for_clothes_is_a_run_of_the_study(monkeypatch, head):
    data = load_fashion_mnist()
    parts = ("train", "validation", "test")
    tiny = replace(data, **{part: run_study.choose(getattr(data, part), 30, 0) for part in parts})
    for module in (run_study, train_shipped):
        monkeypatch.setattr(module, "load", lambda name: tiny)
    content, told = train_shipped.train(f"{head}_places")
    (run,) = (
        run
        for run in run_study.plan()
        if (run.experiment, run.model, run.seed) == ("places", head, 0)
    )
    found = {(what, at): value for what, at, value in run_study.measure_places(run)[0]}
    assert told["test_accuracy"] == round(found["test_accuracy", 0], 4)
    assert told["validation_accuracy"] == round(found["validation_accuracy", told["epochs"]], 4)
    assert told["box_level"] == found["level", 0]
    assert told["data"] == "Fashion-MNIST, in clutter, 6,000 pictures of the full set"
    build_convnet(**told["network"]).load_state_dict(load(content))


def test_only_the_networks_that_are_named_are_written(monkeypatch, tmp_path):
    for path in [TRAINED, *ASSETS.glob("*.safetensors")]:
        shutil.copy(path, tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    monkeypatch.setattr(train_shipped, "ASSETS", tmp_path)
    monkeypatch.setattr(train_shipped, "TRAINED", tmp_path / TRAINED.name)
    monkeypatch.setattr(train_shipped.torch, "set_num_threads", lambda count: None)
    told = {"test_accuracy": 0.5}
    monkeypatch.setattr(train_shipped, "train", lambda name: (name.encode(), told))
    train_shipped.main(["gmp"])
    after = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert after.pop("gmp.safetensors") == b"gmp"
    table = json.loads(before[TRAINED.name])
    assert [*table] == [*train_shipped.NETWORKS]
    assert json.loads(after.pop(TRAINED.name)) == table | {"gmp": told}
    assert after.items() < before.items()
