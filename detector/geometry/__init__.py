"""Boxes, frames and grids as pure functions. The project's conventions are stated here, once.

Box
    `(x, y, z, l, w, h, yaw)`, then `(vx, vy)` where velocity is known. Metres, radians, m/s.
    `(x, y, z)` is the geometric centre, `l` lies along the heading, `w` across it, `h` up.
    Yaw is counter-clockwise seen from above, 0 along +x, in [-pi, pi).
Ego frame
    x forward, y left, z up. KITTI: the Velodyne frame. nuScenes: the ego frame at the key frame.
    Waymo: the vehicle frame. Adapters convert on reading, metrics convert back.
Points
    float32 `(P, C)`; x, y, z first; the other columns are named by the sample: `intensity` in
    [0, 1], `age_s`, `rcs_dbsm`, `vx_comp`, `vy_comp`, `elongation`, ...
Voxel coordinates
    int32 `(V, 4)` = (batch, z, y, x), sorted by their linear index. A cell contains its lower
    faces and not its upper ones.
Transforms
    4 x 4, named `target_from_source`, applied to column vectors; they chain:
    `ego_from_lidar @ lidar_from_box`.
Classes
    a tuple of names in the config; labels index into it.
"""

from detector.geometry.boxes import box_corners, boxes_in_frame, wrap_angle
from detector.geometry.frames import inverse_rigid, rotation_z, transform_points
from detector.geometry.voxel_grid import VoxelGrid

__all__ = [
    "VoxelGrid",
    "box_corners",
    "boxes_in_frame",
    "inverse_rigid",
    "rotation_z",
    "transform_points",
    "wrap_angle",
]
