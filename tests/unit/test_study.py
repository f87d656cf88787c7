"""The stored study, its statistics, and the tool that makes it, on a handful of pictures."""

import subprocess
import sys
from dataclasses import astuple, replace
from math import sqrt
from types import SimpleNamespace

import pandas
import pytest
import torch
from torch import nn

import run_study
from gap_utils import training
from gap_utils.data import Dataset, Split, load_fashion_mnist
from gap_utils.inference import predict
from gap_utils.localisation import place_in_clutter
from gap_utils.models import HEADS, build_convnet, load_trained
from gap_utils.robustness import RandomBorder, RandomShift
from gap_utils.study import (
    by_seed,
    compare,
    load_study,
    mean_and_spread,
    mean_curves,
    train_and_test,
)
from run_study import (
    BASELINES,
    COLUMNS,
    EPOCHS,
    FINE_TUNING,
    LARGE,
    LEVELS,
    Run,
    build,
    choose,
    compare_boxes,
    finished,
    map_of_answer,
    mean_gradient,
    measure,
    on_side,
    plan,
)

STUDY = load_study()
KEYS = list(COLUMNS[:7])


def test_every_row_says_where_it_is_from():
    assert list(STUDY.columns) == list(COLUMNS)
    assert not STUDY.isna().any().any()
    assert not STUDY.duplicated([*KEYS, "measure", "at"]).any()
    trained = STUDY.epochs > 0  # the others are boxes without a network
    assert (STUDY.seconds[trained] > 0).all()
    assert set(STUDY.model[~trained]) <= {*BASELINES}


def test_the_study_holds_what_is_planned_and_nothing_else():
    planned = {tuple(map(str, astuple(run))) for run in plan()}
    done = finished()
    assert done == planned
    fewer = {"learning rate": 1, "fine-tuning rate": 1, "article": 2, "fine-tuning": 3}
    for (experiment, _), rows in STUDY.groupby(["experiment", "model"]):
        assert rows.seed.nunique() == fewer.get(experiment, 5)


def test_what_was_chosen_is_best_on_the_validation_part():
    rates = STUDY[STUDY.measure == "validation_accuracy"]
    ours = rates[rates.experiment == "learning rate"].groupby("recipe").value.mean()
    assert ours["ours, 0.02"] == ours.max()  # of the three heads
    for model in {run.model for run in plan() if run.experiment == "fine-tuning rate"}:
        found = rates[(rates.experiment == "fine-tuning rate") & (rates.model == model)]
        by_rate = found.set_index("recipe").value
        assert by_rate[f"rate {FINE_TUNING[model]}"] == by_rate.max()
    for _, run in STUDY[STUDY.experiment == "places"].groupby(["model", "seed"]):
        level = run.value[run.measure == "level"]
        tried = run[run.measure == "found_validation"].set_index("at").value
        assert level.empty or tried[round(100 * level.item())] == tried.max()


def test_accuracies_are_parts_and_agree_with_each_other():
    parts = "accuracy|found|overlap|covered|filled|pointed"
    accuracies = STUDY[STUDY.measure.str.contains(parts)]
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


def test_two_models_seed_by_seed_by_hand():
    table = pandas.DataFrame({"a": [5.0, 1, 9, 3, 2], "b": [4.0, -1, 6, -1, -3]})
    found = compare(table, "a", "b")
    assert found.differences == (1, 2, 3, 4, 5)  # mean 3, variance 10 / 4
    assert found.lead == 3
    half = 2.776 * sqrt(2.5 / 5)
    assert (found.low, found.high) == pytest.approx((3 - half, 3 + half))
    assert found.spread == pytest.approx(sqrt(58 / 4))  # of b; that of a is sqrt(40 / 4)
    assert (found.is_clear, found.is_supported) == (False, True)
    other = compare(table, "b", "a")
    assert (other.lead, other.low, other.high) == pytest.approx((-3, -found.high, -found.low))
    assert (other.is_clear, other.is_supported) == (False, False)


