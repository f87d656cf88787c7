"""Labs on a page without a kernel, with a ladder and once with each lab there is."""

import gzip
import json
import re
from dataclasses import replace
from functools import cache
from html.parser import HTMLParser
from types import SimpleNamespace
from xml.etree import ElementTree

import nbformat
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gap_utils.backbones import Backbone, load_backbone
from gap_utils.data import load_fashion_mnist
from gap_utils.localisation import place_in_clutter
from gap_utils.models import load_trained
from gap_utils.photos import load_photo
from gap_utils.svg import PALETTES, box, cut, element, text
from gap_utils.widgets import CamLab, HeadLab, MapLab, PhotoLab, PoolLab, Question, ShiftLab
from gap_utils.widgets.lab import Choice, Lab, Slider, Toggle
from gap_utils.widgets.page import Tour, lab_as_html, pack
from ladder import SPECIAL, WITH_A_KERNEL, Climb, Ladder
from nbval_pictures import ROOT
from small_data import make_model, make_split

# cut

WORDS = st.text(max_size=8)
LEAVES = st.one_of(
    WORDS.map(lambda words: text(1, 2, words)),
    WORDS.map(lambda words: box((1, 2, 3, 4), words, data_set={words: 1})),
    WORDS.map(lambda words: element("path", d=words)),
)
ELEMENTS = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=4).map(lambda some: element("g", *some))
)


@given(st.lists(ELEMENTS, max_size=6))
def test_svg_is_cut_between_its_elements(elements):
    parts = cut("".join(elements))
    assert [*parts] == elements
    for part in parts:
        ElementTree.fromstring(part)  # one element, and not two or a piece of one


# Tour


@pytest.fixture(scope="module")
def lab():
    return Ladder()


@pytest.fixture(scope="module")
def tour(lab):
    return Tour(lab)


def states_of(lab):
    """The state on view, and those of the tour, each once."""
    return [*dict.fromkeys(lab.complete(state) for state in [lab.value, *lab.tour()])]


def plain(data):
    """Make of it what a page gets."""
    return json.loads(json.dumps(data))


def leads_to(lab, wanted):
    """The state that controls lead to, as a kernel would say; None where there is none."""
    try:
        return lab.complete(lab.from_fields(wanted))
    except ValueError:
        return None


def offered(frame, control):
    """The values that a page lets a control have."""
    limits = frame["limits"][control.name]
    if "values" in limits:
        return limits["values"]
    return [*range(limits["low"], limits["high"] + 1)]


def every_value(lab, control, state, seen):
    """The values that the control has where there is a kernel.

    Of a slider those that are on the tour, those beside them, and both ends.
    """
    if isinstance(control, Choice):
        return [value for _, value in control.options]
    if isinstance(control, Toggle):
        return [False, True]
    limits = lab.limits(state).get(control.name, {})
    low, high = limits.get("low", control.low), limits.get("high", control.high)
    near = {low, high, *(value + more for value in seen for more in (-1, 0, 1))}
    return [value for value in sorted(near) if low <= value <= high]


def check_frames(lab, tour, states):
    """Each frame is what a kernel would send, with the bytes that it needs."""
    assert len(tour.frames) == len(states)
    needed = {}
    for state, frame in zip(states, tour.frames, strict=True):
        data, pixels = lab.as_data(state)
        needed |= {one.digest: one.data for one in pixels}
        moved = {control.name for control in tour.controls}
        for name, limits in data["limits"].items():
            kept = {key: value for key, value in limits.items() if key not in ("low", "high")}
            assert kept.items() <= frame["limits"][name].items()
            assert name in moved or limits == frame["limits"][name]
        more = {"limits": frame["limits"], "presses": frame["presses"]}
        assert frame == {**data, **more}
    assert tour.levels == needed


