from collections import deque
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.ops import box_iou, masks_to_boxes

from gap_utils.data import Split, load_fashion_mnist
from gap_utils.localisation import (
    CANVAS,
    PIECE,
    area,
    box_around,
    box_from_map,
    holds,
    intersection,
    intersection_over_union,
    largest_position,
    place_in_clutter,
)

TRAIN = load_fashion_mnist().train
SOME = Split(*(tensor[:40] for tensor in vars(TRAIN).values()))

corners = st.integers(0, 30), st.integers(0, 30), st.integers(1, 20), st.integers(1, 20)
boxes = st.tuples(*corners).map(lambda b: (b[0], b[1], b[0] + b[2], b[1] + b[3]))
# whole numbers and parts of 16, so that no rounding decides what is high
levels = st.integers(0, 16).map(lambda n: n / 16)
sides = st.integers(1, 7)
maps = st.tuples(sides, sides).flatmap(
    lambda shape: st.lists(
        st.integers(-20, 20), min_size=shape[0] * shape[1], max_size=shape[0] * shape[1]
    ).map(lambda numbers: torch.tensor(numbers, dtype=torch.float32).reshape(1, *shape))
)


def row(*numbers):
    return torch.tensor([numbers])


@pytest.mark.parametrize(
    ("one", "other", "shared", "overlap"),
    [
        ((0, 0, 4, 4), (0, 0, 4, 4), 16, 1),
        ((0, 0, 4, 4), (2, 0, 6, 4), 8, 8 / 24),
        ((0, 0, 4, 4), (1, 1, 3, 2), 2, 2 / 16),  # inside
        ((0, 0, 4, 4), (3, 2, 7, 5), 2, 2 / 26),
        ((0, 0, 4, 4), (4, 0, 8, 4), 0, 0),  # side by side
        ((0, 0, 1, 1), (5, 5, 6, 6), 0, 0),  # apart in both axes: (-4) · (-4) is no area
    ],
)
def test_overlap_by_hand(one, other, shared, overlap):
    assert intersection(row(*one), row(*other)).tolist() == [shared]
    assert intersection_over_union(row(*one), row(*other)).item() == pytest.approx(overlap)


def test_areas_by_hand():
    assert area(torch.tensor([[1, 2, 4, 7], [0, 0, 1, 1]])).tolist() == [15, 1]


@given(st.lists(st.tuples(boxes, boxes), min_size=1, max_size=8))
def test_overlap_is_what_torchvision_has(pairs):
    some, others = torch.tensor(pairs).unbind(1)
    theirs = box_iou(some.float(), others.float()).diagonal()
    torch.testing.assert_close(intersection_over_union(some, others), theirs)


@given(boxes, boxes, st.integers(-50, 50), st.integers(-50, 50))
def test_overlap_is_a_part_of_1_and_the_same_from_both_sides_and_elsewhere(one, other, dx, dy):
    one, other = row(*one), row(*other)
    overlap = intersection_over_union(one, other)
    assert 0 <= overlap <= 1
    assert (overlap == 1) == (one == other).all()
    assert overlap == intersection_over_union(other, one)
    move = row(dx, dy, dx, dy)
    assert overlap == intersection_over_union(one + move, other + move)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.float16, torch.float64])
def test_areas_find_room_in_every_number_format(dtype):
    one, other = row(0, 0, 250, 200).to(dtype), row(100, 150, 250, 200).to(dtype)
    assert area(one).item() == 50_000
    assert intersection_over_union(one, other).item() == pytest.approx(0.15)
    apart = row(0, 0, 2, 2).to(dtype), row(3, 3, 4, 4).to(dtype)  # 2 - 3 is 255 in a byte
    assert intersection(*apart).item() == 0


