import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from detector.ops.boxes import box_of_point, cpu, iou_3d, iou_bev, nms, points_in_boxes, reference
from detector.ops.threads import in_threads
from tests.oracles import boxes as oracle

BAD = (math.nan, math.inf, -math.inf)
# Multiples of 1/4 and of 90 degrees make corners, edges and faces meet exactly.
ANGLES = st.one_of(st.floats(-10, 10), st.sampled_from([0.0, math.pi / 2, -math.pi, math.pi / 4]))
PLACES = st.one_of(st.floats(-4, 4), st.integers(-16, 16).map(lambda n: n / 4))
SIZES = st.one_of(st.floats(0.01, 6), st.integers(1, 24).map(lambda n: n / 4))
BOXES = st.tuples(PLACES, PLACES, PLACES, SIZES, SIZES, SIZES, ANGLES)


def random_boxes(count, seed, spread=5.0, dtype=torch.float64):
    rng = np.random.default_rng(seed)
    boxes = np.concatenate(
        [
            rng.uniform(-spread, spread, (count, 3)),
            rng.uniform(0.2, 5, (count, 3)),
            rng.uniform(-4, 4, (count, 1)),
        ],
        1,
    )
    return torch.from_numpy(boxes).to(dtype)


@settings(deadline=None, max_examples=150)
@given(st.lists(BOXES, max_size=4), st.lists(BOXES, max_size=4))
def test_overlap_is_shapelys(first, second):
    a = torch.tensor(first, dtype=torch.float64).reshape(-1, 7)
    b = torch.tensor(second, dtype=torch.float64).reshape(-1, 7)
    for ours, theirs in ((iou_bev, oracle.iou_bev), (iou_3d, oracle.iou_3d)):
        expected = torch.tensor([[theirs(p, q) for q in second] for p in first])
        assert torch.allclose(ours(a, b), expected.double().reshape(len(a), len(b)), atol=1e-9)


@settings(deadline=None, max_examples=100)
@given(st.lists(BOXES, max_size=6), st.lists(BOXES, max_size=6))
def test_kernels_agree_with_the_reference(first, second):
    a = torch.tensor(first, dtype=torch.float64).reshape(-1, 7)
    b = torch.tensor(second, dtype=torch.float64).reshape(-1, 7)
    assert torch.allclose(iou_bev(a, b), reference.iou_bev(a, b), atol=1e-12)
    assert torch.allclose(iou_3d(a, b), reference.iou_3d(a, b), atol=1e-12)
    assert torch.equal(points_in_boxes(a, b), reference.points_in_boxes(a, b))
    assert torch.equal(box_of_point(a, b), reference.box_of_point(a, b))


@settings(deadline=None, max_examples=100)
@given(
    BOXES,
    st.floats(-1e5, 1e5),
    st.sampled_from([0, 1, 2, 3]),
    st.sampled_from([1e-6, 1.0, 1e3]),
)
def test_a_box_overlaps_itself_wholly_wherever_it_is(box, shift, half_turns, scale):
    box = torch.tensor([box], dtype=torch.float64)
    box[:, 3:6] *= scale
    box[:, :3] += shift
    turned = box.clone()
    turned[:, 6] += half_turns * math.pi
    assert iou_bev(box, turned).item() == pytest.approx(1, abs=1e-12)
    assert iou_3d(box, turned).item() == pytest.approx(1, abs=1e-12)


@settings(deadline=None, max_examples=100)
@given(BOXES, BOXES, ANGLES, st.floats(-50, 50), st.floats(-50, 50))
def test_overlap_is_symmetric_and_moves_with_the_boxes(first, second, turn, dx, dy):
    a, b = (torch.tensor([box], dtype=torch.float64) for box in (first, second))
    iou = iou_3d(a, b)
    assert torch.allclose(iou_3d(b, a), iou, atol=1e-11)
    assert 0 <= iou.item() <= 1
    cos, sin = math.cos(turn), math.sin(turn)
    spin = torch.tensor([[cos, -sin], [sin, cos]], dtype=torch.float64)
    for box in (a, b):
        box[:, :2] = box[:, :2] @ spin.T + torch.tensor([dx, dy], dtype=torch.float64)
        box[:, 6] += turn
    assert torch.allclose(iou_3d(a, b), iou, atol=1e-10)