def test_the_two_questions_have_answers_of_their_own():
    """The same means and spreads; only which run has which seed differs."""
    gap = [0.60, 0.62, 0.64, 0.66, 0.68]
    in_step = pandas.DataFrame({"gap": gap, "gmp": [0.58, 0.60, 0.62, 0.64, 0.66]})
    crossed = pandas.DataFrame({"gap": gap, "gmp": [0.66, 0.64, 0.62, 0.60, 0.58]})
    one, other = compare(in_step, "gap", "gmp"), compare(crossed, "gap", "gmp")
    assert one.lead == pytest.approx(other.lead) == pytest.approx(0.02)
    assert one.spread == pytest.approx(other.spread)
    assert (one.is_clear, one.is_supported) == (False, True)
    assert (other.is_clear, other.is_supported) == (False, False)


@pytest.mark.parametrize(("lead", "is_clear"), [(2.99, False), (3.01, True)])
def test_a_lead_of_three_spreads_is_not_enough(lead, is_clear):
    steps = pandas.Series([-1.0, 0, 1])  # their standard deviation is 1
    table = pandas.DataFrame({"a": lead + steps, "b": 0.5 * steps})
    assert compare(table, "a", "b").is_clear is is_clear


def test_only_seeds_of_both_are_compared():
    table = pandas.DataFrame({"a": [1.0, 2, 9, None], "b": [0.0, 0, None, 9]})
    found = compare(table, "a", "b")
    assert found.differences == (1, 2)
    assert found.spread == pytest.approx(sqrt(0.5))  # the run without a partner is left out
    assert found.high - found.lead == pytest.approx(12.706 * 0.5)


@pytest.mark.parametrize(
    ("table", "names", "said"),
    [
        ({"a": [1.0], "b": [2.0]}, "ab", "expected 2 to 10 seeds that both models have, got 1"),
        ({"a": range(11), "b": range(11)}, "ab", "got 11"),
        ({"a": [1.0, 2], "b": [2.0, 3]}, "ac", "expected one of a, b, got 'c'"),
    ],
)
def test_what_cannot_be_compared(table, names, said):
    with pytest.raises(ValueError, match=said):
        compare(pandas.DataFrame(table), *names)


def in_points(found):
    return [round(100 * difference, 1) for difference in found.differences]


def test_the_heads_seed_by_seed():
    """The figures that the lesson writes about."""
    moved = by_seed(STUDY, "accuracy_against_shift", 3)
    assert list(moved.columns) == sorted(HEADS)
    found = compare(moved, "gap", "gmp")
    assert in_points(found) == [13.8, 7.4, 16.1, 7.4, 7.1]
    assert (found.is_clear, found.is_supported) == (False, True)
    few = train_and_test(STUDY).difference.loc[1000].unstack("model")
    assert few.shape == (5, 5)
    found = compare(few, "flatten", "gap")
    assert in_points(found) == [-1.0, 0.7, 3.6, 4.2, 3.7]
    assert (found.is_clear, found.is_supported) == (False, False)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (("accuracy",), "got 0 numbers of 'accuracy' in 'heads'"),
        (("test_accuracy", 0, "article"), "got 8 numbers of 'test_accuracy' in 'article'"),
        (("test_accuracy", 0, ("heads", "digits")), "got 30 numbers of .* in 'heads' and 'digits'"),
        (("accuracy_against_canvas", 30), "at to be one of 28, 32, 36, 40, 48, got 30"),
    ],
)
def test_a_table_needs_one_number_of_each_run(asked, said):
    with pytest.raises(ValueError, match=said):
        by_seed(STUDY, *asked)


def test_experiments_side_by_side_keep_their_seeds():
    rows = [("heads", "gap", 0, 1.0), ("heads", "gap", 1, 2.0), ("remedies", "gap, blur", 1, 5.0)]
    study = pandas.DataFrame(rows, columns=["experiment", "model", "seed", "value"])
    study = study.assign(measure="size", at=0)
    table = by_seed(study, "size", 0, ["heads", "remedies"])
    assert table["gap"].to_dict() == {0: 1, 1: 2}
    assert table["gap, blur"].dropna().to_dict() == {1: 5}
    assert list(by_seed(study, "size", 0, ("heads",))) == ["gap"]
    assert list(by_seed(study, "size", 0, "remedies")) == ["gap, blur"]


