"""training.py against PyTorch written out by hand, and against itself after a break."""

import copy
import math
import re
from dataclasses import replace

import numpy as np
import pandas
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from gap_utils import training
from gap_utils.data import Dataset, Split
from gap_utils.inference import evaluate, predict
from gap_utils.models import build_convnet
from gap_utils.training import (
    ARTICLE_RECIPE,
    DEFAULT_RECIPE,
    DivergedError,
    Recipe,
    TrainingInterrupted,
    fit,
)
from small_data import make_dataset, make_model, make_split
from small_networks import Call


@pytest.fixture
def data():
    return make_dataset()


def train(model, data, epochs=4, **options):
    options.setdefault("recipe", Recipe(learning_rate=0.01, batch_size=8))
    return fit(model, data, epochs, progress=False, **options)


def interrupt(model, data, epochs=4, **options):
    """Train a model that interrupts itself; return the history so far."""
    with pytest.raises(TrainingInterrupted) as stop:
        train(model, data, epochs, **options)
    assert isinstance(stop.value, KeyboardInterrupt)
    return stop.value.history


def weights(model):
    return copy.deepcopy(model.state_dict())


def assert_same(left, right):
    assert left.keys() == right.keys()
    for name, tensor in left.items():
        assert torch.equal(tensor, right[name]), name


def assert_close(model, twin):
    for mine, theirs in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-4)


def without_seconds(history):
    return history.drop(columns="seconds")


def test_an_epoch_is_the_steps_written_by_hand(data):
    """Adam from its paper, the schedule constant: no PyTorch optimizer on this side."""
    # a bias in front of BatchNorm has a gradient of rounding errors, which Adam enlarges
    model = make_model(dropout=0, norm=False)
    twin = copy.deepcopy(model)
    recipe = Recipe(learning_rate=0.01, batch_size=8, one_cycle=False, shuffle=False)
    history = train(model, data, 1, recipe=recipe)

    moments = [(torch.zeros_like(p), torch.zeros_like(p)) for p in twin.parameters()]
    total = 0.0
    for step, batch in enumerate([slice(0, 8), slice(8, 16), slice(16, 20)], 1):
        logits = twin(data.train.images[batch])
        labels = data.train.labels[batch]
        loss = (logits.exp().sum(1).log() - logits[range(len(labels)), labels]).mean()
        total += loss.item() * len(labels)
        gradients = torch.autograd.grad(loss, list(twin.parameters()))
        for parameter, (m, v), g in zip(twin.parameters(), moments, gradients, strict=True):
            m.mul_(0.9).add_(0.1 * g)
            v.mul_(0.999).add_(0.001 * g * g)
            m_hat, v_hat = m / (1 - 0.9**step), v / (1 - 0.999**step)
            parameter.data -= 0.01 * m_hat / (v_hat.sqrt() + 1e-8)
    assert history.train_loss.item() == pytest.approx(total / 20, abs=1e-6)
    assert_close(model, twin)


@pytest.mark.parametrize(("count", "starts"), [(20, [0, 8, 16]), (17, [0, 8])])
def test_one_cycle_is_that_of_pytorch(count, starts):
    """The last of 17 pictures is in the batch before it."""
    data = replace(make_dataset(), train=make_split(count))
    model = make_model(dropout=0, norm=False)
    twin = copy.deepcopy(model)
    train(model, data, 2, recipe=Recipe(learning_rate=0.01, batch_size=8, shuffle=False))
    optimizer = torch.optim.Adam(twin.parameters(), 0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 0.01, epochs=2, steps_per_epoch=len(starts)
    )
    for first in starts * 2:
        batch = slice(first, first + 8 if first < starts[-1] else None)
        optimizer.zero_grad()
        F.cross_entropy(twin(data.train.images[batch]), data.train.labels[batch]).backward()
        optimizer.step()
        schedule.step()
    assert_close(model, twin)


