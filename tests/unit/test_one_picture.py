"""A run of training in the labs that show a picture to a network, and the next wrong picture."""

import math
import warnings
from copy import deepcopy
from dataclasses import replace

import numpy as np
import pandas
import pytest
import torch
from torch import nn

from frames import Page, below, click, control, elements, move, place_of, press, texts, touched
from gap_utils.data import Split, load_fashion_mnist
from gap_utils.inference import predict
from gap_utils.models import load_trained
from gap_utils.svg import Frame
from gap_utils.training import Recipe, TrainingInterrupted, fit
from gap_utils.widgets import CamLab, MapLab, ShiftLab, map_lab
from gap_utils.widgets.one_picture import TOGETHER, Strip, next_wrong
from small_data import make_dataset, make_model
from small_networks import Call

NAN = math.nan
DATA = make_dataset()
PICTURES = DATA.test.images, DATA.test.labels, DATA.class_names
both_labs = pytest.mark.parametrize("lab_of", [MapLab, CamLab])


@pytest.fixture(autouse=True)
def no_warning_of_numpy():
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        yield


def train(model, epochs=3):
    return fit(model, DATA, epochs, Recipe(0.05, 8), progress=False, keep_epochs=True)


@pytest.fixture(scope="module")
def run():
    return train(make_model())


def run_of(*states):
    """A table like that of `fit`, with weights made by hand."""
    table = pandas.DataFrame({"epoch": range(1, len(states))})
    table.attrs["weights"] = states
    return table


def weights(model):
    return deepcopy(model.state_dict())


def panels(lab):
    """All that is drawn; a map alone and its numbers, since colours have a scale of the run."""
    if isinstance(lab, MapLab):
        lab.set(view="one map", scale="each map its own")
        picture, maps = below(lab.frame)
        return picture.svg, maps.pixels[0].digest, maps.readout.digest, texts(maps)
    return [
        (panel.svg, [(pixels.digest, pixels.box, pixels.opacity) for pixels in panel.pixels])
        for panel in lab.frame.panels
    ]


# a run of training


@both_labs
def test_a_frame_is_that_of_a_network_with_the_weights_of_the_epoch(lab_of, run):
    """BatchNorm's numbers among them. The network that is given has other weights."""
    model = make_model().train()
    nn.init.ones_(model[6].weight)
    model[1].eval()
    before, modes = weights(model), [module.training for module in model.modules()]
    lab = lab_of(model, *PICTURES, run=run)
    model.register_forward_pre_hook(lambda *_: pytest.fail("the user's own network was run"))
    seen = set()
    for epoch in (0, 1, 2, 3, 1):
        twin = make_model()
        twin.load_state_dict(run.attrs["weights"][epoch])
        for picture in (0, 7):
            lab.set(epoch=epoch, picture=picture)
            expected = lab_of(twin, *PICTURES, picture=picture)
            assert panels(lab) == panels(expected)
            said = [sentence.removesuffix(map_lab.CUT).strip() for sentence in lab.frame.words]
            assert said[1:] == [*expected.frame.words[1:]]
            begin, _, rest = lab.frame.words[0].partition(", ")
            assert begin == (f"After epoch {epoch} of 3" if epoch else "Before training")
            assert rest == expected.frame.words[0].replace("Picture", "picture")
            assert lab.frame.words[0] in lab.text
            assert len(lab.frame.room[0]) >= len(lab.frame.words[0])
            seen.add(lab.text)
    assert len(seen) == 8
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(numbers, before[name]) for name, numbers in weights(model).items())


