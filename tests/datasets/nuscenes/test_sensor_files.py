import numpy as np
import pytest

from datasets.nuscenes.sensor_files import RADAR_DTYPE, RadarFilter, read_lidar, read_radar
from detector.errors import InputError
from tests.writers.nuscenes import RADAR_FIELDS, write_lidar, write_radar


def targets(count: int) -> np.ndarray:
    """Every field of every target another number."""
    array = np.zeros(count, RADAR_DTYPE)
    for column, name in enumerate(RADAR_DTYPE.names):
        array[name] = np.arange(count) + column
    return array


def test_a_radar_target_takes_43_bytes():
    assert RADAR_DTYPE.itemsize == 43


@pytest.mark.parametrize("padding", [0, 1, 4096])
@pytest.mark.parametrize("count", [0, 1, 5])
def test_radar_takes_as_many_points_as_the_header_says(tmp_path, count, padding):
    write_radar(tmp_path / "a.pcd", targets(count), padding)
    found = read_radar(tmp_path / "a.pcd")
    assert found.dtype == RADAR_DTYPE
    np.testing.assert_array_equal(found, targets(count))


def test_real_radar_files_hold_125_points(real_data):
    files = sorted((real_data / "nuscenes").glob("*RADAR*.pcd"))
    assert len(files) == 2
    for file in files:
        found = read_radar(file)
        assert len(found) == 125
        assert np.isin(found["invalid_state"], range(18)).all()
        assert np.isin(found["dyn_prop"], range(8)).all()
        assert (found["z"] == 0).all() and np.abs(found["x"]).max() < 300


def test_radar_equals_the_official_reader(real_data):
    devkit = pytest.importorskip("nuscenes.utils.data_classes")
    for file in (real_data / "nuscenes").glob("*RADAR*.pcd"):
        every = list(range(18))
        official = devkit.RadarPointCloud.from_file(str(file), every, every, every).points
        ours = read_radar(file)
        np.testing.assert_array_equal(np.stack([ours[n] for n in ours.dtype.names]), official)
        kept = ours[RadarFilter.official()(ours)]
        filtered = devkit.RadarPointCloud.from_file(str(file)).points
        np.testing.assert_array_equal(kept["x"], filtered[0])


def test_an_empty_radar_sweep_has_one_point_that_is_nan(tmp_path):
    array = targets(1)
    array["x"] = np.nan
    write_radar(tmp_path / "a.pcd", array)
    assert len(read_radar(tmp_path / "a.pcd")) == 0


def test_later_radar_targets_without_position_are_left_out(tmp_path):
    array = targets(3)
    array["y"][1] = np.nan
    write_radar(tmp_path / "a.pcd", array)
    assert read_radar(tmp_path / "a.pcd")["id"].tolist() == [4, 6]


def test_no_filter_keeps_stopped_cars_and_the_official_one_drops_them():
    array = np.zeros(2, RADAR_DTYPE)
    array["dyn_prop"] = [0, 7]
    array["ambig_state"] = 3
    assert RadarFilter()(array).tolist() == [True, True]
    assert RadarFilter.official()(array).tolist() == [True, False]


def test_a_truncated_radar_file_is_named(tmp_path):
    path = tmp_path / "a.pcd"
    write_radar(path, targets(4), 0)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(InputError, match=r"a\.pcd: POINTS is 4, which takes 172 bytes, but 171"):
        read_radar(path)


def test_a_radar_file_with_other_fields_is_named(tmp_path):
    write_radar(tmp_path / "a.pcd", targets(1), fields=RADAR_FIELDS.replace("rcs", "intensity"))
    with pytest.raises(InputError, match=r"a\.pcd: FIELDS is 'x y z dyn_prop id intensity"):
        read_radar(tmp_path / "a.pcd")


def test_a_radar_file_without_header_or_count_is_named(tmp_path):
    path = tmp_path / "a.pcd"
    path.write_bytes(b"VERSION 0.7\nDATA ascii\n1 2 3")
    with pytest.raises(InputError, match="no line 'DATA binary'"):
        read_radar(path)
    write_radar(path, targets(1))
    path.write_bytes(path.read_bytes().replace(b"POINTS 1", b"POINTS x"))
    with pytest.raises(InputError, match="POINTS is 'x'"):
        read_radar(path)


def test_lidar_points_that_are_not_finite_are_left_out(tmp_path):
    points = np.arange(15, dtype=np.float32).reshape(3, 5)
    points[1, 2] = np.inf
    write_lidar(tmp_path / "a.pcd.bin", points)
    np.testing.assert_array_equal(read_lidar(tmp_path / "a.pcd.bin"), points[[0, 2]])


def test_a_truncated_or_absent_lidar_file_is_named(tmp_path):
    (tmp_path / "a.pcd.bin").write_bytes(bytes(30))
    with pytest.raises(InputError, match=r"a\.pcd\.bin: 30 bytes is not a multiple of 20"):
        read_lidar(tmp_path / "a.pcd.bin")
    with pytest.raises(InputError, match=r"b\.pcd\.bin can't be read"):
        read_lidar(tmp_path / "b.pcd.bin")
