"""A simulated town, its traffic and the sensors that drive through it.

`town.draw_world` makes a world that is a function of time; `lidar.scan` and `camera.render` look
at a snapshot of it; `kitti_writer` puts what they see into KITTI's own files.
"""