def test_colours_and_bars_have_one_scale_for_all_epochs():
    layer = nn.Conv2d(1, 2, 1, bias=False)
    half, full = (
        {"weight": torch.tensor(numbers).reshape(2, 1, 1, 1)} for numbers in ([0.5, 1.0], [1.0, 4])
    )
    lab = MapLab(layer, torch.tensor([[[[2.0, 0], [1, 1]]]]), run=run_of(half, full), epoch=0)

    def drawn():
        """The levels of the first row of each map, and the lengths of the bars."""
        maps = below(lab.frame)[1]
        levels = maps.pixels[0].levels
        dark = next(one for one in elements(maps, "path") if one.get("class") == "gap-dark")
        lengths = [float(bar.split("v")[1].split("h")[0]) for bar in dark.get("d").split("M")[1:]]
        tall = place_of(touched(maps)[0])[3]
        return {*levels[levels != 255].tolist()}, [length / tall for length in lengths], texts(maps)

    # means 0.5 and 1 of at most 4; 1, 0.5 and 2, 1 of at most 8
    levels, bars, words = drawn()
    assert levels == {125, 133, 141, 156} and words[-3:] == [
        "0",
        "8",
        "all maps and epochs, 0 is white",
    ]
    assert bars == pytest.approx([0.5 / 4, 1 / 4], abs=0.01)
    lab.set(epoch=1)
    levels, bars, words = drawn()
    assert levels == {125, 141, 156, 188, 250} and words[-2] == "8"
    assert bars == pytest.approx([1 / 4, 1], abs=0.01)
    lab.set(epoch=0, scale="each map its own", place=1)
    assert drawn()[0] == {125, 188, 250} and drawn()[2][-2:] == ["2", "map 1 only: 0 is white"]


def test_a_bar_that_goes_beyond_the_last_epoch_has_a_line_across():
    layer, images = nn.Conv2d(1, 3, 1, bias=False), torch.tensor([[[[2.0, 0], [1, 1]]]])
    start, end = (
        {"weight": torch.tensor(w).reshape(3, 1, 1, 1)} for w in ([2.0, -3, 1], [1.0, -1, 1])
    )
    lab = MapLab(layer, images, run=run_of(start, end), epoch=0)  # means 2, -3, 1 of -1 to 1

    def lines():
        """Upper edges of the lines, from the upper edges of the maps."""
        maps = below(lab.frame)[1]
        paths = [one.get("d") for one in elements(maps, "path") if one.get("class") == "gap-pale"]
        found = [float(one.split("h")[0].split()[1]) for one in "".join(paths[1:]).split("M")[1:]]
        tops, tall = [place_of(one)[1] for one in touched(maps)], place_of(touched(maps)[0])[3]
        return [y - top for y, top in zip(found, tops, strict=False)], tall

    (above, under), tall = lines()
    assert (above, under) == pytest.approx((3, tall - 5), abs=0.02)
    assert lab.frame.words[1].endswith(map_lab.CUT) and lab.text.endswith(map_lab.CUT)
    assert len(lab.frame.room[1]) > len(lab.frame.words[1])
    lab.set(view="one map", place=2)
    assert map_lab.CUT not in lab.text
    lab.set(view="all maps", epoch=1)
    assert lines()[0] == [] and lab.frame.words[1] == ""


@pytest.mark.parametrize("last", [0.0, NAN])
def test_a_last_epoch_without_numbers_has_no_scale_to_share(last):
    layer, images = nn.Conv2d(1, 2, 1, bias=False), torch.tensor([[[[2.0, 0], [1, 1]]]])
    start, end = ({"weight": torch.tensor(w).reshape(2, 1, 1, 1)} for w in ([2.0, 4], [last] * 2))
    alone = nn.Conv2d(1, 2, 1, bias=False)
    alone.load_state_dict(start)
    frame = MapLab(layer, images, run=run_of(start, end), epoch=0).frame
    expected = MapLab(alone, images).frame
    for one, other in zip(frame.panels, expected.panels, strict=True):
        assert one.svg == other.svg
        assert [each.digest for each in one.pixels] == [each.digest for each in other.pixels]
    assert frame.words[1] == expected.words[1] == ""


