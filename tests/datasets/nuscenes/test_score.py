"""The whole metric from files, against the official evaluator and against its figures."""

import json

import numpy as np
import pytest

from datasets.nuscenes.score import score_results
from detector.errors import InputError
from tests.oracles.nuscenes_devkit import numbers, official_summary
from tests.writers.nuscenes import change_rows, write_nuscenes
from tests.writers.nuscenes_results import random_results

VERSION = "v1.0-trainval"
CASES = {
    "usual": {},
    "sharp": {"noise_m": 0.1, "false_boxes": 0, "missing_attributes": 0.0},
    "no_car_and_no_bus": {"without": ("car", "bus")},
    "equal_scores": {"equal_scores": True},
    "nan_velocities": {"nan_velocities": 0.5, "missing_attributes": 1.0},
    "all_velocities_nan": {"nan_velocities": 1.0},
    "far_off": {"noise_m": 20.0},
}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("nuscenes")
    write_nuscenes(
        folder, version=VERSION, scene_names=("scene-0001", "scene-0003", "scene-0012"),
        samples_per_scene=5, objects_per_scene=90, seed=3,
    )  # fmt: skip
    splits = {"my_val": ["scene-0003", "scene-0001"], "empty": []}
    (folder / VERSION / "splits.json").write_text(json.dumps(splits))
    return folder


def write(root, tmp_path, split="val", **options):
    scenes = json.loads((root / VERSION / "scene.json").read_text())
    chosen = {"val": ("scene-0003", "scene-0012"), "my_val": ("scene-0003", "scene-0001")}[split]
    tokens = {row["token"] for row in scenes if row["name"] in chosen}
    samples = json.loads((root / VERSION / "sample.json").read_text())
    content = random_results(
        root / VERSION,
        samples={row["token"] for row in samples if row["scene_token"] in tokens},
        **options,
    )
    path = tmp_path / "results.json"
    path.write_text(json.dumps(content))
    return path


def assert_equal_numbers(ours: dict, official: dict):
    ours, official = numbers(json.loads(json.dumps(ours))), numbers(official)
    assert ours.keys() == official.keys()
    for key, expected in official.items():
        if isinstance(expected, float):
            np.testing.assert_allclose(ours[key], expected, rtol=0, atol=1e-9, err_msg=key)
        else:
            assert ours[key] == expected, key


@pytest.mark.parametrize("case", CASES)
def test_equals_the_official_evaluator(root, tmp_path, case):
    pytest.importorskip("nuscenes", reason="the official development kit is not installed")
    results = write(root, tmp_path, **CASES[case])
    result, meta = score_results(root, VERSION, results, "val")
    assert_equal_numbers(result.as_dict(meta), official_summary(root, VERSION, results, "val"))


def test_equals_the_official_evaluator_on_a_split_of_ones_own(root, tmp_path):
    pytest.importorskip("nuscenes", reason="the official development kit is not installed")
    results = write(root, tmp_path, split="my_val", equal_scores=True)
    result, meta = score_results(root, VERSION, results, "my_val")
    assert_equal_numbers(result.as_dict(meta), official_summary(root, VERSION, results, "my_val"))


# What nuscenes.eval.detection of nuscenes-devkit 1.2.0 prints for the "usual" case (2026-11-24).
GOLDEN = {
    "mean_ap": 0.3350085814667616,
    "nd_score": 0.2577591764842263,
    "tp_errors": {
        "trans_err": 0.8304209170566432,
        "scale_err": 0.4098710587021054,
        "orient_err": 1.355270437574757,
        "vel_err": 3.5966819806200023,
        "attr_err": 0.857159166732796,
    },
    "bicycle": {
        "0.5": 0.0016830663889487413,
        "1.0": 0.14653497676373492,
        "2.0": 0.3702945621110109,
        "4.0": 0.3702945621110109,
    },
}


def test_equals_figures_of_the_official_evaluator(root, tmp_path):
    result, _ = score_results(root, VERSION, write(root, tmp_path), "val")
    found = result.as_dict()
    for key in ("mean_ap", "nd_score"):
        assert found[key] == pytest.approx(GOLDEN[key], abs=1e-12)
    assert found["tp_errors"] == pytest.approx(GOLDEN["tp_errors"], abs=1e-12)
    assert found["label_aps"]["bicycle"] == pytest.approx(GOLDEN["bicycle"], abs=1e-12)