def check_ways(lab, tour, states):
    """What a page lets one do leads where a kernel would lead, and what it does not, nowhere."""
    numbers = {state: n for n, state in enumerate(states)}
    places = {json.dumps(frame["fields"]): (n, "") for n, frame in enumerate(tour.frames)}
    assert len(places) == len(states)  # no two states have the same fields
    for wanted, number, note in tour.others:
        assert json.dumps(wanted) not in places  # each once, and none that is a state's own
        places[json.dumps(wanted)] = number, note
        assert leads_to(lab, wanted) == states[number]
        assert lab.note(wanted, states[number]) == note
    moved = [c for c in tour.controls if isinstance(c, Slider | Choice | Toggle)]
    seen = {
        one.name: {frame["fields"][one.name] for frame in tour.frames}
        for one in lab.controls
        if isinstance(one, Slider | Choice | Toggle)
    }
    assert {c.name for c in moved} == {name for name, values in seen.items() if len(values) > 1}
    for state, frame in zip(states, tour.frames, strict=True):
        for control in moved:
            values = offered(frame, control)
            assert values == sorted(set(values), key=values.index)
            possible = every_value(lab, control, state, seen[control.name])
            assert {*values} <= {*possible}
            for value in possible:
                wanted = {**frame["fields"], control.name: value}
                is_there = leads_to(lab, wanted) in numbers
                is_known = value in seen[control.name]
                assert (value in values) == (is_there and is_known), (wanted, control.name)
                if value in values:
                    number, note = places[json.dumps(wanted)]
                    assert states[number] == leads_to(lab, wanted)
        for button in (one for one in lab.controls if one.kind == "button"):
            try:
                pressed = lab.complete(lab.press(button.name, state))
            except ValueError:
                pressed = None
            expected = None if button.name in lab.needs_kernel else numbers.get(pressed)
            assert frame["presses"].get(button.name) == expected, button.name


def test_the_frames_are_those_that_a_kernel_would_send(lab, tour):
    states = states_of(lab)
    assert len(states) == 40
    check_frames(lab, tour, states)
    check_ways(lab, tour, states)


def test_the_state_on_view_is_first_also_where_the_tour_has_it_not():
    lab = Ladder(top=9, rung=9, colour=3)
    tour = Tour(lab)
    assert tour.frames[0]["fields"]["top"] == 9
    states = states_of(lab)
    assert len(states) == 41
    check_ways(lab, tour, states)
    assert tour.frames[0]["presses"] == {"reset": 0}
    limits = tour.frames[0]["limits"]
    assert limits["top"] == {"low": 9, "high": 9}  # no way back is offered
    assert limits["wet"] == {"values": [False]}


def test_what_the_tour_leaves_open_is_completed_once():
    class Open(Ladder):
        def complete(self, state):
            return replace(state, top=4) if state.top == 8 else state

        def tour(self):
            yield Climb(8, 1)
            yield Climb(4, 1)

        def press(self, name, state):
            return Climb(8, 1)

    tour = Tour(Open())
    assert [frame["fields"]["rung"] for frame in tour.frames] == [0, 1]
    assert [frame["fields"]["top"] for frame in tour.frames] == [4, 4]
    assert tour.frames[0]["presses"] == dict.fromkeys(("climb", "fall", "paint", "reset"), 1)


def frame_of(tour, **wanted):
    """The number and the frame of these fields."""
    (found,) = [
        (n, frame)
        for n, frame in enumerate(tour.frames)
        if {**frame["fields"], **wanted} == frame["fields"]
    ]
    return found


def at(tour, top, rung, way="up", word="a", wet=False):
    return frame_of(tour, top=top, rung=rung, way=way, word=word, wet=wet)