@pytest.mark.parametrize(
    "bad", [(3, 0, 3, 2), (0, 2, 5, 2), (5, 0, 3, 2), (0.0, 0.0, float("nan"), 2.0)]
)
def test_a_box_without_an_area_is_refused(bad):
    both = torch.stack([torch.tensor([0.0, 0.0, 1.0, 1.0]), torch.tensor([*map(float, bad)])])
    good = torch.tensor([[0, 0, 1, 1]] * 2)
    for wrong in (
        lambda: area(both),
        lambda: intersection_over_union(good, both),
        lambda: intersection_over_union(both, good),
        lambda: holds(both, torch.zeros(2, 2)),
    ):
        with pytest.raises(ValueError, match=r"expected boxes with left < right and top < bottom"):
            wrong()


def test_boxes_of_other_shapes_are_refused():
    with pytest.raises(ValueError, match=r"expected boxes of shape \(N, 4\), got \(4,\)"):
        area(torch.tensor([0, 0, 1, 1]))
    one = row(0, 0, 1, 1)
    with pytest.raises(ValueError, match="expected equally many boxes, got 1 and 2"):
        intersection_over_union(one, one.repeat(2, 1))
    with pytest.raises(ValueError, match=r"expected points of shape \(1, 2\), .* got \(2, 2\)"):
        holds(one, torch.zeros(2, 2))


@given(maps, st.integers(-20, 20))
def test_the_box_around_a_mask_is_what_torchvision_has(maps, at):
    mask = maps >= at
    if mask.any():
        left, top, last_column, last_row = masks_to_boxes(mask)[0].int().tolist()
        assert box_around(mask).tolist() == [[left, top, last_column + 1, last_row + 1]]


def test_no_box_is_around_nothing():
    mask = torch.tensor([[[True, False]], [[False, False]]])
    with pytest.raises(ValueError, match="something True in each mask, got nothing in number 1"):
        box_around(mask)
    with pytest.raises(ValueError, match=r"\(N, H, W\), got \(1, 2\), torch.bool"):
        box_around(mask[0])
    with pytest.raises(ValueError, match=r"got \(2, 1, 2\), torch.float32"):
        box_around(mask.float())


MAP = torch.tensor(
    [
        [9.0, 0.0, 0.0, 0.0],
        [0.0, 4.0, 10.0, 0.0],
        [0.0, 0.0, 6.0, 2.0],
        [8.0, 0.0, 0.0, 0.0],
    ]
)


@pytest.mark.parametrize(
    ("level", "box"),
    [
        (1, (2, 1, 3, 2)),  # the largest alone
        (0.7, (2, 1, 3, 2)),  # 9 and 8 are high, but elsewhere
        (0.6, (2, 1, 3, 3)),  # 6 is just high enough
        (0.4, (0, 0, 3, 3)),  # 4 touches 10, and 9 touches it at a corner
        (0.2, (0, 0, 4, 3)),
        (0, (0, 0, 4, 4)),
    ],
)
def test_the_box_from_a_map_by_hand(level, box):
    assert box_from_map(MAP[None], level, 1).tolist() == [[*box]]
    assert box_from_map(MAP[None], level, 5).tolist() == [[5 * edge for edge in box]]


def flood(values, level):
    """The box around what is high and connected to the largest, one position after another."""
    low, top = min(map(min, values)), max(map(max, values))
    high = {
        (y, x)
        for y, line in enumerate(values)
        for x, value in enumerate(line)
        if value >= low + level * (top - low)
    }
    reached = {(y, x) for y, x in high if values[y][x] == top}
    waiting = deque(reached)
    while waiting:
        y, x = waiting.popleft()
        around = {(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)}
        waiting.extend(around & high - reached)
        reached |= around & high
    ys, xs = zip(*reached, strict=True)
    return [min(xs), min(ys), max(xs) + 1, max(ys) + 1]


@settings(max_examples=200)
@given(maps, levels)
def test_the_box_from_a_map_is_what_a_flood_reaches(maps, level):
    assert box_from_map(maps, level, 1).tolist() == [flood(maps[0].tolist(), level)]


def test_a_long_way_is_gone_to_its_end():
    path = torch.zeros(21, 21)
    path[::4], path[2::8, -1], path[1::8, -1], path[3::8, -1] = 1, 1, 1, 1
    for rows in (5, 6, 7), (13, 14, 15):
        path[[*rows], 0] = 1
    path[0, 0] = 2  # its end is 21 · 6 steps away
    assert box_from_map(path[None], 0.5, 4).tolist() == [[0, 0, 84, 84]]
    path[10, 20] = 0  # cut
    assert box_from_map(path[None], 0.5, 4).tolist() == [[0, 0, 84, 40]]