def test_every_picture_is_seen_once_an_epoch_in_an_order_of_its_own(data):
    orders = []

    class Watch(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(64, 3)

        def forward(self, images):
            if self.training:
                orders.extend(images[:, 0, 0, 0].tolist())
            return self.linear(images.flatten(1))

    train(Watch(), data, 2)
    first, second = orders[:20], orders[20:]
    everything = data.train.images[:, 0, 0, 0].tolist()
    assert sorted(first) == sorted(second) == sorted(everything)
    assert first != everything
    assert first != second
    orders.clear()
    train(Watch(), data, 1, recipe=ARTICLE_RECIPE)
    assert orders == everything


def test_the_same_seed_gives_the_same_run(data):
    runs = []
    for seed, noise in [(1, 5), (1, 6), (2, 5)]:
        model = make_model()
        torch.manual_seed(noise)  # what the caller does to the random state is no matter
        runs.append((without_seconds(train(model, data, seed=seed)), weights(model)))
    assert runs[0][0].equals(runs[1][0])
    assert_same(runs[0][1], runs[1][1])
    assert not runs[0][0].equals(runs[2][0])


def test_the_history_is_a_table(data):
    model = make_model()
    history = train(model, data, 3)
    assert list(history.columns) == list(training.COLUMNS)
    assert history.epoch.tolist() == [1, 2, 3]
    score = evaluate(model, data.validation)
    assert history.validation_loss.iloc[-1] == pytest.approx(score.loss)
    assert history.validation_accuracy.iloc[-1] == score.accuracy
    assert (history.seconds > 0).all()


def test_what_is_left_as_it_was(data):
    model = make_model()
    model[1].eval()
    modes = [module.training for module in model.modules()]
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    images = data.train.images.clone()
    train(model, data)
    predict(model, data.test.images)
    evaluate(model, data.test)
    assert [module.training for module in model.modules()] == modes
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads
    assert torch.equal(data.train.images, images)


class Stop(nn.Module):
    """A model that the kernel is interrupted in, at a step of its training."""

    def __init__(self, model, step):
        super().__init__()
        self.model = model
        self.steps_left = step

    def forward(self, images):
        if self.training:
            self.steps_left -= 1
            if self.steps_left == 0:
                raise KeyboardInterrupt
        return self.model(images)


@pytest.mark.parametrize(("step", "epochs"), [(1, 0), (3, 0), (4, 1), (8, 2)])
def test_an_interrupted_run_is_as_after_its_last_whole_epoch(data, step, epochs):
    """An epoch has three steps here, so step 4 is in the second."""
    whole = [weights(Stop(make_model(), 0))]
    recipe = Recipe(learning_rate=0.01, batch_size=8, one_cycle=False)
    histories = [None]
    for count in (1, 2):
        model = Stop(make_model(), 0)
        histories.append(train(model, data, count, recipe=recipe))
        whole.append(weights(model))
    model = Stop(make_model(), step)
    modes = [module.training for module in model.modules()]
    sentence = f"^gap: the model is as after epoch {epochs} of 3$"
    with pytest.raises(TrainingInterrupted, match=sentence) as stop:
        train(model, data, 3, recipe=recipe, name="gap")
    history = stop.value.history
    assert list(history.columns) == list(training.COLUMNS)
    assert len(history) == epochs
    assert_same(weights(model), whole[epochs])
    assert [module.training for module in model.modules()] == modes
    if epochs:
        assert without_seconds(history).equals(without_seconds(histories[epochs]))


def test_an_interrupt_ends_a_loop_over_models(data):
    models = {head: Stop(make_model(), 2) for head in ("gap", "gmp", "flatten")}
    with pytest.raises(KeyboardInterrupt, match="gap: the model"):
        for head, model in models.items():
            train(model, data, name=head)
    assert [model.steps_left for model in models.values()] == [0, 2, 2]


def test_before_the_first_epoch_is_over_the_model_has_its_own_weights(data):
    model = Stop(make_model(), 1)
    before = weights(model)
    interrupt(model, data, recipe=ARTICLE_RECIPE, epochs=5)
    assert_same(weights(model), before)


@pytest.mark.parametrize("recipe", [Recipe(0.01, 8), Recipe(0.01, 8, False, False, True, True)])
@pytest.mark.parametrize("step", [2, 5, 12])
def test_resumed_equals_uninterrupted(data, tmp_path, recipe, step):
    path = tmp_path / "run.pt"
    uninterrupted = Stop(make_model(), 0)
    expected = train(uninterrupted, data, 4, recipe=recipe)
    first = Stop(make_model(), step)
    interrupt(first, data, 4, recipe=recipe, checkpoint=path)
    torch.manual_seed(99)
    second = Stop(make_model(), 0)
    if path.exists():  # then all comes from the file
        for parameter in second.parameters():
            parameter.data.zero_()
    resumed = train(second, data, 4, recipe=recipe, checkpoint=path)
    assert without_seconds(resumed).equals(without_seconds(expected))
    assert_same(weights(second), weights(uninterrupted))
    assert [file.name for file in tmp_path.iterdir()] == ["run.pt"]

    again = make_model()  # a finished run is only read
    third = Stop(again, 1)
    assert train(third, data, 4, recipe=recipe, checkpoint=path).equals(resumed)
    assert_same(weights(third), weights(uninterrupted))


def test_a_resumed_run_that_is_interrupted_again_is_as_its_checkpoint(data, tmp_path):
    path = tmp_path / "run.pt"
    first = Stop(make_model(), 5)
    history = interrupt(first, data, 4, checkpoint=path)
    assert len(history) == 1
    second = Stop(make_model(dropout=0.5), 2)  # in the first epoch after the break
    for parameter in second.parameters():
        parameter.data.zero_()
    assert interrupt(second, data, 4, checkpoint=path).equals(history)
    assert_same(weights(second), weights(first))


def test_a_checkpoint_of_another_run_is_refused(data, tmp_path):
    path = tmp_path / "run.pt"
    model = make_model()
    before = weights(model)
    train(make_model(), data, checkpoint=path)
    other = replace(data, train=make_split(20, seed=8))
    for message, arguments in {
        "other seed: 0 there, 1 here": {"seed": 1},
        "other epochs: 4 there, 9 here": {"epochs": 9},
        r"other learning_rate: 0\.01 there, 0\.02 here": {"recipe": Recipe(0.02, 8)},
        "other data": {"data": other},
        "other model": {"model": make_model(dropout=0.4)},
        "other (data|shapes)": {"model": make_model().double()},
        r"other frozen parameters; delete": {"model": half_frozen(make_model())},
        r"other modules in evaluation mode; delete": {"model": half_asleep(make_model())},
    }.items():
        run = {"model": model, "data": data, "checkpoint": path, **arguments}
        with pytest.raises(ValueError, match=message):
            train(**run)
    assert_same(weights(model), before)


def half_frozen(model):
    model[0].requires_grad_(False)
    return model


def half_asleep(model):
    model[1].eval()
    return model


def test_a_frozen_run_goes_on_from_its_checkpoint(data, tmp_path):
    """PyTorch's Adam refuses the state of another number of parameters."""
    path, frozen = tmp_path / "run.pt", half_asleep(half_frozen(make_model()))
    expected = train(copy.deepcopy(frozen), data)
    interrupt(Stop(copy.deepcopy(frozen), 5), data, checkpoint=path)
    resumed = train(Stop(frozen, 0), data, checkpoint=path)
    assert without_seconds(resumed).equals(without_seconds(expected))


def test_what_a_checkpoint_is_told_apart_by(data, tmp_path):
    """What most runs do not have is not written, so that their older checkpoints fit."""
    path = tmp_path / "run.pt"
    train(make_model(), data, checkpoint=path)
    usual = {"epochs", "seed", "data", "model", "shapes", *vars(DEFAULT_RECIPE)}
    assert torch.load(path, weights_only=True)["settings"].keys() == usual

    path.unlink()
    data = replace(data, train=make_split(17))
    train(make_model(), data, checkpoint=path)
    state = torch.load(path, weights_only=True)
    assert state["settings"].pop("a last batch of one joined")
    torch.save(state, path)  # as of a run of three batches
    with pytest.raises(ValueError, match="other a last batch of one joined; delete"):
        train(make_model(), data, checkpoint=path)


def test_gap_and_gmp_have_the_same_shapes_and_not_the_same_checkpoint(tmp_path):
    part = make_split(4, size=28)
    data = Dataset("noise", part, part, part, source="a test", class_names=("a", "b", "c"))
    train(build_convnet("gap", num_classes=3), data, 1, checkpoint=tmp_path / "run.pt")
    with pytest.raises(ValueError, match="other model"):
        train(build_convnet("gmp", num_classes=3), data, 1, checkpoint=tmp_path / "run.pt")


def test_a_damaged_checkpoint_is_refused(data, tmp_path):
    path = tmp_path / "run.pt"
    train(make_model(), data, checkpoint=path)
    model = make_model()
    before = weights(model)
    content = path.read_bytes()
    flipped = bytearray(content)
    for place in range(len(content) // 4, len(content), 50):
        flipped[place] ^= 255
    for damaged in (
        *(content[: len(content) * part // 10] for part in range(10)),
        bytes(flipped),
        b"no checkpoint",
    ):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"run\.pt to be a checkpoint of fit.*delete it"):
            train(model, data, checkpoint=path)
    path.write_bytes(content)
    whole = torch.load(path, weights_only=True)
    for wrong in ({"other": 1}, {"settings": 5}, torch.zeros(3)):
        torch.save(wrong, path)
        with pytest.raises(ValueError, match="to be a checkpoint of fit"):
            train(model, data, checkpoint=path)
    for name in ("model", "optimizer", "schedule", "rows"):
        torch.save({key: value for key, value in whole.items() if key != name}, path)
        with pytest.raises(ValueError, match="to be a checkpoint of fit"):
            train(model, data, checkpoint=path)
    assert_same(weights(model), before)
    with pytest.raises(ValueError, match="a checkpoint file in a folder"):
        train(model, data, checkpoint=tmp_path)


def test_numbers_from_numpy_are_taken(data, tmp_path):
    recipe = Recipe(np.float32(0.01), np.int64(8))
    for _ in range(2):
        history = train(
            make_model(),
            data,
            np.int64(2),
            seed=np.int64(3),
            recipe=recipe,
            checkpoint=tmp_path / "run.pt",
        )
    assert len(history) == 2


def test_a_checkpoint_that_runs_code_is_refused(data, tmp_path):
    class Evil:
        def __reduce__(self):
            return (tmp_path.joinpath("ran").touch, ())

    path = tmp_path / "run.pt"
    torch.save({"settings": Evil()}, path)
    with pytest.raises(ValueError, match="to be a checkpoint of fit"):
        train(make_model(), data, checkpoint=path)
    assert not (tmp_path / "ran").exists()


def test_a_full_disk_keeps_the_checkpoint_before(data, tmp_path, monkeypatch):
    path = tmp_path / "run.pt"
    save, calls = torch.save, []

    def fails_the_second_time(state, target):
        calls.append(target)
        if len(calls) == 2:
            target.write_bytes(b"half")
            raise OSError(28, "No space left on device")
        save(state, target)

    monkeypatch.setattr(torch, "save", fails_the_second_time)
    model = make_model()
    with pytest.warns(UserWarning, match="No space left on device; the training goes on"):
        history = interrupt(Stop(model, 8), data, checkpoint=path)  # in its third epoch
    assert [file.name for file in tmp_path.iterdir()] == ["run.pt"]
    assert len(history) == 2  # nothing of what was trained is lost
    assert len(torch.load(path, weights_only=True)["rows"]) == 1
    resumed = train(Stop(make_model(), 0), data, checkpoint=path)
    assert without_seconds(resumed).equals(without_seconds(train(Stop(make_model(), 0), data)))


def kept(history):
    return history.attrs["weights"]


@pytest.mark.parametrize("recipe", [Recipe(0.01, 8), Recipe(0.01, 8, xavier=True)])
def test_the_weights_of_each_epoch(data, recipe):
    """The start among them; the numbers are those of a run that keeps none."""
    model, twin = make_model(), make_model()
    expected = train(twin, data, 3, recipe=recipe)
    assert expected.attrs == {}
    start = make_model()
    if recipe.xavier:
        training._draw_xavier(start, 0)
    history = train(model, data, 3, recipe=recipe, keep_epochs=True)
    assert without_seconds(history).equals(without_seconds(expected))
    assert_same(weights(model), weights(twin))
    assert len(kept(history)) == 4
    assert_same(kept(history)[0], weights(start))
    assert_same(kept(history)[-1], weights(model))
    for row, state in zip(history.itertuples(), kept(history)[1:], strict=True):
        twin.load_state_dict(state)  # with what BatchNorm remembers
        score = evaluate(twin, data.validation, recipe.loss)
        assert (row.validation_loss, row.validation_accuracy) == score
    before = copy.deepcopy(dict(kept(history)[-1]))
    train(model, data, 1)
    assert_same(kept(history)[-1], before)  # they are copies


def test_pandas_neither_copies_nor_compares_weights(data):
    one, two = (train(make_model(), data, 2, keep_epochs=True) for _ in range(2))
    for table in (one.copy(), one.head(1), one[one.epoch > 1], one.assign(run="a"), one.round(2)):
        assert kept(table) is kept(one)
    assert kept(pandas.concat([one, one.head(1)])) is kept(one)
    assert "weights" not in pandas.concat([one, two]).attrs  # whose they are is not to be told
    assert one.equals(one.copy()) and one.attrs == one.copy().attrs and one.attrs != two.attrs
    assert len({kept(one), kept(two)}) == 2
    assert str(one.attrs) == "{'weights': <weights at the start and after each of 2 epochs>}"


@pytest.mark.parametrize("recipe", [Recipe(0.01, 8), Recipe(0.01, 8, xavier=True)])
@pytest.mark.parametrize(("step", "epochs"), [(2, 0), (5, 1), (12, 3)])
def test_the_weights_of_an_interrupted_run_and_of_one_that_goes_on(
    data, tmp_path, recipe, step, epochs
):
    path, options = tmp_path / "run.pt", {"recipe": recipe, "keep_epochs": True}
    whole = kept(train(Stop(make_model(), 0), data, 4, **options))
    assert len(whole) == 5
    so_far = kept(interrupt(Stop(make_model(), step), data, 4, checkpoint=path, **options))
    assert len(so_far) == epochs + 1
    resumed = train(Stop(make_model(), 0), data, 4, checkpoint=path, **options)
    for ours, theirs in zip(kept(resumed), whole, strict=True):
        assert_same(ours, theirs)
    for ours, theirs in zip(so_far, whole, strict=False):
        assert_same(ours, theirs)


def test_a_checkpoint_keeps_the_weights_that_it_has(data, tmp_path):
    path = tmp_path / "run.pt"
    whole = kept(train(Stop(make_model(), 0), data, 4, keep_epochs=True))
    interrupt(Stop(make_model(), 5), data, 4, checkpoint=path, keep_epochs=True)
    interrupt(Stop(make_model(), 4), data, 4, checkpoint=path)
    history = train(Stop(make_model(), 0), data, 4, checkpoint=path, keep_epochs=True)
    for ours, theirs in zip(kept(history), whole, strict=True):
        assert_same(ours, theirs)


def test_a_model_may_keep_more_than_tensors(data, tmp_path):
    class Counts(nn.Sequential):
        calls = 0

        def forward(self, images):
            self.calls += self.training
            return super().forward(images)

        def get_extra_state(self):
            return {"calls": self.calls}

        def set_extra_state(self, state):
            self.calls = state["calls"]

    path = tmp_path / "run.pt"
    history = train(Counts(*make_model()), data, 2, checkpoint=path, keep_epochs=True)
    resumed = Counts(*make_model())
    for table in (history, train(resumed, data, 2, checkpoint=path)):
        calls = [state["_extra_state"]["calls"] for state in kept(table)]
        assert calls == [0, resumed.calls // 2, resumed.calls]


def test_a_checkpoint_without_the_weights_of_each_epoch(data, tmp_path):
    path, model = tmp_path / "run.pt", Stop(make_model(), 0)
    interrupt(Stop(make_model(), 5), data, checkpoint=path)
    assert "weights" not in torch.load(path, weights_only=True)
    before = weights(model)
    with pytest.raises(
        ValueError, match=r"run\.pt to hold the weights of each epoch, got a checkpoint without"
    ):
        train(model, data, checkpoint=path, keep_epochs=True)
    assert_same(weights(model), before)
    assert train(model, data, checkpoint=path).attrs == {}

    path.unlink()
    train(make_model(), data, checkpoint=path, keep_epochs=True)
    state = torch.load(path, weights_only=True)
    del state["weights"][2]
    torch.save(state, path)
    with pytest.raises(ValueError, match="to be a checkpoint of fit"):
        train(make_model(), data, checkpoint=path)


def test_a_loss_that_is_no_number_stops_the_run(data):
    class Breaks(nn.Module):
        def __init__(self):
            super().__init__()
            self.model = make_model()
            self.calls = 0

        def forward(self, images):
            self.calls += self.training
            return self.model(images) * (math.nan if self.calls == 5 and self.training else 1)

    model, whole = Breaks(), Breaks()
    recipe = Recipe(learning_rate=0.01, batch_size=8, one_cycle=False)
    start = weights(model)
    expected = train(whole, data, 1, recipe=recipe)
    with pytest.raises(
        DivergedError, match=r"^gmp: .*in epoch 2.*rate of 0\.01.*after epoch 1"
    ) as e:
        train(model, data, 3, recipe=recipe, name="gmp", keep_epochs=True)
    assert_same(weights(model), weights(whole))
    for ours, theirs in zip(kept(e.value.history), (start, weights(whole)), strict=True):
        assert_same(ours, theirs)
    assert without_seconds(e.value.history).equals(without_seconds(expected))

    data.train.images[3] = math.nan
    with pytest.raises(DivergedError, match=r"epoch 1.*as after epoch 0"):
        train(make_model(), data)


def test_the_recipes():
    assert Recipe() == DEFAULT_RECIPE
    assert not DEFAULT_RECIPE.sigmoid
    assert (ARTICLE_RECIPE.learning_rate, ARTICLE_RECIPE.batch_size) == (3e-4, 64)
    assert ARTICLE_RECIPE.sigmoid and ARTICLE_RECIPE.xavier
    assert not ARTICLE_RECIPE.shuffle and not ARTICLE_RECIPE.one_cycle


def test_the_sigmoid_has_a_floor():
    """Even with infinitely large logits the article's loss is ln(1 + 9/e)."""
    labels = torch.arange(10)
    perfect = torch.full((10, 10), -1e4).fill_diagonal_(1e4)
    assert ARTICLE_RECIPE.loss(perfect, labels).item() == pytest.approx(math.log(1 + 9 / math.e))
    assert DEFAULT_RECIPE.loss(perfect, labels).item() == 0


def test_xavier(data):
    """Glorot's bound for a 3×3 convolution from 1 to 8 maps: sqrt(6 / (9 + 72))."""
    model = build_convnet(num_classes=3)
    training._draw_xavier(model, 0)
    weight, bias = model.body[0].weight, model.body[0].bias
    bound = math.sqrt(6 / 81)
    assert 0.8 * bound < weight.abs().max() <= bound
    assert weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.2)
    assert torch.equal(bias, torch.full((8,), 0.01))
    start = weights(model)
    training._draw_xavier(model, 0)
    assert_same(weights(model), start)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epochs": 0}, "epochs to be an integer from 1 on, got 0"),
        ({"epochs": 2.5}, "epochs to be an integer from 1 on, got 2.5"),
        ({"seed": None}, "seed to be an integer from 0 on, got None"),
        ({"keep_epochs": 1}, "keep_epochs to be True or False, got 1"),
        ({"recipe": "article"}, "a Recipe such as DEFAULT_RECIPE or ARTICLE_RECIPE, got 'article'"),
        ({"model": nn.Flatten()}, "a model with parameters to train, got one without"),
        (
            {"model": nn.Linear(8, 3).requires_grad_(False)},
            "a model with parameters to train, got one without",
        ),
        ({"model": nn.Linear(7, 3)}, r"pictures of shape \(1, 8, 8\) and torch.float32, got: mat1"),
        (
            {"model": nn.Sequential(nn.Flatten(), nn.Linear(64, 2))},
            r"K above the highest class 2 of the train split, got K = 2",
        ),
        ({"model": nn.Conv2d(1, 3, 3)}, r"logits of shape \(N, K\).*got \(2, 3, 6, 6\)"),
        ({"model": Call(lambda m, x: (m.a(x), x), a=make_model())}, r"\(N, K\).* got a tuple"),
        ({"model": Call(lambda m, x: m.a(x).squeeze(), a=make_model())}, r"N = 1, got \(3,\)"),
        (
            {"model": Call(lambda m, x: m.a(x.view(1, -1)), a=nn.Linear(64, 3))},
            r"float32, got: mat1 and mat2",
        ),
        ({"checkpoint": "no/such/folder/run.pt"}, "a folder that exists, got no.such"),
        ({"model": build_convnet("flatten")}, "got: expected maps of .* in front of the flatten"),
    ],
)
def test_what_cannot_be_trained_gets_a_sentence(data, change, message):
    arguments = {"model": make_model(), "data": data, "epochs": 1, **change}
    with pytest.raises(ValueError, match=message):
        fit(**arguments, progress=False)


@pytest.mark.parametrize("name", ["train", "validation"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: Split(p.images[:0], p.labels[:0], p.numbers[:0]), "pictures in the {} split"),
        (lambda p: replace(p, labels=p.labels.int()), "labels of the {} split to be int64"),
        (lambda p: replace(p, labels=p.labels - 100), "from -100 on"),
        (lambda p: replace(p, labels=p.labels[:, None]), r"of shape \(N,\), got torch.int64 of"),
        (lambda p: replace(p, labels=p.labels + 3), "K above the highest class 5"),
        (lambda p: replace(p, images=(p.images * 255).byte()), "pictures of .*torch.uint8, got: "),
        (lambda p: replace(p, images=p.images[..., 1:].repeat(1, 2, 1, 1)), "expected a model for"),
    ],
)
def test_unfit_parts_get_a_sentence_and_change_nothing(data, name, change, message):
    model = make_model()
    before = weights(model)
    unfit = replace(data, **{name: change(getattr(data, name))})
    with pytest.raises(ValueError, match=message.format(name)):
        train(model, unfit)
    assert_same(weights(model), before)