@both_labs
def test_the_slider(lab_of, run):
    lab = lab_of(make_model(), *PICTURES, run=run)
    names = [one["name"] for one in lab.opening()["controls"]]
    assert names[:2] == ["picture", "epoch"]
    slider = control(lab, "epoch")
    assert (slider["label"], slider["low"], slider["high"], slider["main"]) == ("Epoch", 0, 3, True)
    assert lab.value.epoch == 3  # begins after the last
    assert f"{lab_of.__name__}(picture 0, epoch 3 of 3, " in repr(lab)
    move(lab, epoch=0)
    assert lab.value.epoch == 0 and ", epoch 0 of 3, " in repr(lab)
    assert lab.from_fields(lab.to_fields(lab.value)) == lab.value
    press(lab, "reset")
    assert lab.value.epoch == 3
    lab.value = replace(lab.value, epoch=None)
    assert lab.value.epoch == 3
    assert lab_of(make_model(), *PICTURES, run=run, epoch=1).value.epoch == 1


@both_labs
def test_without_a_run_all_is_as_before(lab_of):
    lab = lab_of(make_model(), *PICTURES)
    assert "epoch" not in [one["name"] for one in lab.opening()["controls"]]
    assert lab.value.epoch is None and "epoch" not in lab.text + repr(lab) + lab.frame.room[0]
    with pytest.raises(ValueError, match="expected no epoch where the lab has no run, got 2"):
        lab.set(epoch=2)
    assert lab.value.epoch is None


@both_labs
def test_a_run_that_was_stopped_in_its_first_epoch_has_one_place(lab_of):
    model = make_model()

    def stop(module, _):
        if module.training:
            raise KeyboardInterrupt

    hook = model.register_forward_pre_hook(stop)
    with pytest.raises(TrainingInterrupted) as stopped:
        train(model)
    hook.remove()
    lab = lab_of(model, *PICTURES, run=stopped.value.history)
    assert "epoch" not in [one["name"] for one in lab.opening()["controls"]]
    assert lab.value.epoch == 0
    assert lab.describe().startswith("Before training, ")


def test_the_whole_model_in_a_sentence():
    layer = nn.Conv2d(1, 2, 3)
    lab = MapLab(layer, PICTURES[0], run=run_of(weights(layer)))
    assert lab.describe().startswith("Before training, the whole model (Conv2d) gives 2 maps")


def test_layers_may_be_modules_of_the_network(run):
    model = make_model()
    by_module = MapLab(model, *PICTURES, layers=[model[0], model[2]], run=run, epoch=1)
    assert by_module.text == MapLab(model, *PICTURES, layers=["0", "2"], run=run, epoch=1).text
    assert len(control(by_module, "layer")["options"]) == 2


def test_an_epoch_is_read_once(run):
    model, passes = make_model(), []
    model.register_forward_hook(lambda *_: passes.append(1))  # copied with the network
    for lab in (MapLab(model, *PICTURES, run=run), CamLab(model, *PICTURES, run=run)):
        passes.clear()
        for epoch in (0, 1, 0, 1, 3):
            lab.set(epoch=epoch)
        assert len(passes) == 2


@both_labs
@pytest.mark.parametrize("size", [0.0, 1e-30, 1e-12, 1e12, 1e30, NAN])
def test_a_start_that_says_nothing_is_shown(lab_of, size):
    model = make_model()
    strange = {n: t * size if n.endswith("weight") else t for n, t in weights(model).items()}
    lab = lab_of(model, *PICTURES, run=run_of(strange, weights(model)))
    for view in ("all maps", "one map") if lab_of is MapLab else ("map", "overlay", "numbers"):
        for picture in (0, 1):
            lab.set(epoch=0, view=view, picture=picture)
            assert lab.describe().startswith("Before training, ")
    press(lab, "wrong")