@given(maps, levels, st.integers(-100, 100), st.integers(-3, 3))
def test_what_is_added_or_multiplied_moves_no_box(maps, level, added, power):
    box = box_from_map(maps, level, 1)
    assert box_from_map(maps + added, level, 1).equal(box)
    assert box_from_map(maps * 2.0**power, level, 1).equal(box)


@given(maps, levels, levels)
def test_a_box_grows_as_the_level_falls(maps, one, other):
    high, low = (box_from_map(maps, level, 1)[0] for level in (max(one, other), min(one, other)))
    assert (low[:2] <= high[:2]).all() and (low[2:] >= high[2:]).all()


def test_each_map_has_its_own_box():
    some = torch.randn(6, 5, 4, generator=torch.Generator().manual_seed(0))
    together = box_from_map(some, 0.5, 3)
    assert together.equal(torch.cat([box_from_map(each[None], 0.5, 3) for each in some]))


def test_a_level_of_1_is_the_largest_value_whatever_the_rounding():
    some = torch.randn(500, 3, 3, generator=torch.Generator().manual_seed(0))
    found = box_from_map(some, 1, 1)
    assert (area(found) == 1).all()
    assert holds(found, largest_position(some, 1)).all()


def test_a_flat_map_points_nowhere():
    for level in (0, 0.5, 1):
        assert box_from_map(torch.full((1, 3, 4), -2.0), level, 4).tolist() == [[0, 0, 16, 12]]