@pytest.mark.parametrize("step", [4, 5])
def test_an_error_in_the_middle_leaves_the_model_as_after_the_last_whole_epoch(data, step):
    class Fails(Stop):
        def forward(self, images):
            try:
                return super().forward(images)
            except KeyboardInterrupt:
                raise MemoryError("out of memory") from None

    recipe = Recipe(0.01, 8, one_cycle=False)
    whole = Fails(make_model(), 0)
    train(whole, data, 1, recipe=recipe)
    model = Fails(make_model(), step)  # in the second epoch
    with pytest.raises(MemoryError, match="out of memory"):
        train(model, data, 3, recipe=recipe)
    assert_same(weights(model), weights(whole))


ARRANGEMENTS = {
    "the body": lambda m: m[0].eval(),
    "all but the head": lambda m: (m.eval(), m[1].train()),
    "a parent, not its children": lambda m: (m[1].eval(), [c.train() for c in m[1]]),
    "a child, not its parent": lambda m: m[1][2].eval(),
    "the network, not its parts": lambda m: (m.eval(), [part.train() for part in m]),
}


def make_nested():
    torch.manual_seed(3)
    body = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout())
    head = nn.Sequential(
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.BatchNorm1d(4), nn.Dropout(), nn.Linear(4, 3)
    )
    return nn.Sequential(body, head)


