"""training.py against PyTorch written out by hand, and against itself after a break."""

import copy
import math
from dataclasses import replace

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from gap_utils import training
from gap_utils.data import Dataset, Split
from gap_utils.inference import evaluate, predict
from gap_utils.models import build_convnet
from gap_utils.robustness import (
    accuracy_against_canvas,
    accuracy_against_shift,
    enlarge_canvas,
    shift,
)
from gap_utils.training import ARTICLE_RECIPE, DEFAULT_RECIPE, DivergedError, Recipe, fit


def make_part(count, seed=0, size=8):
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(count, 1, size, size, generator=generator)
    labels = torch.randint(0, 3, (count,), generator=generator)
    return Split(images, labels, torch.arange(count))


@pytest.fixture
def data():
    parts = make_part(20), make_part(10, 1), make_part(10, 2)
    return Dataset("noise", *parts, source="a test", class_names=("a", "b", "c"))


def make_model(dropout=0.5, norm=True):
    torch.manual_seed(3)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3),
        nn.BatchNorm2d(4) if norm else nn.Identity(),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Dropout(dropout),
        nn.Linear(4, 3),
    )


def train(model, data, epochs=4, **options):
    options.setdefault("recipe", Recipe(learning_rate=0.01, batch_size=8))
    return fit(model, data, epochs, progress=False, **options)


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


def test_one_cycle_is_that_of_pytorch(data):
    model = make_model(dropout=0, norm=False)
    twin = copy.deepcopy(model)
    train(model, data, 2, recipe=Recipe(learning_rate=0.01, batch_size=8, shuffle=False))
    optimizer = torch.optim.Adam(twin.parameters(), 0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.01, epochs=2, steps_per_epoch=3)
    for first in [0, 8, 16] * 2:
        batch = slice(first, first + 8)
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


def test_modes_come_back_after_an_error(data):
    model = make_model()
    model[1].eval()
    modes = [module.training for module in model.modules()]
    with pytest.raises(RuntimeError):
        predict(model, torch.zeros(2, 5, 8, 8))
    assert [module.training for module in model.modules()] == modes


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
def test_an_interrupted_run_is_as_after_its_last_whole_epoch(data, capsys, step, epochs):
    """An epoch has three steps here, so step 4 is in the second."""
    whole = [weights(Stop(make_model(), 0))]
    recipe = Recipe(learning_rate=0.01, batch_size=8, one_cycle=False)
    histories = [None]
    for count in (1, 2):
        model = Stop(make_model(), 0)
        histories.append(train(model, data, count, recipe=recipe))
        whole.append(weights(model))
    model = Stop(make_model(), step)
    history = train(model, data, 3, recipe=recipe)
    assert f"as after epoch {epochs} of 3" in capsys.readouterr().out
    assert len(history) == epochs
    assert_same(weights(model), whole[epochs])
    if epochs:
        assert without_seconds(history).equals(without_seconds(histories[epochs]))


@pytest.mark.parametrize("recipe", [Recipe(0.01, 8), Recipe(0.01, 8, False, False, True, True)])
@pytest.mark.parametrize("step", [2, 5, 12])
def test_resumed_equals_uninterrupted(data, tmp_path, recipe, step):
    path = tmp_path / "run.pt"
    uninterrupted = Stop(make_model(), 0)
    expected = train(uninterrupted, data, 4, recipe=recipe)
    first = Stop(make_model(), step)
    train(first, data, 4, recipe=recipe, checkpoint=path)
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
    history = train(first, data, 4, checkpoint=path)
    assert len(history) == 1
    second = Stop(make_model(dropout=0.5), 2)  # in the first epoch after the break
    for parameter in second.parameters():
        parameter.data.zero_()
    assert train(second, data, 4, checkpoint=path).equals(history)
    assert_same(weights(second), weights(first))


