"""The stored study, and the tool that makes it, on a handful of pictures."""

from dataclasses import astuple, replace

import pytest
import torch

import run_study
from gap_utils.data import Split, load_fashion_mnist
from gap_utils.models import HEADS, build_convnet, load_trained
from gap_utils.study import load_study
from run_study import COLUMNS, Run, choose, finished, mean_gradient, measure, on_side, plan

STUDY = load_study()
KEYS = list(COLUMNS[:7])


def test_every_row_says_where_it_is_from():
    assert list(STUDY.columns) == list(COLUMNS)
    assert not STUDY.isna().any().any()
    assert not STUDY.duplicated([*KEYS, "measure", "at"]).any()
    assert (STUDY.seconds > 0).all()


def test_the_study_holds_what_is_planned_and_nothing_else():
    planned = {tuple(map(str, astuple(run))) for run in plan()}
    done = finished()
    assert done == planned
    for _, rows in STUDY[STUDY.measure == "test_accuracy"].groupby(["experiment", "model"]):
        assert rows.seed.nunique() >= (2 if rows.experiment.iloc[0] == "article" else 5)


def test_accuracies_are_parts_and_agree_with_each_other():
    accuracies = STUDY[STUDY.measure.str.contains("accuracy")]
    assert accuracies.value.between(0, 1).all()
    heads = STUDY[STUDY.experiment == "heads"].pivot(
        index=["model", "seed"], columns=["measure", "at"], values="value"
    )
    centred = heads["test_accuracy", 0]
    assert (heads["accuracy_against_shift", 0] == centred).all()
    canvas = heads["accuracy_against_canvas", 28].dropna()
    assert (canvas == centred[canvas.index]).all()
    assert len(canvas) == 10  # gap and gmp: flatten takes no other canvas
    gradients = heads["mean_gradient"].dropna()
    assert gradients.sum(axis=1).to_numpy() == pytest.approx(1, abs=1e-4)
    assert gradients.loc["gap"].to_numpy() == pytest.approx(1 / 9, abs=1e-4)


@pytest.fixture
def tiny(monkeypatch):
    """The shipped part, cut down, in place of the two full sets."""
    data = load_fashion_mnist()
    parts = {name: choose(getattr(data, name), 40, 0) for name in ("train", "validation", "test")}
    tiny = replace(data, **parts)
    monkeypatch.setattr(run_study, "load", lambda name: tiny)
    return tiny


@pytest.mark.parametrize(
    ("experiment", "recipe", "model", "measures"),
    [
        ("heads", "ours", "gmp", {"accuracy_against_canvas", "mean_gradient", "test_accuracy"}),
        ("heads", "ours", "flatten", {"accuracy_against_shift", "test_accuracy"}),
        ("overfitting", "ours", "classic, dropout", {"train_accuracy", "test_accuracy"}),
        ("one side", "ours", "flatten", {"test_accuracy_left", "test_accuracy_right"}),
        ("article", "article, plain logits", "gap", {"test_accuracy"}),
    ],
)
def test_a_run(tiny, experiment, recipe, model, measures):
    run = Run(experiment, "Fashion-MNIST", 20, recipe, 2, model, 0)
    threads = torch.get_num_threads()
    rows = measure(run, threads)
    assert {row[:7] for row in rows} == {astuple(run)}
    assert all(len(row) == len(COLUMNS) for row in rows)
    found = {row[7] for row in rows}
    assert measures | {"train_loss", "validation_accuracy", "parameters"} <= found
    epochs = [row[8] for row in rows if row[7] == "train_loss"]
    assert epochs == ([1, 2] if experiment in ("heads", "article") else [2])
    again = measure(run, threads)
    assert [row[:10] for row in again] == [row[:10] for row in rows]


def test_a_run_that_was_interrupted_is_no_run(tiny, monkeypatch):
    fit = run_study.fit
    monkeypatch.setattr(run_study, "fit", lambda *a, **k: fit(*a, **k).head(1))
    with pytest.raises(KeyboardInterrupt):
        measure(Run("heads", "Fashion-MNIST", 20, "ours", 2, "gap", 0), 1)


def test_choosing_pictures():
    part = load_fashion_mnist().test
    some, same, other = choose(part, 50, 1), choose(part, 50, 1), choose(part, 50, 2)
    assert torch.equal(some.numbers, same.numbers)
    assert not torch.equal(some.numbers, other.numbers)
    assert some.numbers.unique().numel() == 50
    assert choose(part, 5000, 1) is part


def test_sides():
    part = Split(torch.ones(2, 1, 28, 28), torch.tensor([0, 1]), torch.arange(2))
    for side, half in [("left", slice(0, 28)), ("right", slice(28, 56))]:
        images = on_side(part, side).images
        assert images.shape == (2, 1, 28, 56)
        assert images.sum() == images[..., half].sum() == 2 * 28 * 28


def test_the_mean_gradient_by_hand():
    part = choose(load_fashion_mnist().test, 20, 0)
    assert mean_gradient(build_convnet("gap"), part).tolist() == pytest.approx([1 / 9] * 9)
    model = load_trained("gmp")
    expected = torch.zeros(9)
    for image, label in zip(part.images, part.labels, strict=True):
        own = model.head[0](model.body(image[None]))[0, label].flatten()
        expected[own.argmax()] += 1 / 20
    torch.testing.assert_close(mean_gradient(model, part), expected)


def test_the_numbers_of_parameters():
    rows = STUDY[STUDY.measure == "parameters"].groupby(["experiment", "model"]).value.unique()
    assert rows["heads", "gap"].tolist() == [18_370]
    assert rows["heads", "flatten"].tolist() == [20_930]
    assert rows["one side", "flatten"].tolist() == [18_040 + 32 * 3 * 7 * 10 + 10]
    assert rows["overfitting", "classic"].tolist() == [18_040 + 288 * 256 + 256 + 2570]
    assert set(HEADS) == set(STUDY[STUDY.experiment == "digits"].model)
