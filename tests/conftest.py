"""What all tests share."""

import os
from pathlib import Path

import pytest

import detector  # noqa: F401  before torch: it quiets OpenMP's threads, see there

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder with small real pieces of KITTI, nuScenes and Waymo; tests skip where it is absent."""
    folder = Path(os.environ.get("FOCAL3D_REAL_DATA", REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"real sensor data is not at {folder}; set FOCAL3D_REAL_DATA")
    return folder