def test_a_checkpoint_of_another_run_is_refused(data, tmp_path):
    path = tmp_path / "run.pt"
    model = make_model()
    before = weights(model)
    train(make_model(), data, checkpoint=path)
    other = replace(data, train=make_part(20, seed=8))
    for message, arguments in {
        "other seed: 0 there, 1 here": {"seed": 1},
        "other epochs: 4 there, 9 here": {"epochs": 9},
        r"other learning_rate: 0\.01 there, 0\.02 here": {"recipe": Recipe(0.02, 8)},
        "other data": {"data": other},
        "other model": {"model": make_model(dropout=0.4)},
        "other shapes": {"model": make_model().double(), "data": as_double(data)},
    }.items():
        run = {"model": model, "data": data, "checkpoint": path, **arguments}
        if "shapes" in message:
            message = "other (data|shapes)"
        with pytest.raises(ValueError, match=message):
            train(**run)
    assert_same(weights(model), before)


def as_double(data):
    part = replace(data.train, images=data.train.images.double())
    return replace(data, train=part, validation=part)


def test_gap_and_gmp_have_the_same_shapes_and_not_the_same_checkpoint(tmp_path):
    part = make_part(4, size=28)
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
        history = train(Stop(model, 8), data, checkpoint=path)  # stopped in its third epoch
    assert [file.name for file in tmp_path.iterdir()] == ["run.pt"]
    assert len(history) == 2  # nothing of what was trained is lost
    assert len(torch.load(path, weights_only=True)["rows"]) == 1
    resumed = train(Stop(make_model(), 0), data, checkpoint=path)
    assert without_seconds(resumed).equals(without_seconds(train(Stop(make_model(), 0), data)))


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
    expected = train(whole, data, 1, recipe=recipe)
    with pytest.raises(DivergedError, match=r"none in epoch 2.*rate of 0\.01.*after epoch 1") as e:
        train(model, data, 3, recipe=recipe)
    assert_same(weights(model), weights(whole))
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
        ({"recipe": "article"}, "a Recipe such as DEFAULT_RECIPE or ARTICLE_RECIPE, got 'article'"),
        ({"model": nn.Flatten()}, "a model with parameters to train, got one without"),
        (
            {"model": nn.Linear(8, 3).requires_grad_(False)},
            "a model with parameters to train, got one without",
        ),
        ({"model": nn.Linear(7, 3)}, r"pictures of shape \(1, 8, 8\) and torch.float32, got: mat1"),
        (
            {"model": nn.Sequential(nn.Flatten(), nn.Linear(64, 2))},
            r"K above the highest class 2, got \(1, 2\)",
        ),
        ({"model": nn.Conv2d(1, 3, 3)}, r"logits of shape \(N, K\).*got \(1, 3, 6, 6\)"),
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
        (lambda p: Split(p.images[:0], p.labels[:0], p.numbers[:0]), "pictures in the {} part"),
        (lambda p: replace(p, labels=p.labels.int()), "labels of the {} part to be int64"),
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


def test_an_error_in_the_middle_leaves_the_model_as_after_the_last_whole_epoch(data):
    class Fails(Stop):
        def forward(self, images):
            try:
                return super().forward(images)
            except KeyboardInterrupt:
                raise MemoryError("out of memory") from None

    recipe = Recipe(0.01, 8, one_cycle=False)
    whole = Fails(make_model(), 0)
    train(whole, data, 1, recipe=recipe)
    model = Fails(make_model(), 5)  # in the second epoch
    with pytest.raises(MemoryError, match="out of memory"):
        train(model, data, 3, recipe=recipe)
    assert_same(weights(model), weights(whole))


def test_a_run_of_one_step_learns(data):
    model = make_model()
    before = weights(model)
    train(model, data, 1, recipe=Recipe(0.01, 100))
    change = (model[-1].weight - before["6.weight"]).abs().max().item()
    assert change == pytest.approx(0.01, rel=0.01)  # Adam's first step is the learning rate


def test_parts_have_as_many_labels_as_images():
    with pytest.raises(ValueError, match="each of 3 images, got 2 labels and 3 numbers"):
        Split(torch.zeros(3, 1, 2, 2), torch.zeros(2, dtype=torch.long), torch.arange(3))


@pytest.mark.parametrize(
    "settings", [(0, 8), (-1, 8), (math.nan, 8), (math.inf, 8), (0.1, 0), (0.1, 2.5), ("a", 8)]
)
def test_impossible_recipes(settings):
    with pytest.raises(ValueError, match="learning rate above 0 and a whole batch size"):
        Recipe(*settings)