@pytest.mark.parametrize("arrange", ARRANGEMENTS.values(), ids=ARRANGEMENTS)
def test_what_is_in_evaluation_mode_stays_there(data, arrange):
    model = make_nested()
    arrange(model)
    modes = {name: module.training for name, module in model.named_modules()}
    seen = []

    def look(module, inputs):
        if torch.is_grad_enabled():  # a step, no evaluation
            seen.append({name: module.training for name, module in model.named_modules()})

    model.register_forward_pre_hook(look)
    before = weights(model)
    train(model, data, 2)
    assert seen == [modes] * 6  # of the second epoch, too, behind an evaluation
    assert {name: module.training for name, module in model.named_modules()} == modes
    for name, tensor in weights(model).items():
        if "running" in name or "batches" in name:
            norm = name.rpartition(".")[0]
            assert torch.equal(tensor, before[name]) is not modes[norm], name


def test_a_model_in_evaluation_mode_is_trained(data):
    """As after `load_trained`, or an evaluation by hand."""
    model, twin = make_nested().eval(), make_nested()
    assert without_seconds(train(model, data)).equals(without_seconds(train(twin, data)))
    assert_same(weights(model), weights(twin))
    assert not any(module.training for module in model.modules())


@pytest.mark.parametrize("evaluated", [False, True])  # after it was frozen, as in lesson 08
@pytest.mark.parametrize("recipe", [Recipe(0.01, 8), Recipe(0.01, 8, xavier=True)])
def test_a_frozen_body_stays_bit_by_bit(data, recipe, evaluated):
    model = make_nested()
    model[0].requires_grad_(False).eval()
    if evaluated:
        model.eval()
    model[0][0].weight.grad = torch.ones(4, 1, 3, 3)  # of something else
    before = weights(model)
    train(model, data, 2, recipe=recipe)
    after = weights(model)
    for name in after:
        assert torch.equal(after[name], before[name]) is name.startswith("0."), name
    assert torch.equal(model[0][0].weight.grad, torch.ones(4, 1, 3, 3))