def test_what_controls_can_have_there(tour):
    _, frame = at(tour, 4, 0)
    assert {name: frame["limits"][name] for name in ("rung", "top", "way", "word", "wet")} == {
        "rung": {"high": 4, "values": [0, 1, 2, 4]},
        "top": {"values": [2, 4, 7]},
        "way": {"values": ["up", "down"]},
        "word": {"values": ["a", "b"]},
        "wet": {"values": [False, True]},
    }
    _, frame = at(tour, 2, 1)
    assert frame["limits"]["rung"] == {"low": 0, "high": 2}  # without gaps
    assert frame["limits"]["word"] == {"values": ["a"]}
    assert frame["limits"]["wet"] == {"values": [False]}
    assert frame["limits"]["colour"] == {"hidden": True}  # as the lab says


def test_what_leads_elsewhere_says_so(tour):
    (n, _), (m, frame) = at(tour, 2, 2), at(tour, 7, 7)
    wanted = {**frame["fields"], "top": 2}
    assert (wanted, n, "The rung is now 2.") in tour.others
    assert 2 in frame["limits"]["top"]["values"]
    assert all(number != m for _, number, _ in tour.others)  # nothing is pulled up to the 7


def test_where_buttons_lead(tour):
    ground, first = at(tour, 4, 0), at(tour, 4, 1)
    # a painted ladder is not on the tour; to guess needs a kernel
    assert ground[1]["presses"] == {"climb": first[0], "fall": ground[0], "reset": 0}
    _, frame = at(tour, 4, 2, "down")  # to rung 3, which is not there
    assert frame["presses"] == {"fall": at(tour, 4, 0, "down")[0], "reset": 0}
    _, frame = at(tour, 7, 7)  # no higher
    assert frame["presses"] == {"fall": at(tour, 7, 0)[0], "reset": 0}


def test_controls_without_a_choice_are_left_out(tour):
    assert [control.name for control in tour.controls] == [
        "rung", "top", "way", "word", "wet", "climb", "fall", "reset",
    ]  # fmt: skip
    options = {one.name: one.options for one in tour.controls if isinstance(one, Choice)}
    assert options == {
        "way": [("up", "up"), ("down", "down")],
        "word": [("word a", "a"), (SPECIAL, "b")],
    }
    assert tour.controls[0] == Slider("rung", "Rung", 0, 9, main=True)


# pack


def unpack(data):
    """Read a file of frames, by what is said of it at `pack`."""
    data = gzip.decompress(data)
    length = int.from_bytes(data[:4], "big")
    content = json.loads(data[4 : 4 + length])
    rest = data[4 + length :]

    def value(place):
        entry = content["table"][place]
        if isinstance(entry, list):
            return [value(inner) for inner in entry]
        if isinstance(entry, dict):
            return {name: value(inner) for name, inner in entry.items()}
        return entry

    frames = [value(place) for place in content["frames"]]
    others = [[value(place), number, note] for place, number, note in content["others"]]
    levels = {digest: rest[begin:end] for digest, (begin, end) in content["levels"].items()}
    assert sum(map(len, levels.values())) == len(rest)
    return frames, others, levels, content["table"]


def distinct(value, found):
    """Gather all values in a value, as JSON, which tells 1, 1.0, true and "1" apart."""
    found.add(json.dumps(value))
    inner = value.values() if isinstance(value, dict) else value if type(value) is list else ()
    for one in inner:
        distinct(one, found)
    return found


def check_file(tour):
    frames, others, levels, table = unpack(pack(tour))
    assert frames == plain(tour.frames)
    assert others == plain(tour.others)
    assert levels == tour.levels
    found = set()
    for value in [*frames, *(fields for fields, _, _ in others)]:
        distinct(value, found)
    assert len(table) == len(found)  # each is stored once


def test_the_file_holds_the_frames(tour):
    check_file(tour)


def test_the_file_is_the_same_each_time(tour):
    assert pack(Tour(Ladder())) == pack(tour)
    assert pack(tour)[4:8] == bytes(4)  # of gzip: no time


class Still(Lab):
    """One frame, whose fields and limits are as a test says."""

    def __init__(self, limits):
        self._limits = limits
        super().__init__(Climb(), [])

    def draw(self, state):
        return Ladder().draw(state)

    def limits(self, state):
        return self._limits


