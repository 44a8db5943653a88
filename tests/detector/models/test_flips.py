import numpy as np
import pytest
import torch

from detector.config import build_model, load_config
from detector.geometry import VoxelGrid, wrap_angle
from detector.models.decode import decode_boxes
from detector.models.flips import FLIPS, check_symmetric, flipped, mean_maps
from detector.models.heads import TaskMaps
from detector.models.targets import BEVGrid
from detector.records import Sample, collate
from tests.conftest import REPOSITORY

GRID = VoxelGrid((-4, -2, -1, 4, 2, 1), (0.5, 0.5, 1.0))
BEV = BEVGrid.of(GRID, 2, (4, 8))


def mirrored_boxes(boxes, signs):
    """Boxes as a mirror shows them."""
    x, y = signs
    result = boxes.clone()
    result[:, 0] *= x
    result[:, 1] *= y
    yaw = boxes[:, 6]
    yaw = torch.pi - yaw if x < 0 else yaw
    result[:, 6] = wrap_angle(-yaw if y < 0 else yaw)
    result[:, 7] *= x
    result[:, 8] *= y
    return result


@pytest.mark.parametrize("signs", FLIPS)
def test_boxes_of_a_mirror_image_turn_back_into_the_frames(signs):
    torch.manual_seed(0)
    maps = TaskMaps(torch.randn(2, 3, 4, 8), torch.randn(2, 10, 4, 8), torch.randn(2, 1, 4, 8))
    (back,) = mean_maps([(signs, [maps])])
    for y in range(4):
        for x in range(8):
            there = (3 - y if signs[1] < 0 else y) * 8 + (7 - x if signs[0] < 0 else x)
            here = y * 8 + x
            cell = torch.tensor([here]), torch.tensor([there])
            rows = [m.regression[:1].flatten(2)[..., c].reshape(1, -1)
                    for m, c in ((back, here), (maps, there))]  # fmt: skip
            seen = decode_boxes(rows[1], cell[1], BEV)
            torch.testing.assert_close(
                decode_boxes(rows[0], cell[0], BEV), mirrored_boxes(seen, signs),
                atol=1e-5, rtol=1e-5,
            )  # fmt: skip
            torch.testing.assert_close(
                back.heatmap.flatten(2)[..., here], maps.heatmap.flatten(2)[..., there],
                atol=1e-4, rtol=1e-4,
            )  # fmt: skip


def test_the_mean_is_of_probabilities():
    a, b = torch.full((1, 1, 4, 8), -3.0), torch.full((1, 1, 4, 8), 3.0)
    zeros = torch.zeros(1, 8, 4, 8)
    (mean,) = mean_maps([((1, 1), [TaskMaps(heatmap, zeros, None)]) for heatmap in (a, b)])
    torch.testing.assert_close(mean.heatmap, torch.zeros_like(a), atol=1e-5, rtol=0)
    assert mean.quality is None


def test_points_and_their_velocities_mirror():
    points = np.arange(12, dtype=np.float32).reshape(2, 6)
    batch = collate([Sample("a", points, tuple("xyzabc"))])
    seen = flipped(batch, (-1, 1), (3, 4)).points.numpy()
    np.testing.assert_array_equal(seen, points * [-1, 1, 1, -1, 1, 1])
    np.testing.assert_array_equal(batch.points.numpy(), points)
    np.testing.assert_array_equal(
        flipped(batch, (1, -1), None).points.numpy(), points * [1, -1, 1, 1, 1, 1]
    )


def test_a_mirrored_frame_gives_mirrored_detections():
    """Only the mean of all four images can do that."""
    torch.manual_seed(0)
    path = REPOSITORY / "configs" / "nuscenes" / "simulated_radar_pointpillars.py"
    model = build_model(load_config(path, ["model.double_flip=True"])).eval()
    rng = np.random.default_rng(0)
    points = rng.normal(0, [12, 12, 0.5, 5, 2, 2, 0.2], (300, 7)).astype(np.float32)
    frames = collate([Sample("a", points, tuple("xyzabcd"))])
    (found,) = model.predict(frames)
    (seen,) = model.predict(flipped(frames, (-1, 1), model.velocity_columns))
    assert len(found) == len(seen) > 0
    torch.testing.assert_close(found.scores, seen.scores, atol=1e-4, rtol=1e-4)
    best = mirrored_boxes(found.boxes[:1], (-1, 1))
    nearest = (seen.boxes[:, :2] - best[:, :2]).norm(dim=1).argmin()
    torch.testing.assert_close(seen.boxes[nearest, :6], best[0, :6], atol=1e-2, rtol=1e-3)


@pytest.mark.parametrize(
    "grid",
    [
        VoxelGrid((0, -2, -1, 8, 2, 1), (0.5, 0.5, 1.0)),
        VoxelGrid((-4, -2, -1, 4, 3, 1), (0.5, 0.5, 1.0)),
        VoxelGrid((-4.5, -2, -1, 4.5, 2, 1), (0.5, 0.5, 1.0)),
    ],
)
def test_a_grid_that_is_not_symmetric_is_refused(grid):
    check_symmetric(GRID, 2)
    with pytest.raises(ValueError, match="double_flip needs a range symmetric"):
        check_symmetric(grid, 4)