@both_labs
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda run: "run.pt", "what fit.*keep_epochs=True.* returned, got str"),
        (lambda run: run.attrs["weights"], "returned, got EpochWeights"),
        (lambda run: pandas.DataFrame({"epoch": [1]}), "returned, got a table without weights"),
        (lambda run: run_of(), "returned, got a table without weights"),
        (
            lambda run: run_of(make_model(norm=False).state_dict()),
            r"of this network, got one whose '1.weight' is not there, and \(4,\) here",
        ),
        (
            lambda run: run_of({**run.attrs["weights"][0], "7.bias": torch.zeros(3)}),
            r"got one whose '7.bias' is \(3,\), and not there here",
        ),
        (
            lambda run: run_of(
                run.attrs["weights"][0], {**run.attrs["weights"][1], "6.bias": torch.zeros(4)}
            ),
            r"got one whose '6.bias' is \(4,\), and \(3,\) here",
        ),
    ],
)
def test_runs_that_do_not_fit(lab_of, run, change, message):
    model = make_model()
    before = weights(model)
    with pytest.raises(ValueError, match=f"expected run to be .*{message}"):
        lab_of(model, *PICTURES, run=change(run))
    assert all(torch.equal(numbers, before[name]) for name, numbers in weights(model).items())


@both_labs
@pytest.mark.parametrize(
    ("epoch", "message"),
    [
        (4, "epoch to be below 4, got 4"),
        (-1, "epoch to be an integer from 0 on, got -1"),
        ("last", "epoch to be an integer from 0 on, got 'last'"),
    ],
)
def test_epochs_that_are_not_there(lab_of, run, epoch, message):
    with pytest.raises(ValueError, match=f"expected {message}"):
        lab_of(make_model(), *PICTURES, run=run, epoch=epoch)


@both_labs
def test_networks_that_a_run_cannot_be_loaded_into(lab_of, run):
    model = make_model()
    model.handle = (number for number in range(3))
    with pytest.raises(ValueError, match="a network that can be copied, got TypeError: "):
        lab_of(model, *PICTURES, run=run)
    with pytest.raises(ValueError, match=r"with numbers, but '0.weight' is on 'meta'"):
        lab_of(make_model().to("meta"), *PICTURES, run=run)


# small pictures


def strip_of(images, picture=0):
    """The row above a frame."""
    (panel,) = Strip(images).put_above(Frame((), (), ""), picture).panels
    assert panel.above
    return panel


def test_small_pictures_are_the_pictures():
    images = torch.arange(64.0).reshape(2, 1, 4, 8).clamp(max=40)  # wide and grey
    (pixels,) = strip_of(images).pixels
    assert pixels.levels.shape == (64, 128) and pixels.box == (0, 0, 64, 32)
    for n, lowest in enumerate((0, 32)):
        square = np.zeros((64, 64))  # 4 pixels of edge; a picture of 56×28 in the middle
        highest = min(lowest + 31, 40)
        grey = ((images[n, 0] - lowest) / (highest - lowest) * 255).round().numpy()
        square[18:46, 4:60] = grey.repeat(7, 0).repeat(7, 1)
        assert np.array_equal(pixels.levels[:, 64 * n : 64 * (n + 1)], square)
    found = touched(strip_of(images))
    assert [*map(place_of, found)] == [(2, 2, 28, 28), (34, 2, 28, 28)]  # without the edge
    colours = of_classes(0, 1, 2).repeat_interleave(7, 2).repeat_interleave(7, 3)
    (pixels,) = strip_of(colours).pixels
    assert pixels.levels.shape == (64, 192, 3)
    assert pixels.levels[:, :64].max((0, 1)).tolist() == [255, 0, 0]


def test_a_picture_that_is_very_long_is_a_line():
    images = torch.ones(2, 1, 1, 500)
    images[..., 0] = 0
    for long, along in ((images, 1), (images.mT, 0)):
        places = strip_of(long).pixels[0].levels[:, :64].nonzero()
        assert len({*places[1 - along].tolist()}) == 1  # a pixel wide
        assert {*range(5, 60)} <= {*places[along].tolist()} <= {*range(4, 60)}


