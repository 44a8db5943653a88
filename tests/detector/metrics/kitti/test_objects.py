import numpy as np
import pytest

from detector.metrics.kitti import KittiObjects


def fields(count):
    return dict(
        types=["Car"] * count,
        truncation=[0] * count,
        occlusion=[0] * count,
        alpha=[0] * count,
        bbox=np.zeros((count, 4), np.float32),
        dimensions=np.ones((count, 3)),
        location=np.ones((count, 3)),
        rotation_y=[0] * count,
    )


def test_fields_become_arrays_of_fixed_types():
    objects = KittiObjects(**fields(2), score=[1, 2])
    assert objects.types == ("Car", "Car")
    assert objects.occlusion.dtype == np.int64
    assert objects.bbox.dtype == objects.score.dtype == np.float64
    assert len(objects) == 2


def test_a_frame_may_be_empty():
    assert KittiObjects.empty().bbox.shape == (0, 4)
    assert KittiObjects.empty().score is None
    assert KittiObjects.empty(with_scores=True).score.shape == (0,)
    assert len(KittiObjects(**fields(0))) == 0


@pytest.mark.parametrize("name", ["truncation", "bbox", "location"])
def test_fields_that_do_not_fit_are_named(name):
    wrong = fields(2)
    wrong[name] = wrong[name][:1]
    with pytest.raises(ValueError, match=f"{name} must have shape"):
        KittiObjects(**wrong)