def test_mean_and_spread_by_hand():
    rows = [("heads", "size", at, "gap", seed, at + seed) for at in (1, 2) for seed in (0, 2, 4)]
    columns = ["experiment", "measure", "at", "model", "seed", "value"]
    table = mean_and_spread(pandas.DataFrame(rows, columns=columns), "size")
    assert table["mean"].gap.to_dict() == {1: 3, 2: 4}
    assert table["std"].gap.to_dict() == {1: 2, 2: 2}


def test_training_minus_test_accuracy():
    table = train_and_test(STUDY)
    assert len(table) == 3 * 5 * 5  # numbers of pictures, models, seeds
    row = table.loc[(55_000, "gap", 0)]
    runs = STUDY[(STUDY.experiment == "heads") & (STUDY.model == "gap") & (STUDY.seed == 0)]
    values = runs.set_index("measure").value
    assert row.train_accuracy == values.train_accuracy
    assert row.difference == values.train_accuracy - values.test_accuracy


def test_the_curves_are_the_means_of_the_study():
    curves = mean_curves()
    assert list(curves) == list(HEADS)
    for head, accuracies in curves.items():
        assert len(accuracies) == 7
        for pixels, accuracy in enumerate(accuracies):
            mean = by_seed(STUDY, "accuracy_against_shift", pixels)[head].mean()
            assert accuracy == pytest.approx(mean)


def test_a_lab_reads_the_curves_without_pandas():
    code = (
        "import sys; from gap_utils.widgets import ShiftLab; lab = ShiftLab(); "
        "print(lab, 'pandas' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "ShiftLab(picture 0 moved by 0, 0: gap, gmp, flatten) False"


def test_a_shift_to_the_other_side_begins_and_ends_where_the_sides_were_measured():
    moved = [by_seed(STUDY, "accuracy_moved_left", at, "one side").gap for at in range(0, 29, 4)]
    right, left = (
        by_seed(STUDY, f"test_accuracy_{side}", 0, "one side").gap for side in ("right", "left")
    )
    assert moved[0].equals(right)
    assert moved[-1].equals(left)


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
        ("one side", "ours", "gap", {"test_accuracy_left", "accuracy_moved_left"}),
        ("article", "article, plain logits", "gap", {"test_accuracy"}),
        ("more heads", "ours", "gem", {"p", "accuracy_against_canvas", "test_accuracy"}),
        ("remedies", "ours", "gmp, sizes", {"accuracy_against_canvas"}),
        ("remedies", "ours", "flatten, shifts", {"accuracy_against_shift", "test_accuracy"}),
        ("remedies, one side", "ours", "gap, blur", {"test_accuracy_left", "test_accuracy_right"}),
    ],
)
def test_a_run(tiny, experiment, recipe, model, measures):
    data = "Fashion-MNIST, right half" if "one side" in experiment else "Fashion-MNIST"
    run = Run(experiment, data, 20, recipe, 2, model, 0)
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


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize(
    ("model", "remedies"),
    [
        ("gap, shifts", ["RandomShift(pixels=4)"]),
        ("gmp, sizes", ["RandomBorder(widths=(0, 2, 4, 6))"]),
        ("gap, blur", []),
        ("flatten, shifts", ["RandomShift(pixels=4)"]),
    ],
)
def test_a_remedied_network_begins_with_the_weights_of_the_other(model, remedies, wide):
    head = model.partition(", ")[0]
    torch.manual_seed(3)
    plain = build(head, wide)
    torch.manual_seed(3)
    *layers, network = build(model, wide)
    assert [repr(layer) for layer in layers] == remedies
    for one, other in zip(plain.parameters(), network.parameters(), strict=True):
        assert torch.equal(one, other)
    assert ("ReplicationPad2d" in repr(network)) == model.endswith("blur")