def test_known_overlaps():
    a = torch.tensor([[0.0, 0, 0, 4, 2, 2, 0]])
    b = torch.tensor(
        [
            [0.0, 0, 0, 4, 2, 2, math.pi],  # the same turned round
            [4, 0, 0, 4, 2, 2, 0],  # touching along a side
            [4, 2, 0, 4, 2, 2, 0],  # touching at a corner
            [1, 0, 0, 2, 1, 1, 0],  # inside, one side shared
            [0, 0, 0, 4, 2, 2, math.pi / 2],  # crossed: 2 x 2 shared
            [2, 0, 1, 4, 2, 2, 0],  # half along x, half along z
            [0, 0, 2, 4, 2, 2, 0],  # stacked
            [100, 0, 0, 4, 2, 2, 0],
        ]
    )
    assert iou_bev(a, b)[0].tolist() == pytest.approx([1, 0, 0, 1 / 4, 1 / 3, 1 / 3, 1, 0])
    assert iou_3d(a, b)[0].tolist() == pytest.approx([1, 0, 0, 1 / 8, 1 / 3, 1 / 7, 0, 0])


def test_a_square_turned_by_45_degrees_shares_an_octagon():
    square = torch.tensor([[0.0, 0, 0, 2, 2, 2, 0], [0, 0, 0, 2, 2, 2, math.pi / 4]])
    area = cpu.overlap_bev(square[:1].double().numpy(), square[1:].double().numpy())
    assert area[0, 0] == pytest.approx(8 * (math.sqrt(2) - 1), abs=1e-6)    # 3.3137
    assert iou_3d(square[:1], square[1:]).item() == pytest.approx(1 / math.sqrt(2), abs=1e-6)


def test_cubes_shifted_by_half_along_every_axis_share_a_fifteenth():
    cubes = torch.tensor([[1.0, 1, 1, 2, 2, 2, 0], [2, 2, 2, 2, 2, 2, 0]])
    assert iou_3d(cubes[:1], cubes[1:]).item() == pytest.approx(1 / 15)


@pytest.mark.parametrize("column", range(7))
@pytest.mark.parametrize("value", BAD)
def test_numbers_that_are_not_finite_overlap_and_contain_nothing(column, value):
    good = torch.tensor([[1.0, 2, 3, 4, 2, 1.5, 0.3]])
    bad = good.clone()
    bad[0, column] = value
    both = torch.cat([bad, good])
    for overlap in (iou_bev, iou_3d, reference.iou_bev, reference.iou_3d):
        assert overlap(both, both).tolist() == [[0, 0], [0, pytest.approx(1)]]
    for inside in (points_in_boxes, reference.points_in_boxes):
        assert inside(good, both).tolist() == [[False, True]]
    assert box_of_point(good, both).tolist() == [1]
    assert nms(both, torch.tensor([0.9, 0.8]), 0.5).tolist() == [0, 1]


@pytest.mark.parametrize("column", (3, 4, 5))
@pytest.mark.parametrize("size", (0.0, -0.0, -1.0, -1e-30))
def test_boxes_without_extent_overlap_and_contain_nothing(column, size):
    good = torch.tensor([[1.0, 2, 3, 4, 2, 1.5, 0.3]])
    flat = good.clone()
    flat[0, column] = size
    for overlap in (iou_bev, iou_3d, reference.iou_bev, reference.iou_3d):
        assert overlap(flat, torch.cat([flat, good])).tolist() == [[0, 0]]
    for inside in (points_in_boxes, reference.points_in_boxes):
        assert inside(good, flat).tolist() == [[False]]


def test_tiny_boxes_keep_their_overlap():
    box = torch.tensor([[50.0, 3, 0, 1e-9, 1e-9, 1e-9, 0.4]], dtype=torch.float64)
    half = box.clone()
    half[0, 5] /= 2
    assert iou_3d(box, half).item() == pytest.approx(0.5)
    assert iou_bev(box, torch.tensor([[50.0, 3, 0, 4, 4, 4, 0]]).double()).item() == pytest.approx(
        1e-18 / 16
    )