def test_dropout_in_evaluation_mode_drops_nothing(data):
    model, twin = make_model(dropout=0.5), make_model(dropout=0)
    model[5].eval()
    assert without_seconds(train(model, data)).equals(without_seconds(train(twin, data)))
    assert_same(weights(model), weights(twin))


def test_a_module_may_keep_its_norm_in_evaluation_mode_itself(data, tmp_path):
    class KeepsItsNorm(nn.Module):
        def __init__(self):
            super().__init__()
            self.model = make_model()

        def forward(self, images):
            return self.model(images)

        def train(self, mode=True):
            super().train(mode)
            self.model[1].eval()
            return self

    model = KeepsItsNorm()
    train(model, data, checkpoint=tmp_path / "run.pt")
    assert torch.equal(model.model[1].running_mean, torch.zeros(4))
    assert len(train(KeepsItsNorm(), data, checkpoint=tmp_path / "run.pt")) == 4


NORM_BEHIND_GAP = nn.Sequential(
    nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.BatchNorm1d(1), nn.Linear(1, 3)
)


@pytest.mark.parametrize(
    ("function", "layers", "size", "message"),
    [
        (
            lambda m, x: (m.net(x), m.net(x)) if m.training else m.net(x),
            make_model(),
            8,
            "expected logits of shape (N, K) with N = 8, got a tuple",
        ),
        (
            lambda m, x: {"logits": m.net(x)} if m.training else m.net(x),
            make_model(),
            8,
            "expected logits of shape (N, K) with N = 8, got a dict",
        ),
        (lambda m, x: m.net(x), NORM_BEHIND_GAP, 1, "Expected more than 1 value per channel"),
        (lambda m, x: m.net(x).detach(), make_model(), 8, "does not require grad"),
        (lambda m, x: m.net(x)[:, : 1 if m.training else 3], make_model(), 8, "out of bounds"),
    ],
)
def test_what_fails_in_training_mode_only_is_refused_at_once(data, function, layers, size, message):
    model = Call(function, net=copy.deepcopy(layers))
    modes = [module.training for module in model.modules()]
    before, state = weights(model), torch.get_rng_state()
    shape = rf"^gap: .*trained on a batch of shape \({size}, 1, 8, 8\), got: .*"
    with pytest.raises(ValueError, match=shape + re.escape(message)):
        train(model, data, recipe=Recipe(0.01, size, xavier=True), name="gap")
    assert_same(weights(model), before)
    assert [module.training for module in model.modules()] == modes
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("count", "size", "sizes"),
    [
        (20, 8, [8, 8, 4]),
        (16, 8, [8, 8]),
        (17, 8, [8, 9]),
        (9, 8, [9]),
        (3, 2, [3]),
        (3, 1, [1, 1, 1]),
        (1, 8, [1]),
        (1, 1, [1]),
    ],
)
def test_one_picture_over_is_in_the_last_batch(data, capsys, count, size, sizes):
    seen = []
    model = make_model()
    model.register_forward_pre_hook(
        lambda module, inputs: seen.append(len(inputs[0])) if torch.is_grad_enabled() else None
    )
    data = replace(data, train=make_split(count))
    fit(model, data, 2, Recipe(0.01, size))
    assert seen == sizes * 2
    assert f"{2 * len(sizes)}/{2 * len(sizes)}" in capsys.readouterr().err