JSON = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(-3, 3), st.sampled_from([0.0, 1.0, 2.5]),
        st.sampled_from(["", "a", "1", "\u2028</script>", "\x00é🙂"]),
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("ab1"), inner),
)  # fmt: skip


@given(JSON)
def test_whatever_json_can_say_comes_back(value):
    tour = Tour(Still({"one": {"said": value, "again": [value, value]}}))
    frames, _, _, _ = unpack(pack(tour))
    said = json.dumps(frames[0]["limits"]["one"])
    assert said == json.dumps({"said": value, "again": [value, value]})
    check_file(tour)


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
def test_a_number_that_json_cannot_say_is_refused(number):
    lab = Still({"one": {"high": number}})
    with pytest.raises(ValueError, match="JSON"):
        pack(Tour(lab))
    with pytest.raises(ValueError, match="JSON"):
        lab_as_html(lab, Tour(lab))


# lab_as_html


class Scripts(HTMLParser):
    """Take the scripts out of HTML as a browser does, and keep the rest."""

    def __init__(self, html):
        super().__init__(convert_charrefs=False)
        self.scripts, self.rest, self._inside = [], [], False
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        self._inside = tag == "script"
        if self._inside:
            self.scripts.append("")
        else:
            self.rest.append(self.get_starttag_text())

    def handle_startendtag(self, tag, attrs):
        self.rest.append(self.get_starttag_text())

    def handle_endtag(self, tag):
        if tag != "script":
            self.rest.append(f"</{tag}>")
        self._inside = False

    def handle_data(self, data):
        if self._inside:
            self.scripts[-1] += data
        else:
            self.rest.append(data)

    def handle_entityref(self, name):
        self.rest.append(f"&{name};")

    def handle_charref(self, name):
        self.rest.append(f"&#{name};")


def read_page(html):
    """The data of the one script, and the rest as XML."""
    found = Scripts(html)
    (script,) = found.scripts
    return json.loads(script), ElementTree.fromstring("".join(found.rest))


def of_class(root, name):
    return [one for one in root.iter() if name in one.get("class", "").split()]


def test_what_stands_on_the_page(lab, tour):
    address, launch = 'labs/a&b"c.frames', 'https://x.test/?a=1&b="2"'
    html = lab_as_html(lab, tour, address, launch)
    opening, root = read_page(html)
    assert root.attrib == {"class": "gap-on-page", "data-lab": "Ladder", "data-frames": address}
    script = html.split('json">')[1].split("</script>")[0]
    assert "<" not in script
    # the first frame, as the file has it and as a browser shows it without a script
    assert opening["name"] == "Ladder"
    assert [control["name"] for control in opening["controls"]] == [c.name for c in tour.controls]
    assert opening["controls"][3]["options"] == [["word a", "a"], [SPECIAL, "b"]]
    assert set(opening["palettes"]) == set(PALETTES)
    (frame,) = opening["frames"]
    assert frame["limits"] == plain(tour.frames[0]["limits"])
    assert frame["fields"] == plain(lab.to_fields(lab.value))
    assert frame["text"] == lab.text == f"All of {lab.value}: {SPECIAL}"
    assert sorted(frame["levels"]) == sorted(one.digest for one in lab.as_data(lab.value)[1])
    (hidden,) = of_class(root, "gap-hidden")
    assert hidden.text == lab.text
    (words,) = of_class(root, "gap-words")
    assert ["".join(p.itertext()) for p in words.iter("p")] == ["Rung 0 of 4, up."]
    above, panels = of_class(root, "gap-panels")
    assert "".join(above.itertext()) == "what stays"
    assert "".join(panels.itertext()) == "rung 0"
    assert [svg.get("viewBox") for svg in root.iter("svg")] == ["0 0 60 30", "0 0 200 100"]
    assert len([*panels.iter("image")]) == 2
    (kernel,) = of_class(root, "gap-kernel")
    assert kernel.find("span").text == WITH_A_KERNEL
    assert kernel.find("a").get("href") == launch


