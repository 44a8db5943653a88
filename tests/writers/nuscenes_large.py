"""nuScenes tables of any size without sensor files, written row by row.

As in v1.0-trainval: 40 samples a scene at 2 Hz, a LiDAR at 20 Hz, five radars at 13 Hz, six cameras
at 12 Hz, 34 boxes a sample; 850 scenes make 2.6 million sensor files and 1.2 million boxes.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tests.writers.nuscenes import CATEGORIES, CHANNELS, _fixed_tables, token, write_tables

SAMPLES = 40
RATE_HZ = {"lidar": 20, "radar": 13, "camera": 12}
BOXES = 34


def write_large_tables(folder: Path, scenes: int) -> None:
    """Writes all 13 tables."""
    tables = _fixed_tables(())
    tables["scene"] = [
        {"token": f"{scene:032x}", "log_token": token("log"), "nbr_samples": SAMPLES,
         "first_sample_token": _sample(scene, 0), "description": "",
         "last_sample_token": _sample(scene, SAMPLES - 1), "name": f"scene-{scene + 1:04d}"}
        for scene in range(scenes)
    ]  # fmt: skip
    write_tables(folder, tables)
    _write(folder / "sample.json", (
        f'{{\n"token": "{_sample(s, i)}",\n"timestamp": {_time(s, i / 2)},\n'
        f'"prev": "{_sample(s, i - 1) if i else ""}",\n'
        f'"next": "{_sample(s, i + 1) if i + 1 < SAMPLES else ""}",\n"scene_token": "{s:032x}"\n}}'
        for s in range(scenes) for i in range(SAMPLES)
    ))  # fmt: skip
    _write(folder / "sample_data.json", _frames(scenes, "sample_data"))
    _write(folder / "ego_pose.json", _frames(scenes, "ego_pose"))
    _write(folder / "instance.json", (
        f'{{\n"token": "{s:028x}{b:04x}",\n"category_token": '
        f'"{token("category", CATEGORIES[b % len(CATEGORIES)])}",\n"nbr_annotations": {SAMPLES},\n'
        f'"first_annotation_token": "{_box(s, b, 0)}",\n'
        f'"last_annotation_token": "{_box(s, b, SAMPLES - 1)}"\n}}'
        for s in range(scenes) for b in range(BOXES)
    ))  # fmt: skip
    attribute = token("attribute", "vehicle.moving")
    _write(folder / "sample_annotation.json", (
        f'{{\n"token": "{_box(s, b, i)}",\n"sample_token": "{_sample(s, i)}",\n'
        f'"instance_token": "{s:028x}{b:04x}",\n"visibility_token": "4",\n'
        f'"attribute_tokens": [\n"{attribute}"\n],\n'
        f'"translation": [\n{373.214 + i * 0.731:.3f},\n{1130.48 + b:.3f},\n1.25\n],\n'
        f'"size": [\n0.621,\n0.669,\n1.642\n],\n'
        f'"rotation": [\n0.9831098797903927,\n0.0,\n0.0,\n-0.18301629506281616\n],\n'
        f'"prev": "{_box(s, b, i - 1) if i else ""}",\n'
        f'"next": "{_box(s, b, i + 1) if i + 1 < SAMPLES else ""}",\n'
        f'"num_lidar_pts": {b},\n"num_radar_pts": 0\n}}'
        for s in range(scenes) for b in range(BOXES) for i in range(SAMPLES)
    ))  # fmt: skip


def _frames(scenes: int, table: str) -> Iterator[str]:
    duration_s = (SAMPLES - 1) / 2
    for scene in range(scenes):
        for number, (channel, modality) in enumerate(CHANNELS.items()):
            calibrated = token("cs", channel)
            count = round(duration_s * RATE_HZ[modality]) + 1
            keys = {round(i / 2 * RATE_HZ[modality]): i for i in range(SAMPLES)}
            extension = {"lidar": "pcd.bin", "radar": "pcd", "camera": "jpg"}[modality]
            sample = 0
            for frame in range(count):
                own, time = _frame(scene, number, frame), _time(scene, frame / RATE_HZ[modality])
                is_key = frame in keys
                sample = keys.get(frame, sample)
                if table == "ego_pose":
                    yield (
                        f'{{\n"token": "{own}",\n"timestamp": {time},\n"rotation": [\n'
                        f"0.5720320396729045,\n-0.0016977771610471074,\n0.011798001930183783,\n"
                        f"-0.8201446642457809\n],\n"
                        f'"translation": [\n{411.3039349319818 + frame:.13f},\n'
                        f"1180.8903791765097,\n0.0\n]\n}}"
                    )
                    continue
                name = f"n015-2018-07-24-11-22-45+0800__{channel}__{time}.{extension}"
                yield (
                    f'{{\n"token": "{own}",\n"sample_token": "{_sample(scene, sample)}",\n'
                    f'"ego_pose_token": "{own}",\n"calibrated_sensor_token": "{calibrated}",\n'
                    f'"timestamp": {time},\n"fileformat": "{extension[:3]}",\n'
                    f'"is_key_frame": {"true" if is_key else "false"},\n"height": 0,\n'
                    f'"width": 0,\n'
                    f'"filename": "{"samples" if is_key else "sweeps"}/{channel}/{name}",\n'
                    f'"prev": "{_frame(scene, number, frame - 1) if frame else ""}",\n'
                    f'"next": "{_frame(scene, number, frame + 1) if frame + 1 < count else ""}"\n}}'
                )


def _write(path: Path, rows: Iterator[str]) -> None:
    with path.open("w") as file:
        file.write("[\n")
        for number, row in enumerate(rows):
            file.write(f",\n{row}" if number else row)
        file.write("\n]")


def _time(scene: int, seconds: float) -> int:
    return 1_532_402_927_000_000 + scene * 40_000_000 + round(seconds * 1e6)


def _sample(scene: int, number: int) -> str:
    return f"{scene:024x}{number:04x}aaaa"


def _frame(scene: int, channel: int, number: int) -> str:
    return f"{scene:020x}{channel:04x}{number:04x}bbbb"


def _box(scene: int, box: int, number: int) -> str:
    return f"{scene:020x}{box:04x}{number:04x}cccc"
