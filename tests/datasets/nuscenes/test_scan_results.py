import dataclasses
import json

import numpy as np
import pytest

from datasets.nuscenes import results
from datasets.nuscenes.scan_results import scan_results
from tests.writers.nuscenes import write_nuscenes
from tests.writers.nuscenes_results import random_results


@pytest.fixture(scope="module")
def content(tmp_path_factory):
    folder = write_nuscenes(tmp_path_factory.mktemp("nuscenes"), objects_per_scene=30)
    return random_results(folder, nan_velocities=0.2)


def layouts(content: dict) -> dict[str, str]:
    """The same content written in different ways."""
    turned = {
        token: [dict(reversed(box.items())) for box in boxes]
        for token, boxes in content["results"].items()
    }
    points = {
        token: [{**box, "num_pts": number} for number, box in enumerate(boxes)]
        for token, boxes in content["results"].items()
    }
    return {
        "usual": json.dumps(content),
        "compact": json.dumps(content, separators=(",", ":")),
        "indented": json.dumps(content, indent=4) + "\n",
        "results first": json.dumps(dict(reversed(content.items()))),
        "keys turned": json.dumps({**content, "results": turned}),
        "points": json.dumps({**content, "results": points}),
        "empty samples": json.dumps({**content, "results": dict.fromkeys(content["results"], [])}),
        "no samples": json.dumps({**content, "results": {}}),
    }


@pytest.mark.parametrize("table_order", [False, True])
@pytest.mark.parametrize("layout", layouts({"meta": {}, "results": {}}))
def test_both_readers_agree_to_the_bit(tmp_path, content, layout, table_order):
    path = tmp_path / "results.json"
    path.write_text(layouts(content)[layout])
    tokens = sorted(json.loads(path.read_text())["results"])
    split = tokens[1:] if table_order else tokens
    assert scan_results(path) is not None
    fast, meta = results.read_results(path, split, tokens, table_order=table_order)
    slow, slow_meta = results._read_slowly(path, split, tokens, table_order)
    assert meta == slow_meta
    for field in dataclasses.fields(fast):
        ours, theirs = getattr(fast, field.name), getattr(slow, field.name)
        assert ours.dtype == theirs.dtype and ours.shape == theirs.shape
        np.testing.assert_array_equal(ours, theirs, field.name)


def test_a_file_cut_short_anywhere_is_left_to_the_slow_reader(tmp_path, content):
    path = tmp_path / "results.json"
    boxes = dict(list(content["results"].items())[:2])
    text = json.dumps({**content, "results": {k: v[:1] for k, v in boxes.items()}})
    for length in range(len(text)):
        path.write_text(text[:length])
        assert scan_results(path) is None, length


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"size"', '"sice"'),
        ('"size": [', '"size": [1.0, '),
        ('"detection_score": ', '"detection_score": null, "x": '),
        ('"sample_token": "', '"sample_token": "a'),
        ('"detection_name": "', '"detection_name": "\\\\u0020'),
        ('"attribute_name": "', '"attribute_name": "other'),
        ('"results": {', '"results": {"a": 1, '),
        ('"results": {', '"results": {"a": [1], '),
        ("}]", "}}"),
        ("}]}", "}]} {"),
    ],
)
def test_what_is_not_understood_is_left_to_the_slow_reader(tmp_path, content, old, new):
    path = tmp_path / "results.json"
    text = json.dumps(content)
    assert old in text
    path.write_text(text.replace(old, new, 1))
    assert scan_results(path) is None


def test_an_absent_file_is_left_to_the_slow_reader(tmp_path):
    assert scan_results(tmp_path / "absent.json") is None