def test_names_that_look_like_html_stay_names():
    lab = Ladder(wet=True, word="b")
    opening, root = read_page(lab_as_html(lab, Tour(lab), "a", "b"))
    (words,) = of_class(root, "gap-words")
    said = ["".join(p.itertext()) for p in words.iter("p")]
    assert said == ["wet as rain", "Rung 0 of 4, up.", f"{SPECIAL} wet"]
    assert of_class(words, "gap-large") == [words[1]]
    assert opening["frames"][0]["words"] == said[1:]


def test_a_verdict_has_its_mark():
    lab = Ladder(rung=4)
    _, root = read_page(lab_as_html(lab, Tour(lab), "a", "b"))
    assert len(of_class(root, "gap-right")) == 1


def test_a_question_has_all_its_frames_on_the_page():
    lab = Question("How many?", {"one <b>": "No & no.", "two": "Yes."}, "two")
    html = lab_as_html(lab)
    (script,) = Scripts(html).scripts
    opening = json.loads(script)
    answers = [frame["fields"]["answer"] for frame in opening["frames"]]
    assert answers == [None, "one <b>", "two"]
    assert opening["frames"][1]["words"] == ["Not this one", "No & no."]
    assert html.startswith('<div class="gap-on-page" data-lab="Question" data-frames="">')
    assert f'<div class="gap-place">{lab.as_html()}</div>' in html
    assert "one &lt;b&gt;" in html
    assert "gap-kernel" not in html


# the labs that there are, with small networks


def small_run(epochs):
    weights = []
    for epoch in range(epochs + 1):
        torch.manual_seed(epoch)
        weights.append(make_model().state_dict())
        weights[-1]["0.weight"] = torch.randn(4, 1, 3, 3)
    return SimpleNamespace(attrs={"weights": tuple(weights)})


def small_backbone():
    config = {
        "input_size": (3, 32, 32), "interpolation": "bilinear", "crop_pct": 1.0,
        "crop_mode": "center", "mean": (0.0,) * 3, "std": (1.0,) * 3,
    }  # fmt: skip
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 16, 16),
        torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(),
        torch.nn.Linear(4, 7),
    )
    return Backbone("mine/small", model.eval(), "made by hand", config, tuple("abcdefg"))


def small_photos():
    return [*torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))]


SPLIT = make_split(5)
BOXES = torch.tensor([[0, 0, 4, 4]] * 5)
NAMES = ["a", "<b>", "c"]
FEW = SPLIT.images[:2], SPLIT.labels[:2], NAMES
# how each is made, how many states its tour has, and which of them are drawn here: every so many
LABS = {
    "pool": (lambda: PoolLab(((1, 2, 3), (4, 5, 6), (7, 8, 9))), 549, 4),
    "head": (lambda: HeadLab(channels=3, height=2, width=2), 4032, 41),
    # at the ends of the sliders: without 0 channels, and without more than there may be
    "head of 1": (lambda: HeadLab(channels=1, height=2, width=2), 2016, 31),
    "head of many": (lambda: HeadLab(channels=8192, height=2, width=2), 2016, 31),
    "shift": (lambda: ShiftLab({"a": make_model(), "b": make_model()}, SPLIT), 5 * 169, 5),
    # for 2 pictures in 2 orders: 4 maps of 3 layers, 4 and 3 of 1×1 maps, 4 of two layers alone
    "map": (lambda: MapLab(make_model(), *FEW), 2 * 2 * (3 * 4 + 4 + 4 + 4), 1),
    "map and run": (lambda: MapLab(make_model(), *FEW, run=small_run(3)), 128, 1),
    "cam": (lambda: CamLab(body_and_head(), *FEW), 2 * 4 * 3 * 3 * 2, 1),
    "cam and boxes": (lambda: CamLab(body_and_head(8), SPLIT.images, SPLIT.labels, NAMES,
                                     boxes=BOXES), 5 * 4 * 11, 1),
    "cam and run": (lambda: CamLab(make_model(), *FEW, run=small_run(2), epoch=1), 144, 1),
    "photo": (lambda: PhotoLab(small_backbone(), small_photos()), None, 3),
}  # fmt: skip