@pytest.mark.parametrize("dtype", (torch.float16, torch.bfloat16, torch.float32, torch.float64))
def test_dtype_of_the_input_comes_back(dtype):
    boxes = random_boxes(5, 0).to(dtype)
    exact = reference.iou_bev(boxes, boxes)
    assert iou_bev(boxes, boxes).dtype == dtype
    assert torch.allclose(iou_bev(boxes, boxes.double()), exact, atol=1e-12)
    tolerance = torch.finfo(dtype).eps  # one rounding of a number below 1
    assert torch.allclose(iou_bev(boxes, boxes).double(), exact, atol=tolerance)


def test_further_columns_and_strides_are_accepted():
    boxes = random_boxes(6, 1)
    wide = torch.cat([boxes, torch.full((6, 2), math.nan)], 1)
    strided = torch.stack([wide, wide], 1)[:, 0]
    assert torch.equal(iou_3d(strided, wide.T.contiguous().T), iou_3d(boxes, boxes))


def test_no_gradient_is_carried():
    boxes = random_boxes(2, 2).requires_grad_()
    assert not iou_3d(boxes, boxes).requires_grad


@pytest.mark.parametrize("rows, columns", [(0, 0), (0, 3), (3, 0), (1, 1), (400, 301)])
def test_any_number_of_boxes(rows, columns, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    a, b = random_boxes(rows, 3, spread=20), random_boxes(columns, 4, spread=20)
    assert iou_bev(a, b).shape == (rows, columns)
    assert torch.allclose(iou_bev(a, b), reference.iou_bev(a, b), atol=1e-12)
    pairs = np.random.default_rng(0).integers(0, max(rows, 1), (2, 5000 if rows * columns else 0))
    rows_a, rows_b = pairs[0], pairs[1] % max(columns, 1)
    listed = cpu.overlap_of_pairs(a.numpy(), b.numpy(), rows_a, rows_b, volume=True)
    assert np.array_equal(listed, iou_3d(a, b).numpy()[rows_a, rows_b])


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.tuples(BOXES, st.integers(0, 5)), max_size=12),
    st.sampled_from([0.0, 0.1, 0.3, 0.5, 1.0]),
)
def test_nms_keeps_what_the_definition_keeps(candidates, threshold):
    boxes = torch.tensor([box for box, _ in candidates], dtype=torch.float64).reshape(-1, 7)
    scores = torch.tensor([score for _, score in candidates], dtype=torch.float64)
    kept = nms(boxes, scores, threshold)
    assert kept.dtype == torch.int64
    # Each may round an overlap, in either order of the pair, to its own side of the threshold.
    over = iou_bev(boxes, boxes) > threshold
    references = reference.iou_bev(boxes, boxes) > threshold
    shapelys = [[oracle.iou_bev(p, q) > threshold for q, _ in candidates] for p, _ in candidates]
    if torch.equal(over, over.T) and torch.equal(over, references):
        assert torch.equal(kept, reference.nms(boxes, scores, threshold))
    if torch.equal(over, over.T) and over.tolist() == shapelys:
        assert kept.tolist() == oracle.nms(boxes.tolist(), scores.tolist(), threshold)


def test_nms_threshold_is_strict():
    boxes = torch.tensor([[0.0, 0, 0, 4, 2, 2, 0], [2, 0, 0, 4, 2, 2, 0]])    # IoU 1/3
    scores = torch.tensor([0.5, 0.9])
    assert nms(boxes, scores, 1 / 3).tolist() == [1, 0]
    assert nms(boxes, scores, 0.33).tolist() == [1]


def test_nms_of_equal_boxes_keeps_the_first_and_nan_scores_come_last():
    boxes = torch.tensor([[0.0, 0, 0, 4, 2, 2, 0]]).repeat(3, 1)
    assert nms(boxes, torch.tensor([0.5, 0.5, 0.5]), 1.0).tolist() == [0, 1, 2]
    assert nms(boxes, torch.tensor([0.5, 0.5, 0.5]), 0.5).tolist() == [0]
    assert nms(boxes, torch.tensor([math.nan, -1.0, 0.2]), 1.0).tolist() == [2, 1, 0]


