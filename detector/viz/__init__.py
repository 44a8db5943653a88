"""Pictures of frames: from above (`bev`), in the camera (`image`), in 3D (`scene`, `offscreen`,
`viewer`).

The same marks mean the same everywhere: a box has the colour of its class; where truth and
detections are drawn together, truth is dashed and detections are solid. Only `worker`, which runs
in a process of its own, imports Open3D.
"""
