import pytest

from datasets.kitti_results import pair_results
from detector.errors import InputError


@pytest.fixture
def folders(tmp_path):
    """Makes folders `labels` and `results` with the files named."""

    def make(labels, results, results_folder="results"):
        for folder, names in (("labels", labels), (results_folder, results)):
            (tmp_path / folder).mkdir(parents=True)
            for name in names:
                (tmp_path / folder / name).touch()
        return tmp_path / "labels", tmp_path / "results"

    return make


def test_files_go_together_by_name(folders, tmp_path):
    labels, results = folders(["000002.txt", "000001.txt"], ["000001.txt", "000002.txt"])
    assert pair_results(labels, results) == [
        (labels / "000001.txt", results / "000001.txt"),
        (labels / "000002.txt", results / "000002.txt"),
    ]


def test_a_split_chooses_and_orders(folders, tmp_path):
    labels, results = folders(["1.txt", "2.txt", "3.txt"], ["3.txt", "2.txt", "9.txt"])
    (tmp_path / "val.txt").write_text("3\n2\n")
    pairs = pair_results(labels, results, tmp_path / "val.txt")
    assert [label.stem for label, _ in pairs] == ["3", "2"]


def test_results_may_lie_in_data_as_in_a_submission(folders, tmp_path):
    labels, results = folders(["1.txt"], ["1.txt"], "results/data")
    assert pair_results(labels, results) == [(labels / "1.txt", results / "data" / "1.txt")]


@pytest.mark.parametrize(
    "labels, results, split, message",
    [
        (["1.txt", "2.txt"], ["2.txt"], None, "no result for 1 of 2 frames, the first is 1; write"),
        (["1.txt"], ["1.txt", "notes.txt"], None, "no label in .* 1 of 2 frames, .* notes; remove"),
        (["1.txt"], [], "1", "no result for 1 of 1 frames, the first is 1; write an empty file"),
        (["1.txt"], ["1.txt"], "1\n2", "labels: no label for 1 of 2 frames, the first is 2; check"),
        ([], [], None, "labels: no label files"),
        (["1.txt"], ["1.txt"], "", "lists no frame"),
    ],
)
def test_frames_without_a_partner_are_named(folders, tmp_path, labels, results, split, message):
    if split is not None:
        (tmp_path / "val.txt").write_text(split)
        split = tmp_path / "val.txt"
    with pytest.raises(InputError, match=message):
        pair_results(*folders(labels, results), split)


def test_missing_folders_are_named(folders, tmp_path):
    labels, results = folders([], [])
    with pytest.raises(InputError, match="nowhere: no such folder; give the folder with the lab"):
        pair_results(tmp_path / "nowhere", results)
    with pytest.raises(InputError, match="nowhere: no such folder; give the folder with the res"):
        pair_results(labels, tmp_path / "nowhere")
