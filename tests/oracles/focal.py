"""The focal convolution and its loss, voxel by voxel in loops; imports no production code.

Written from the paper (arXiv 2204.12463, section 3) and a reading of the published code, without
the faults that `detector.sparse.focal` lists.
"""

import math

import torch


def offsets_of(kernel_size):
    reach = [range(-(size // 2), size // 2 + 1) for size in kernel_size]
    return [(i, j, k) for i in reach[0] for j in reach[1] for k in reach[2]]


def submanifold(features, sites, weight):
    """{cell: (C,)} on the given sites from {cell: (C,)}; weight (kz, ky, kx, in, out)."""
    matrices = weight.flatten(0, 2)
    out = {}
    for b, z, y, x in sites:
        total = torch.zeros(weight.shape[-1], dtype=weight.dtype)
        for matrix, (i, j, k) in zip(matrices, offsets_of(weight.shape[:3]), strict=True):
            cell = b, z + i, y + j, x + k
            if cell in features:
                total = total + features[cell] @ matrix
        out[b, z, y, x] = total
    return out


def focal_conv(
    features, cells, shape, weight, importance_weight, *,
    top_k=True, threshold=0.5, gate_by_own_importance=False, mask_kernel=True,
):  # fmt: skip
    """(out features, out cells in sorted order, own logits); `cells` is a list of tuples."""
    at = dict(zip(cells, features, strict=True))
    logits = submanifold(at, cells, importance_weight)
    around = [offset for offset in offsets_of(weight.shape[:3]) if any(offset)]

    foreground = set()
    for frame in {cell[0] for cell in cells}:
        of_frame = [cell for cell in cells if cell[0] == frame]
        if top_k:
            of_frame.sort(key=lambda cell: -float(logits[cell][-1].detach()))
            foreground.update(of_frame[: int(len(of_frame) * threshold)])
        else:
            sure = {cell: float(logits[cell][-1].detach().sigmoid()) for cell in of_frame}
            foreground.update(cell for cell in of_frame if sure[cell] > threshold)

    received = {}
    for cell in cells:
        if cell not in foreground:
            continue
        for offset, logit in zip(around, logits[cell][:-1], strict=True):
            target = tuple(c + o for c, o in zip(cell[1:], offset, strict=True))
            inside = all(0 <= t < n for t, n in zip(target, shape, strict=True))
            if inside and float(logit.detach().sigmoid()) >= threshold:
                received.setdefault((cell[0], *target), []).append(logit.sigmoid())

    gated = {}
    for cell in cells:
        gated[cell] = at[cell]
        if gate_by_own_importance:
            gated[cell] = gated[cell] * logits[cell][-1].sigmoid()
        if mask_kernel and cell in foreground and cell in received:
            hits = received[cell]
            gated[cell] = gated[cell] * (1 + sum(hits)) / (1 + len(hits))

    out_cells = sorted(set(cells) | set(received))
    out = submanifold(gated, out_cells, weight)
    own = torch.stack([logits[cell][-1] for cell in cells])
    return torch.stack([out[cell] for cell in out_cells]), out_cells, own


def importance_loss(own_logits, cells, boxes, minimum, voxel_size, stride):
    """Mean focal loss of the sigmoid; `minimum` and `voxel_size` are (x, y, z)."""
    total = 0
    for logit, (frame, z, y, x) in zip(own_logits, cells, strict=True):
        centre = [
            low + (index + 0.5) * size * stride
            for low, index, size in zip(minimum, (x, y, z), voxel_size, strict=True)
        ]
        p = logit.sigmoid()
        if any(_inside(centre, box) for box in boxes[frame].tolist()):
            total = total - (1 - p) ** 2 * p.log()
        else:
            total = total - p**2 * (1 - p).log()
    return total / len(cells)


def _inside(point, box):
    dx, dy, dz = (p - c for p, c in zip(point, box[:3], strict=True))
    along = dx * math.cos(box[6]) + dy * math.sin(box[6])
    across = -dx * math.sin(box[6]) + dy * math.cos(box[6])
    return all(abs(d) <= size / 2 for d, size in zip((along, across, dz), box[3:6], strict=True))