def test_a_remedied_network_sees_the_pictures_in_the_order_of_the_other(tiny):
    losses = []
    for remedies in ([], [RandomBorder([0]), RandomShift(0)]):  # which draw and change nothing
        torch.manual_seed(3)
        model = nn.Sequential(*remedies, build("gap"))
        losses.append(training.fit(model, tiny, 2, progress=False).train_loss.tolist())
    assert losses[0] == losses[1]


@pytest.mark.parametrize(
    ("experiment", "data", "model", "recipe"),
    [
        ("learning rate", "Fashion-MNIST", "gap", "ours, 0.01"),
        ("fine-tuning rate", LARGE, "fine-tuned", "rate 0.01"),
    ],
)
def test_a_choice_never_sees_the_test_part(
    tiny, backbone, monkeypatch, experiment, data, model, recipe
):
    monkeypatch.setattr(run_study, "load", lambda name: replace(tiny, test=None))
    rows = measure(Run(experiment, data, 20, recipe, 1, model, 100), 1)
    assert not any(row[7].startswith("test") for row in rows)


def values_of(rows):
    """The measures that a run has once."""
    return {row[7]: float(row[9]) for row in rows if row[8] == 0}


PLACES = "Fashion-MNIST, in clutter"


def test_boxes_beside_each_other_by_hand():
    guessed = torch.tensor([[0, 0, 4, 4], [0, 0, 4, 4], [0, 0, 2, 2]])
    true = torch.tensor([[2, 0, 6, 4], [0, 0, 4, 2], [2, 2, 4, 4]])
    found = {name: numbers.tolist() for name, numbers in compare_boxes(guessed, true).items()}
    assert found.pop("overlap") == pytest.approx([8 / 24, 8 / 16, 0])
    assert found == {
        "found": [False, True, False],
        "covered": [0.5, 1, 0],
        "filled": [0.5, 0.5, 0],
        "size": [1, 2, 1],
    }


def test_a_box_in_the_middle_by_hand(monkeypatch):
    """White blocks, 12 wide and 20 high, so the box has the size of each."""
    images = torch.zeros(30, 1, 28, 28)
    images[:, :, 4:24, 8:20] = 1
    part = Split(images, torch.zeros(30, dtype=torch.long), torch.arange(30))
    data = Dataset("blocks", part, part, part, "a test", ("block",))
    monkeypatch.setattr(run_study, "load", lambda name: data)
    found = values_of(measure(Run("places", PLACES, 0, "none", 0, "centre", 1), 1))
    overlaps, pointed = [], 0
    for left, top, right, bottom in place_in_clutter(part, 1)[1].tolist():
        assert (right - left, bottom - top) == (12, 20)
        shared = max(0, 12 - abs(left - 36)) * max(0, 20 - abs(top - 32))
        overlaps.append(shared / (2 * 240 - shared))
        pointed += left <= 42 < right and top <= 42 < bottom
    assert found["overlap"] == pytest.approx(sum(overlaps) / 30, abs=1e-5)
    assert found["found"] == pytest.approx(sum(part >= 0.5 for part in overlaps) / 30, abs=1e-5)
    assert found["pointed"] == pytest.approx(pointed / 30, abs=1e-5)
    assert found["covered"] == found["filled"] > 0
    assert found["size"] == 1
    random = values_of(measure(Run("places", PLACES, 0, "none", 0, "random", 1), 1))
    assert random["size"] == 1
    assert random["overlap"] != found["overlap"]