@given(maps, st.integers(1, 6))
def test_the_middle_of_the_largest_square(maps, cell):
    x, y = largest_position(maps, cell)[0].tolist()
    assert maps[0, y // cell, x // cell] == maps.max()
    assert (x % cell, y % cell) == (cell // 2, cell // 2)
    assert holds(box_from_map(maps, 1, cell), row(x, y)).item()


def test_the_first_of_several_largest():
    assert largest_position(torch.tensor([[[0.0, 3.0], [3.0, 1.0]]]), 4).tolist() == [[6, 2]]


@pytest.mark.parametrize(
    ("point", "inside"),
    [((2, 1), True), ((4, 5), True), ((5, 5), False), ((4, 6), False), ((1, 1), False)],
)
def test_the_right_and_lower_edge_are_outside(point, inside):
    assert holds(row(2, 1, 5, 6), row(*point)).item() is inside


@pytest.mark.parametrize(
    "find", [lambda m: box_from_map(m, 0.5, 1), lambda m: largest_position(m, 1)]
)
def test_maps_without_numbers_are_refused(find):
    for bad, got in [
        (torch.zeros(3, 3), r"\(3, 3\)"),
        (torch.zeros(1, 1, 3, 3), r"\(1, 1, 3, 3\)"),
        (torch.zeros(1, 0, 3), r"\(1, 0, 3\)"),
        (torch.tensor([[[0.0, float("nan")]]]), "one that is no finite number"),
        (torch.tensor([[[0.0, float("inf")]]]), "one that is no finite number"),
    ]:
        with pytest.raises(ValueError, match=rf"expected maps of finite .* \(N, h, w\), got {got}"):
            find(bad)


@pytest.mark.parametrize("level", [-0.1, 1.1, 40, float("nan"), "0.4", None])
def test_a_level_is_a_part(level):
    with pytest.raises(ValueError, match="expected level to be a number from 0 to 1, got"):
        box_from_map(MAP[None], level, 1)


@pytest.mark.parametrize("cell", [0, -4, 2.5])
def test_a_cell_is_whole_pixels(cell):
    for find in (
        lambda: box_from_map(MAP[None], 0.5, cell),
        lambda: largest_position(MAP[None], cell),
    ):
        with pytest.raises(ValueError, match="expected cell to be an integer from 1 on, got"):
            find()


def test_clothes_in_clutter():
    before = SOME.images.clone()
    placed, found = place_in_clutter(SOME, seed=3)
    assert placed.images.shape == (40, 1, CANVAS, CANVAS)
    assert SOME.images.equal(before)
    assert placed.labels.equal(SOME.labels) and placed.numbers.equal(SOME.numbers)
    assert (found[:, :2] >= 0).all() and (found[:, 2:] <= CANVAS).all()
    for picture, canvas, box in zip(SOME.images[:, 0], placed.images[:, 0], found, strict=True):
        shown = picture > 0.1
        left, top, right, bottom = box.tolist()
        rows, columns = (shown.any(axis).nonzero().flatten() for axis in (1, 0))
        crop = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
        here = canvas[top:bottom, left:right]
        assert here.shape == picture[crop].shape  # tight
        assert here[shown[crop]].equal(picture[crop][shown[crop]])
    assert len({tuple(box) for box in found.tolist()}) > 35  # not all in one place


def test_what_is_around_the_clothes_comes_from_the_same_pictures():
    """Each picture of one brightness: then every brightness on a canvas is that of a picture."""
    images = torch.zeros(5, 1, 28, 28)
    brightness = torch.tensor([0.2, 0.3, 0.4, 0.5, 0.6])
    images[:, :, 10:18, 10:18] = brightness[:, None, None, None]
    images[:, :, ::9] = 0.05  # too dark to belong to the clothes, but not to a piece
    split = Split(images, torch.zeros(5, dtype=torch.int64), torch.arange(5))
    placed, found = place_in_clutter(split, seed=0)
    seen = set(placed.images.unique().tolist())
    assert seen == {*brightness.tolist(), *torch.tensor([0.0, 0.05]).tolist()}
    for number, (left, top, right, bottom) in enumerate(found.tolist()):
        assert (right - left, bottom - top) == (8, 8)
        assert (placed.images[number, 0, top:bottom, left:right] == brightness[number]).all()
        others = {*placed.images[number].unique().tolist()} - {brightness[number].item()}
        assert len(others) > 2  # pieces of other pictures


def test_a_seed_says_what_is_drawn():
    one, one_boxes = place_in_clutter(SOME, seed=1)
    again, again_boxes = place_in_clutter(SOME, seed=1)
    other, other_boxes = place_in_clutter(SOME, seed=2)
    assert one.images.equal(again.images) and one_boxes.equal(again_boxes)
    assert not other.images.equal(one.images) and not other_boxes.equal(one_boxes)
    # what the study was made with
    assert one_boxes[:2].tolist() == [[55, 41, 78, 69], [41, 25, 62, 53]]
    assert one.images.double().mean().item() == pytest.approx(0.131778756, abs=1e-8)


def test_the_drawing_leaves_the_random_state_alone():
    state = torch.get_rng_state()
    place_in_clutter(SOME, seed=1)
    assert torch.get_rng_state().equal(state)


@pytest.mark.parametrize(
    "shape", [(0, 1, 28, 28), (2, 3, 28, 28), (2, 1, 28, 20), (2, 1, 9, 9), (2, 1, 85, 85)]
)
def test_pictures_that_do_not_fit_are_refused(shape):
    count = torch.zeros(shape[0], dtype=torch.int64)
    with pytest.raises(ValueError, match=r"\(N, 1, S, S\) with S from 10 to 84, got \(\d, \d, "):
        place_in_clutter(Split(torch.ones(shape), count, count), seed=0)


@pytest.mark.parametrize("side", [PIECE, CANVAS])
def test_the_smallest_and_the_largest_pictures(side):
    split = replace(SOME, images=torch.ones(40, 1, side, side))
    placed, found = place_in_clutter(split, seed=0)
    assert (area(found) == side**2).all()
    assert (placed.images.sum((1, 2, 3)) >= side**2).all()


def test_a_black_picture_has_no_place():
    images = SOME.images.clone()
    images[7] = 0.1
    with pytest.raises(ValueError, match="got nothing in number 7"):
        place_in_clutter(replace(SOME, images=images), seed=0)