def body_and_head(side=4):
    """Maps of so many squares a side for pictures of 8×8, then GAP and a linear layer."""
    torch.manual_seed(1)
    return torch.nn.Sequential(
        torch.nn.Conv2d(1, 4, 8 // side, 8 // side),
        torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(),
        torch.nn.Linear(4, 3),
    )


@pytest.mark.parametrize("name", LABS)
def test_the_tour_of_each_lab(name):
    make, count, step = LABS[name]
    lab = make()
    states = [*lab.tour()]
    assert [*map(lab.complete, states)] == states  # nothing is left open, all can be
    assert len({*states}) == len(states)
    if count is not None:
        assert len(states) == count
    assert {*lab.needs_kernel} <= {control.name for control in lab.controls}
    assert lab.with_a_kernel.startswith("With a kernel ")
    lab.tour = lambda: states[::step]
    tour = Tour(lab)
    states = states_of(lab)
    check_frames(lab, tour, states)
    check_ways(lab, tour, states)
    check_file(tour)
    opening, root = read_page(lab_as_html(lab, tour, "a", "b"))
    assert opening["frames"][0]["text"] == lab.text
    assert of_class(root, "gap-hidden")[0].text == lab.text


# what the lessons ask for


@cache
def lesson_data():
    return load_fashion_mnist()


def lab_of_lesson_06():
    data = lesson_data()
    images, labels = data.test.images, data.test.labels
    return MapLab(load_trained("gap"), images, labels, data.class_names, picture=2, layer="body.0")


def lab_of_lesson_06_with_run():
    model, data = load_trained("gap"), lesson_data()
    run = SimpleNamespace(attrs={"weights": (model.state_dict(),) * 9})
    settings = {"layer": "head.0", "picture": 2, "place": 1, "epoch": 8}
    names = data.class_names
    return MapLab(model, data.test.images, data.test.labels, names, run=run, **settings)


def lab_of_lesson_07():
    data = lesson_data()
    return CamLab(load_trained("gap"), data.test.images, data.test.labels, data.class_names)


def lab_of_lesson_07_with_boxes():
    data = lesson_data()
    canvases, boxes = place_in_clutter(data.test, seed=0)
    images, labels = canvases.images, data.test.labels
    return CamLab(load_trained("gap_places"), images, labels, data.class_names, boxes=boxes)


def lab_of_lesson_08():
    backbone = load_backbone()
    photos = {name: load_photo(name) for name in ("hopper", "cat", "espresso", "rocket")}
    squares = {name: backbone.preprocess(photo, crop_pct=1) for name, photo in photos.items()}
    usual = backbone.preprocess(photos["hopper"])
    pictures = [squares["hopper"], usual, *(squares[name] for name in [*photos][1:])]
    return PhotoLab(backbone, pictures, crop_pct=1)


KERNEL = "needs a kernel"
STEPS_OF_EPOCHS = [{"epoch": n} for n in range(9)]
# the lesson and a part of the cell with the lab; how the lab is made; and of each numbered task
# above it, the moves that it asks for: fields, or the name of a button
TASKS = [
    ("01", "PoolLab(numbers)", lambda: PoolLab(), [
        [{"window": n} for n in (2, 3, 4)],
        [{"mode": "avg"}, *({"window": n} for n in (2, 3, 4))],
        ["global"],
        KERNEL,  # to type a number
        ["reset", {"padding": 1}, *({"window": n} for n in range(2, 10))],
    ]),
    ("02", "HeadLab(channels=32", lambda: HeadLab(channels=32, height=3, width=3), [
        [{"explained": "linear after flatten"}, {"explained": "1x1 convolution"}],
        [{"height": n} for n in (4, 5, 6)],
        ["reset", {"num_classes": 100}, {"explained": "1x1 convolution"}],
        ["reset", {"kept": True}, *({"height": n} for n in (4, 5, 6, 5, 4, 3, 2, 1))],
        ["reset", {"kept": True}, {"height": 4}, {"height": 3}, {"channels": 33}, {"channels": 32},
         {"channels": 31}],
    ]),
    ("05", "ShiftLab()", lambda: ShiftLab(), [
        [{"dx": n} for n in range(1, 7)],
        [{"dx": 2}, "back", *({"dy": n} for n in (-1, -2, -3, -2, -1, 0, 1, 2, 3))],
        [*({"dx": n} for n in (1, 2, 3, 4)), *({"picture": n} for n in range(1, 11))],
    ]),
    ("06", 'layer="body.0")', lab_of_lesson_06, [
        [{"layer": name} for name in (*(f"body.{n}" for n in range(1, 15)), "head.0")],
        [{"layer": "body.1"}, {"layer": "body.0"}, *({"place": n} for n in range(1, 8))],
        [{"layer": "body.14"}, {"sort": "mean"}, *({"place": n} for n in range(1, 32))],
        [{"layer": "head.0"}, *({"place": n} for n in range(1, 10)), {"place": 1},
         {"view": "one map"}],
    ]),
    ("06", "run=history", lab_of_lesson_06_with_run, [
        STEPS_OF_EPOCHS,
        [{"picture": 1}, {"picture": 0}, *STEPS_OF_EPOCHS],
        [*STEPS_OF_EPOCHS, {"picture": 0}],
    ]),
    ("07", "CamLab(model, images, labels, names)", lab_of_lesson_07, [
        [],
        [{"view": "numbers"}],
        [{"left": 1}],
        [{"view": "map"}, {"smooth": True}],
    ]),
    ("07", "CamLab(finder", lab_of_lesson_07_with_boxes, [
        [{"level": n} for n in (50, 60, 70, 60, 50, 40, 30, 20)],
        [{"level": 50}, {"level": 40}, "wrong", "wrong", "wrong"],
    ]),
    ("08", "PhotoLab(", lab_of_lesson_08, [
        [{"left": 652}, {"picture": 1}, {"view": "map"}],  # military uniform
        [{"picture": 1}, {"picture": 2}, {"picture": 3}],
        [{"picture": 1}, {"picture": 2}, {"picture": 3}, {"picture": 4}, {"left": 657}],  # missile
        KERNEL,  # for a photograph of one's own
    ]),
]  # fmt: skip


@pytest.mark.parametrize(("lesson", "code", "make", "tasks"), TASKS)
def test_the_tour_has_what_a_lesson_asks_for(lesson, code, make, tasks):
    (path,) = (ROOT / "notebooks").glob(f"{lesson}_*.ipynb")
    cells = nbformat.read(path, as_version=4).cells
    (n,) = [
        n for n, cell in enumerate(cells)
        if cell.cell_type == "code" and re.search(r"Lab\(", cell.source) and code in cell.source
        and cells[n - 1].cell_type == "markdown"
    ]  # fmt: skip
    assert len(re.findall(r"^\d\. ", cells[n - 1].source, re.MULTILINE)) == len(tasks)
    lab = make()
    states = {lab.value, *lab.tour()}
    for moves in tasks:
        if moves == KERNEL:
            continue
        state = lab.value
        for move in moves:
            if isinstance(move, str):
                assert move not in lab.needs_kernel
                state = lab.complete(lab.press(move, state))
            else:
                state = lab.complete(lab.from_fields({**lab.to_fields(state), **move}))
                assert move.items() <= lab.to_fields(state).items()  # nothing is pulled along
            assert state in states, (move, state)