@pytest.mark.parametrize(
    ("count", "picture", "numbers", "arrows"),
    [
        (2, 1, range(2), []),
        (11, 10, range(11), []),
        (12, 3, range(11), [11]),
        (12, 11, [11], [10]),
        (40, 12, range(11, 22), [10, 22]),
        (40, 39, range(33, 40), [32]),
    ],
)
def test_a_row_has_eleven_pictures_and_arrows_lead_to_others(count, picture, numbers, arrows):
    panel = strip_of(torch.rand(count, 1, 2, 2), picture)
    found = touched(panel)
    asked = [f'{{"picture": {n}}}' for n in (*numbers, *arrows)]
    assert [one.get("data-set") for one in found] == asked
    (mark,) = (one for one in elements(panel, "rect") if one.get("class") == "gap-mark")
    assert place_of(mark) == place_of(found[[*numbers].index(picture)])
    assert all(left + width <= panel.width for left, _, width, _ in map(place_of, found))
    (pixels,) = panel.pixels
    assert pixels.levels.shape[1] == 64 * len(numbers)


def test_a_single_picture_has_no_row():
    frame = Frame((), (), "")
    assert Strip(torch.rand(1, 1, 2, 2)).put_above(frame, 0) is frame


@both_labs
def test_a_click_on_a_small_picture_shows_it(lab_of):
    lab = lab_of(brightest(), SIX, LABELS)
    click(lab, touched(lab.frame.panels[-1])[4])
    assert lab.value.picture == 4 and lab.frame.panels[-1].above


# the next wrong one


def brightest(order=(0, 1, 2)):
    """The class of a picture is its brightest channel; or that in its place in the order."""
    layer = nn.Conv2d(3, 3, 1, bias=False)
    layer.weight.data = 2 * torch.eye(3)[list(order)][..., None, None]
    return nn.Sequential(nn.Identity(), layer, nn.AdaptiveAvgPool2d(1), nn.Flatten())


def of_classes(*classes):
    """Pictures 4×4 with a bright point in the channel of their class."""
    images = torch.zeros(len(classes), 3, 4, 4)
    images[range(len(classes)), list(classes), 1, 1] = 1
    return images


def shift_lab(model, images, labels, **settings):
    models = model if isinstance(model, dict) else {"net": model}
    return ShiftLab(
        models, Split(images, torch.tensor(labels), torch.arange(len(images))), **settings
    )


every_lab = pytest.mark.parametrize("lab_of", [MapLab, CamLab, shift_lab])
SIX, LABELS = of_classes(0, 1, 2, 0, 1, 2), [0, 1, 0, 0, 2, 2]


def walk(lab, steps):
    """The pictures that the button leads to."""
    found = []
    for _ in range(steps):
        press(lab, "wrong")
        found.append(lab.value.picture)
    return found


@every_lab
def test_the_button_goes_round_the_wrong_ones(lab_of):
    lab = lab_of(brightest(), SIX, LABELS)
    assert control(lab, "wrong")["label"] == "Next wrong one"
    assert walk(lab, 3) == [2, 4, 2]
    images = SIX.clone()
    images[5, 0, 0, 0] = NAN  # no number is no right answer
    lab = lab_of(brightest(), images, LABELS, picture=3)
    assert walk(lab, 3) == [4, 5, 2]


def test_a_picture_of_no_known_class_is_not_wrong():
    assert next_wrong([brightest()], SIX, [0, None, None, 0, 2, None], 0) == 4


@every_lab
def test_where_no_other_is_wrong_it_is_said(lab_of):
    for labels, picture in ([0, 1, 2, 0, 1, 2], 3), ([0, 1, 2, 0, 0, 2], 4):
        lab = lab_of(brightest(), SIX, labels, picture=picture)
        sent = Page(lab).ask(press="wrong")
        assert sent[0]["problem"] == (
            "expected another picture that a network gets wrong, got none among the 5 others"
        )
        assert lab.value.picture == picture


def test_there_is_no_button_where_nothing_can_be_wrong():
    labs = [
        *(MapLab(brightest(), SIX), CamLab(brightest(), SIX)),  # no labels
        *(lab_of(brightest(), SIX[:1], [0]) for lab_of in (MapLab, CamLab, shift_lab)),
        MapLab(nn.Conv2d(3, 3, 1), SIX, LABELS),  # no classes
    ]
    for lab in labs:
        assert "wrong" not in [one["name"] for one in lab.opening()["controls"]]