def test_the_bar_shows_loss_and_validation(data, capsys):
    fit(make_model(), data, 2)
    shown = capsys.readouterr().err
    assert "2/2" in shown
    assert "loss=" in shown
    assert "validation=" in shown
    train(make_model(), data, 2)
    assert capsys.readouterr().err == ""


def test_evaluate_by_hand():
    logits = torch.tensor([[2.0, 0.0], [0.0, 1.0], [0.0, 3.0]]).reshape(3, 2, 1, 1)
    part = Split(logits, torch.tensor([0, 1, 0]), torch.arange(3))
    losses = [math.log(1 + math.exp(-2)), math.log(1 + math.exp(-1)), math.log(1 + math.exp(3))]
    score = evaluate(nn.Flatten(), part)
    assert score.accuracy == pytest.approx(2 / 3)
    assert score.loss == pytest.approx(sum(losses) / 3)


def test_predict_does_not_depend_on_the_batches(data):
    model = make_model()
    whole = predict(model, data.train.images)
    torch.testing.assert_close(predict(model, data.train.images, batch_size=3), whole)
    torch.testing.assert_close(model.eval()(data.train.images), whole)
    assert not whole.requires_grad


@hypothesis.given(
    height=st.integers(1, 6), width=st.integers(1, 6), dx=st.integers(-7, 7), dy=st.integers(-7, 7)
)
def test_shift_is_a_roll_on_a_padded_canvas(height, width, dx, dy):
    images = torch.arange(1.0, 1 + 2 * height * width).reshape(2, 1, height, width)
    margin = 8
    canvas = F.pad(images, (margin,) * 4)
    rolled = torch.roll(canvas, (dy, dx), dims=(-2, -1))
    expected = rolled[..., margin : margin + height, margin : margin + width]
    assert torch.equal(shift(images, dx, dy), expected)


@hypothesis.given(height=st.integers(1, 6), width=st.integers(1, 6), extra=st.integers(0, 5))
def test_enlarge_canvas_is_numpys_pad(height, width, extra):
    images = torch.arange(1.0, 1 + height * width).reshape(1, height, width)
    canvas = max(height, width) + extra
    down, across = canvas - height, canvas - width
    room = [(0, 0), (down // 2, down - down // 2), (across // 2, across - across // 2)]
    expected = np.pad(images.numpy(), room)
    assert np.array_equal(enlarge_canvas(images, canvas).numpy(), expected)
    with pytest.raises(ValueError, match=rf"at least {height}×{width}"):
        enlarge_canvas(images, max(height, width) - 1)


def test_accuracy_against_shift_by_hand(data):
    """One white pixel in the middle of 5×5: it stays in sight for 2 px in any direction."""
    images = torch.zeros(4, 1, 5, 5)
    images[:, :, 2, 2] = 1
    part = Split(images, torch.zeros(4, dtype=torch.long), torch.arange(4))

    class SeesWhite(nn.Module):
        def forward(self, images):
            seen = images.amax((1, 2, 3))
            return torch.stack([seen, 1 - seen], 1)

    table = accuracy_against_shift(SeesWhite(), part, range(4))
    assert table["shift"].tolist() == [0, 1, 2, 3]
    assert table.accuracy.tolist() == [1, 1, 1, 0]

    class SeesWhiteOnTheRight(SeesWhite):
        def forward(self, images):
            return super().forward(images[..., 3:])

    # of the eight directions three go right
    table = accuracy_against_shift(SeesWhiteOnTheRight(), part, [0, 1])
    assert table.accuracy.tolist() == [0, 3 / 8]


def test_no_shift_and_no_larger_canvas_is_evaluate(data):
    model = build_convnet(num_classes=3)
    part = make_part(30, size=28)
    expected = evaluate(model, part).accuracy
    assert accuracy_against_shift(model, part, [0]).accuracy.item() == expected
    assert accuracy_against_canvas(model, part, [28]).accuracy.item() == expected
    assert accuracy_against_canvas(model, part).canvas.tolist() == [28, 32, 36, 40, 48]
    with pytest.raises(ValueError, match=r"from pictures of \(32, 32\)"):
        accuracy_against_canvas(build_convnet("flatten"), part, [28, 32])


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