def test_batch_norm_behind_gap_is_trained_where_one_picture_is_over(data):
    model = copy.deepcopy(NORM_BEHIND_GAP)
    train(model, replace(data, train=make_split(17)), 1)
    assert model[2].num_batches_tracked == 2
    with pytest.raises(ValueError, match=r"shape \(1, 1, 8, 8\), got: Expected more"):
        train(model, replace(data, train=make_split(1)), 1)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_model_of_any_format_is_trained(data, dtype):
    model = make_model(dropout=0).to(dtype)
    history = train(model, data, 3)
    assert model[0].weight.dtype == dtype
    expected = train(make_model(dropout=0), data, 3)
    assert history.train_loss.tolist() == pytest.approx(expected.train_loss.tolist(), rel=0.02)


def test_a_run_of_one_step_learns(data):
    model = make_model()
    before = weights(model)
    train(model, data, 1, recipe=Recipe(0.01, 100))
    change = (model[-1].weight - before["6.weight"]).abs().max().item()
    assert change == pytest.approx(0.01, rel=0.01)  # Adam's first step is the learning rate


@pytest.mark.parametrize(
    "settings", [(0, 8), (-1, 8), (math.nan, 8), (math.inf, 8), (0.1, 0), (0.1, 2.5), ("a", 8)]
)
def test_impossible_recipes(settings):
    with pytest.raises(ValueError, match="learning rate above 0 and a whole batch size"):
        Recipe(*settings)


def test_the_bar_shows_loss_and_validation(data, capsys):
    fit(make_model(), data, 2, name="gap")
    shown = capsys.readouterr().err
    assert "gap: 100%" in shown
    assert "2/2" in shown
    assert "loss=" in shown
    assert "validation=" in shown
    train(make_model(), data, 2)
    assert capsys.readouterr().err == ""


@pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch sees no CUDA device here")
def test_on_a_real_gpu(data):
    state = torch.cuda.get_rng_state()
    model = make_model().cuda()
    history = train(model, data)
    assert len(history) == 4
    assert all(parameter.is_cuda for parameter in model.parameters())
    assert torch.equal(torch.cuda.get_rng_state(), state)
    expected = evaluate(model.cpu(), data.test)
    found = evaluate(model.cuda(), data.test)
    assert found.accuracy == expected.accuracy
    assert found.loss == pytest.approx(expected.loss, rel=1e-4)
