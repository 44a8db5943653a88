"""The KITTI object metric in plain loops with shapely polygons, written from its definition.

Objects are anything with attributes `type`, `truncation`, `occlusion`, `alpha`, `bbox`,
`dimensions` (h, w, l), `location`, `rotation_y`, `score`; one list of them a frame.
"""

import math

from shapely import Polygon

OVERLAP = {"car": 0.7, "pedestrian": 0.5, "cyclist": 0.5}
SIMILAR = {"car": "van", "pedestrian": "person_sitting", "cyclist": None}
LIMITS = {    # pixels, occlusion, truncation
    "easy": (40, 0, 0.15),
    "moderate": (25, 1, 0.3),
    "hard": (25, 2, 0.5),
}


def picture_sizes(a, b):
    left, top = max(a.bbox[0], b.bbox[0]), max(a.bbox[1], b.bbox[1])
    right, bottom = min(a.bbox[2], b.bbox[2]), min(a.bbox[3], b.bbox[3])
    shared = (right - left) * (bottom - top) if right > left and bottom > top else 0.0
    own = [(o.bbox[2] - o.bbox[0]) * (o.bbox[3] - o.bbox[1]) for o in (a, b)]
    return shared, *own


def footprint(o):
    _, w, l = o.dimensions
    x, _, z = o.location
    c, s = math.cos(o.rotation_y), math.sin(o.rotation_y)
    corners = [(l / 2, w / 2), (l / 2, -w / 2), (-l / 2, -w / 2), (-l / 2, w / 2)]
    return Polygon([(x + c * p + s * q, z - s * p + c * q) for p, q in corners])


def ground_sizes(a, b):
    if min(*a.dimensions, *b.dimensions) <= 0:
        return 0.0, 1.0, 1.0
    return (
        footprint(a).intersection(footprint(b)).area,
        a.dimensions[1] * a.dimensions[2],
        b.dimensions[1] * b.dimensions[2],
    )


def volume_sizes(a, b):
    shared, own_a, own_b = ground_sizes(a, b)
    bottom = min(a.location[1], b.location[1])    # y points down
    top = max(a.location[1] - a.dimensions[0], b.location[1] - b.dimensions[0])
    return shared * max(0.0, bottom - top), own_a * a.dimensions[0], own_b * b.dimensions[0]


SIZES = {"bbox": picture_sizes, "bev": ground_sizes, "3d": volume_sizes, "aos": picture_sizes}


def iou(metric, a, b):
    shared, own_a, own_b = SIZES[metric](a, b)
    return shared / (own_a + own_b - shared) if shared else 0.0


def covered_share(metric, a, b):
    shared, own_a, _ = SIZES[metric](a, b)
    return shared / own_a if shared else 0.0


def prepare(name, level, truths, detections):
    """(kept truths, does each count), (kept detections, does each count), regions not cared for."""
    min_height, max_occlusion, max_truncation = LIMITS[level]
    kept_truths = []
    for t in truths:
        if t.type.lower() == name:
            counts = (
                t.bbox[3] - t.bbox[1] > min_height
                and t.occlusion <= max_occlusion
                and t.truncation <= max_truncation
            )
            kept_truths.append((t, counts))
        elif t.type.lower() == SIMILAR[name]:
            kept_truths.append((t, False))
    kept_detections = []
    for d in detections:
        if abs(d.bbox[3] - d.bbox[1]) < min_height:
            kept_detections.append((d, False))
        elif d.type.lower() == name:
            kept_detections.append((d, True))
    return kept_truths, kept_detections, [t for t in truths if t.type.lower() == "dontcare"]


def match(name, metric, truths, detections, minimum_score):
    """Pairs (truth index, detection index); with a minimum score by overlap, else by score."""
    used, pairs = set(), []
    for i, (t, _) in enumerate(truths):
        options = []
        for j, (d, counts) in enumerate(detections):
            overlap = iou(metric, d, t)
            if j in used or overlap <= OVERLAP[name]:
                continue
            if minimum_score is None:
                options.append((d.score, -j))
            elif d.score >= minimum_score:
                # Those that count go first, by overlap; of the others the first in the file.
                options.append((counts, overlap if counts else 0, -j))
        if options:
            j = -max(options)[-1]
            used.add(j)
            pairs.append((i, j))
    return pairs


def thresholds(scores, truth_count):
    scores = sorted(scores, reverse=True)
    chosen, wanted = [], 0.0
    for i, score in enumerate(scores):
        recall, next_recall = (i + 1) / truth_count, (i + 2) / truth_count
        is_last = i == len(scores) - 1
        if is_last or abs(next_recall - wanted) >= abs(wanted - recall):
            chosen.append(score)
            wanted += 1 / 40
    return chosen


def precision_curve(name, metric, level, truth_frames, detection_frames):
    name = name.lower()
    frames = [
        prepare(name, level, t, d) for t, d in zip(truth_frames, detection_frames, strict=True)
    ]
    scores, truth_count = [], 0
    for truths, detections, _ in frames:
        truth_count += sum(counts for _, counts in truths)
        for i, j in match(name, metric, truths, detections, None):
            if truths[i][1] and detections[j][1]:
                scores.append(detections[j][0].score)
    curve = [0.0] * 41
    for step, threshold in enumerate(thresholds(scores, truth_count)):
        right = wrong = similarity = 0
        for truths, detections, regions in frames:
            pairs = match(name, metric, truths, detections, threshold)
            used = {j for _, j in pairs}
            for i, j in pairs:
                if truths[i][1] and detections[j][1]:
                    right += 1
                    turn = truths[i][0].alpha - detections[j][0].alpha
                    similarity += (1 + math.cos(turn)) / 2
            for j, (d, counts) in enumerate(detections):
                if counts and j not in used and d.score >= threshold:
                    wrong += all(covered_share(metric, d, r) <= OVERLAP[name] for r in regions)
        if right + wrong:
            curve[step] = (similarity if metric == "aos" else right) / (right + wrong)
    return [max(curve[step:]) for step in range(41)]


def average_precision(name, metric, level, truth_frames, detection_frames):
    """(R40, R11), percentages."""
    curve = precision_curve(name, metric, level, truth_frames, detection_frames)
    return 100 * sum(curve[1:]) / 40, 100 * sum(curve[::4]) / 11