def test_an_empty_result_file_scores_zero(root, tmp_path):
    path = write(root, tmp_path)
    content = json.loads(path.read_text())
    content["results"] = {token: [] for token in content["results"]}
    path.write_text(json.dumps(content))
    result, _ = score_results(root, VERSION, path, "val")
    assert result.nd_score == 0 and result.mean_ap == 0


def spoil(change):
    def spoiled(content):
        change(next(boxes for boxes in content["results"].values() if boxes)[0])

    return spoiled


def drop_sample(content):
    content["results"].popitem()


BAD_RESULTS = {
    "foreign token": (lambda c: c["results"].update(f00d=[]), "f00d is in no table"),
    "missing sample": (drop_sample, "lacks 1 of the 10 samples"),
    "too many boxes": (
        lambda c: next(iter(c["results"].values())).extend([{}] * 500), "nuScenes allows 500"
    ),
    "no results": (lambda c: c.pop("results"), "no nuScenes result file"),
    "no meta": (lambda c: c.pop("meta"), 'lacks "meta"'),
    "no list": (lambda c: c["results"].update({next(iter(c["results"])): 3}), "no list of boxes"),
    "no size": (spoil(lambda box: box.pop("size")), "lacks size"),
    "short size": (spoil(lambda box: box.update(size=[1, 2])), r"has size \[1, 2\]"),
    "zero size": (None, "must be positive"),
    "text": (spoil(lambda box: box.update(translation="here")), "has translation here"),
    "nan": (spoil(lambda box: box.update(rotation=[float("nan")] * 4)), "4 finite numbers"),
    "nan score": (spoil(lambda box: box.update(detection_score=float("nan"))), "detection_score"),
    "negative": (spoil(lambda box: box.update(detection_score=-0.5)), "must not be negative"),
    "class": (spoil(lambda box: box.update(detection_name="tram")), "has detection_name 'tram'"),
    "attribute": (spoil(lambda box: box.update(attribute_name="red")), "has attribute_name 'red'"),
    "other sample": (spoil(lambda box: box.update(sample_token="x")), "names another sample, x"),
}  # fmt: skip


@pytest.mark.parametrize("fault", BAD_RESULTS)
def test_a_faulty_result_file_is_named(root, tmp_path, fault):
    change, message = BAD_RESULTS[fault]
    path = write(root, tmp_path)
    content = json.loads(path.read_text())
    if change is not None:
        change(content)
    else:
        for boxes in content["results"].values():
            for box in boxes:
                box["size"] = [0.0, 1.0, 1.0]
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match=message):
        score_results(root, VERSION, path, "val")


def test_broken_or_absent_result_file_is_named(root, tmp_path):
    (tmp_path / "broken.json").write_text('{"results": {')
    with pytest.raises(InputError, match=r"broken.json is not valid JSON"):
        score_results(root, VERSION, tmp_path / "broken.json", "val")
    with pytest.raises(InputError, match=r"absent.json can't be read"):
        score_results(root, VERSION, tmp_path / "absent.json", "val")


@pytest.mark.parametrize(
    ("split", "message"),
    [
        ("train", "samples outside the split"),
        ("test", "belongs to a version ending in 'test'"),
        ("nowhere", "there is no split nowhere; take one of .*my_val"),
        ("empty", "none of the 3 scenes"),
    ],
)
def test_a_wrong_split_is_named(root, tmp_path, split, message):
    path = write(root, tmp_path)
    if split == "train":
        content = json.loads(path.read_text())
        own = {row["token"]: [] for row in json.loads((root / VERSION / "sample.json").read_text())}
        content["results"] = own | content["results"]
        path.write_text(json.dumps(content))
    with pytest.raises(InputError, match=message):
        score_results(root, VERSION, path, split)


def test_test_version_without_annotations_is_named(tmp_path):
    folder = write_nuscenes(tmp_path, version="v1.0-test", scene_names=("scene-0077",))
    for table in ("sample_annotation", "instance"):
        change_rows(folder, table, lambda rows: [])
    tokens = [row["token"] for row in json.loads((folder / "sample.json").read_text())]
    path = tmp_path / "results.json"
    path.write_text(json.dumps({"meta": {}, "results": {token: [] for token in tokens}}))
    with pytest.raises(InputError, match="nothing to compare"):
        score_results(tmp_path, "v1.0-test", path)