@both_labs
def test_it_is_the_network_of_the_epoch_on_view(lab_of):
    run = run_of(brightest((1, 2, 0)).state_dict(), brightest().state_dict())
    lab = lab_of(brightest(), SIX, LABELS, run=run, epoch=1)
    assert walk(lab, 3) == [2, 4, 2]
    lab.set(epoch=0)  # class 0 is said for a bright 1, 1 for 2, 2 for 0
    assert walk(lab, 5) == [3, 4, 5, 0, 1]
    assert lab.value.epoch == 0


def test_any_of_the_networks_may_be_wrong_with_the_moved_picture():
    models = {"one": brightest(), "other": brightest((0, 2, 1))}
    assert walk(shift_lab(models, SIX, [0, 1, 2, 0, 1, 2]), 4) == [1, 2, 4, 5]
    lab = shift_lab(brightest(), SIX, [0, 1, 2, 0, 1, 2], dy=3)  # the point has left: class 0
    assert walk(lab, 4) == [1, 2, 4, 5]
    assert (lab.value.dx, lab.value.dy) == (0, 3)


def test_the_marked_map_is_there_in_the_next_picture():
    fewer = Call(lambda m, x: m.maps(x[:, :2] if x[0, 1].max() > 0 else x), maps=nn.Identity())
    model = nn.Sequential(fewer, Call(lambda m, x: x.mean((2, 3))[:, [0, 1, 1]]))
    lab = MapLab(model, SIX[:2], [0, 0], place=2)
    press(lab, "wrong")
    assert (lab.value.picture, lab.value.place) == (1, 1)


def test_the_judgement_is_that_of_the_lab():
    test = load_fashion_mnist().test
    images, labels = test.images[:60], test.labels[:60].tolist()
    wrong = [
        n for n, row in enumerate(predict(load_trained("gap"), images)) if row.argmax() != labels[n]
    ]
    for lab_of in (MapLab, CamLab, shift_lab):
        lab = lab_of(load_trained("gap"), images, labels)
        seen = []
        for picture in range(60):
            lab.set(picture=picture)
            if ", wrong" in lab.text:
                seen.append(picture)
        assert seen == walk(lab, len(seen)) == wrong
    # float32 calls the first two equally likely
    close = Call(lambda m, x: x.mean((2, 3)) * 0 + torch.tensor([0, 1e-9, -1]))
    assert walk(shift_lab(close, SIX, [1, 1, 1, 0, 1, 1]), 1) == [3]


@every_lab
def test_a_network_may_take_single_pictures_only_or_say_another_thing_of_several(lab_of):
    def refuse(model, images):
        if len(images) > 1:
            raise RuntimeError("one at a time")
        return model.net(images)

    def turn(model, images):
        return model.net(images if len(images) == 1 else images.roll(1, dims=1))

    for forward in (refuse, turn):
        lab = lab_of(Call(forward, net=brightest()), SIX, [0, 1, 1, 0, 0, 2])
        assert walk(lab, 3) == [2, 4, 2]
    failing = Call(lambda m, x: m.net(x) if x[0, 0].max() > 0 else 1 / 0, net=brightest())
    lab = lab_of(failing, SIX, LABELS)
    with pytest.raises(ValueError, match=r"a picture that Call can take, .* raises ZeroDivision"):
        press(lab, "wrong")
    assert lab.value.picture == 0


@every_lab
def test_it_stops_at_the_first_and_leaves_the_network_as_it_was(lab_of):
    model, seen = brightest().train(), []
    model[1].eval()
    modes = [module.training for module in model.modules()]
    lab = lab_of(model, SIX.repeat(20, 1, 1, 1), LABELS * 20)
    hook = model.register_forward_hook(
        lambda _, inputs, given: seen.append((len(given), given.requires_grad))
    )
    lab.press("wrong", lab.value)
    hook.remove()
    assert seen[:2] == [(TOGETHER, False), (1, False)] and len(seen) <= 3
    assert [module.training for module in model.modules()] == modes
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