@pytest.mark.parametrize(
    ("model", "pictures", "recipe"),
    [("gap", 20, "ours"), ("brightness", 0, "none")],
)
def test_the_level_of_a_box_is_chosen_on_the_validation_part(
    tiny, monkeypatch, model, pictures, recipe
):
    run = Run("places", PLACES, pictures, recipe, min(pictures, 2), model, 0)
    rows = measure(run, 1)
    found = {(row[7], row[8]): float(row[9]) for row in rows}
    tried = [found["found_validation", round(100 * level)] for level in LEVELS]
    assert found["level", 0] == LEVELS[tried.index(max(tried))]
    assert ("named_and_found" in values_of(rows)) == (pictures > 0)
    if pictures:
        most = min(found["found", 0], found["test_accuracy", 0])
        assert found["named_and_found", 0] <= most

    spoilt = tiny.test.images.clone()
    spoilt[..., 18:] = 0
    other = replace(tiny, test=replace(tiny.test, images=spoilt))
    monkeypatch.setattr(run_study, "load", lambda name: other)
    again = {(row[7], row[8]): float(row[9]) for row in measure(run, 1)}
    seen = {key for key in found if "validation" in key[0] or key[0] == "level"}
    assert {key: found[key] for key in seen} == {key: again[key] for key in seen}
    assert found["overlap", 0] != again["overlap", 0]


@pytest.mark.parametrize(("head", "pool"), [("gap", torch.mean), ("gmp", torch.amax)])
def test_the_map_of_an_answer_pools_to_the_largest_logit(head, pool):
    torch.manual_seed(0)
    model, images = build_convnet(head, last_pool=False), torch.rand(5, 1, 84, 84)
    maps = map_of_answer(model, images)
    assert maps.shape == (5, 21, 21)
    torch.testing.assert_close(pool(maps, (1, 2)), predict(model, images).amax(1))


@pytest.fixture
def backbone(monkeypatch):
    """A small network in place of EfficientNet-Lite0; what was made and trained is kept."""
    kept = SimpleNamespace(weights=[], models=[], starts=[], trainings=[])

    def load(weights):
        kept.weights.append(weights)
        torch.manual_seed(7 if weights == "pretrained" else 8)
        layers = [nn.Conv2d(3, 4, 8, stride=8), nn.BatchNorm2d(4), nn.ReLU()]
        layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5)]
        return SimpleNamespace(model=nn.Sequential(*layers).eval())

    def replace_head(*arguments, replace_head=run_study.replace_head, **named):
        kept.models.append(replace_head(*arguments, **named))
        kept.starts.append({k: v.clone() for k, v in kept.models[-1].state_dict().items()})
        return kept.models[-1]

    def fit(model, data, epochs, recipe, *arguments, fit=run_study.fit, **named):
        kept.trainings.append((epochs, recipe.learning_rate, len(data.train)))
        return fit(model, data, epochs, recipe, *arguments, **named)

    monkeypatch.setattr(run_study, "load_backbone", load)
    monkeypatch.setattr(run_study, "replace_head", replace_head)
    monkeypatch.setattr(run_study, "fit", fit)
    return kept


@pytest.mark.parametrize(
    ("model", "weights", "head_first", "whole", "statistics"),
    [
        ("frozen", "pretrained", True, False, False),
        ("fine-tuned", "pretrained", True, True, False),
        ("from nothing", "random", False, True, True),
    ],
)
def test_what_fine_tuning_changes(
    tiny, backbone, monkeypatch, model, weights, head_first, whole, statistics
):
    monkeypatch.setitem(EPOCHS, "frozen", 3)
    rate = FINE_TUNING[model]
    run = Run("fine-tuning", LARGE, 20, f"rate {rate}", 3 if model == "frozen" else 2, model, 0)
    rows = measure(run, 1)
    assert {row[7] for row in rows} == {"train_loss", "validation_accuracy", "test_accuracy"}
    assert backbone.weights == [weights]
    trainings = [(3, FINE_TUNING["frozen"], 20)] * head_first + [(2, rate, 20)] * whole
    assert backbone.trainings == trainings

    (start,), (trained,) = backbone.starts, backbone.models
    changed = {
        name.partition(".model.")[2] or "head"
        for name, tensor in trained.state_dict().items()
        if not torch.equal(tensor, start[name])
    }
    learned = {"0.weight", "0.bias", "1.weight", "1.bias"} if whole else set()
    remembered = {"1.running_mean", "1.running_var", "1.num_batches_tracked"}
    assert changed == {"head"} | learned | (remembered if statistics else set())


def test_a_run_that_was_interrupted_is_no_run(tiny, monkeypatch):
    def stop(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(training, "evaluate", stop)
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