def test_nms_of_many_boxes_is_the_references():
    boxes = random_boxes(300, 42, spread=12)
    scores = torch.from_numpy(np.random.default_rng(5).random(300))
    assert torch.equal(nms(boxes, scores, 0.3), reference.nms(boxes, scores, 0.3))


def test_points_on_faces_are_inside():
    box = torch.tensor([[1.0, 2, 3, 4, 2, 1, 0]])
    on_faces = torch.tensor(
        [[3.0, 2, 3], [-1, 2, 3], [1, 3, 3], [1, 1, 3], [1, 2, 3.5], [3, 3, 2.5]]
    )
    outside = torch.nextafter(on_faces, on_faces + (on_faces - box[:, :3]))
    assert points_in_boxes(on_faces, box).all()
    assert not points_in_boxes(outside, box).any()


def test_points_in_a_turned_box():
    box = torch.tensor([[10.0, 0, 0, 4, 1, 2, math.radians(30)]])
    along = torch.tensor([math.cos(math.radians(30)), math.sin(math.radians(30)), 0])
    points = box[:, :3] + torch.tensor([[-2.1], [-1.9], [0], [1.9], [2.1]]) * along
    assert points_in_boxes(points, box)[:, 0].tolist() == [False, True, True, True, False]


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(PLACES, PLACES, PLACES), max_size=8), st.lists(BOXES, max_size=4))
def test_points_in_boxes_is_the_loops(points, boxes):
    table = [[oracle.contains(box, point) for box in boxes] for point in points]
    points = torch.tensor(points, dtype=torch.float64).reshape(-1, 3)
    boxes = torch.tensor(boxes, dtype=torch.float64).reshape(-1, 7)
    expected = torch.tensor(table, dtype=torch.bool).reshape(len(points), len(boxes))
    assert torch.equal(points_in_boxes(points, boxes), expected)
    first = [row.index(True) if True in row else -1 for row in table]
    assert box_of_point(points, boxes).tolist() == first


def test_many_points_are_shared_out_to_threads(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    points = torch.from_numpy(np.random.default_rng(6).uniform(-9, 9, (50_001, 4))).float()
    boxes = random_boxes(20, 7, dtype=torch.float32)
    assert torch.equal(points_in_boxes(points, boxes), reference.points_in_boxes(points, boxes))
    assert torch.equal(box_of_point(points, boxes), reference.box_of_point(points, boxes))
    points[:, 0] = math.nan
    assert not points_in_boxes(points, boxes).any()


def test_threads_pass_on_what_went_wrong(monkeypatch):
    def fails(start, stop):
        raise RuntimeError(f"piece {start}")

    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    with pytest.raises(RuntimeError, match="piece"):
        in_threads(fails, 10**6)


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda b, s: iou_bev(b[:, :6], b), ValueError, r"a must have shape \(N, 7 or more\)"),
        (lambda b, s: iou_3d(b, b[0]), ValueError, r"b must have shape"),
        (lambda b, s: iou_bev(b.long(), b), TypeError, "a must be of a floating-point dtype"),
        (lambda b, s: iou_bev(b.to("meta"), b), ValueError, "a is on meta and b on cpu"),
        (lambda b, s: nms(b, s[:-1], 0.5), ValueError, r"scores must have shape \(3,\)"),
        (lambda b, s: nms(b, s, 1.5), ValueError, r"iou_threshold must lie in \[0, 1\], got 1.5"),
        (lambda b, s: nms(b, s, math.nan), ValueError, "iou_threshold"),
        (lambda b, s: points_in_boxes(b[:, :2], b), ValueError, "points must have shape"),
        (lambda b, s: box_of_point(b.long(), b), TypeError, "points must be of a floating"),
    ],
)
def test_wrong_tensors_are_named(call, error, message):
    with pytest.raises(error, match=message):
        call(random_boxes(3, 8), torch.rand(3))
