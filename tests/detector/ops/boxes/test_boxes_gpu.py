"""Boxes on a GPU against the CPU's."""

import pytest
import torch

from detector.ops.boxes import box_of_point, iou_3d, iou_bev, nms, points_in_boxes

pytestmark = pytest.mark.gpu


def boxes(count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    made = torch.rand(count, 9, generator=generator, dtype=torch.float64)
    made[:, :3] = made[:, :3] * 20 - 10
    made[:, 3:6] = made[:, 3:6] * 5 + 0.1
    made[:, 6] = made[:, 6] * 7 - 3.5
    if count > 6:
        made[1], made[2, 3], made[3, 4], made[4, 0] = made[0], 0, -1, torch.nan
        made[5, 6], made[6, 5] = torch.inf, torch.inf
    return made


@pytest.mark.parametrize("sizes", [(0, 5), (5, 0), (1, 1), (130, 257)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_overlaps(sizes, dtype):
    a, b = boxes(sizes[0]).to(dtype), boxes(sizes[1], 1).to(dtype)
    for function in (iou_bev, iou_3d):
        found = function(a.cuda(), b.cuda())
        assert found.dtype == dtype and found.is_cuda
        torch.testing.assert_close(found.cpu(), function(a, b), rtol=0, atol=1e-6)


@pytest.mark.parametrize("count", [0, 1, 63, 64, 65, 1000])
@pytest.mark.parametrize("threshold", [0.0, 0.2, 0.7, 1.0])
def test_suppression(count, threshold):
    made = boxes(count)
    scores = torch.rand(count, dtype=torch.float64).mul(20).round() / 20  # many are equal
    if count > 9:
        scores[9] = torch.nan
    kept = nms(made.cuda(), scores.cuda(), threshold)
    assert torch.equal(kept.cpu(), nms(made, scores, threshold))


@pytest.mark.parametrize(("points", "count"), [(0, 3), (3, 0), (1, 1), (5000, 40)])
def test_points(points, count):
    cloud = torch.rand(points, 4, dtype=torch.float64) * 20 - 10
    made = boxes(count)
    inside = points_in_boxes(cloud.cuda(), made.cuda())
    assert torch.equal(inside.cpu(), points_in_boxes(cloud, made))
    first = box_of_point(cloud.cuda(), made.cuda())
    assert torch.equal(first.cpu(), box_of_point(cloud, made))
