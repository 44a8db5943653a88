"""Where boxes can stand without running into each other."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float
from numba import njit

from detector.ops.boxes.cpu import MAX_CORNERS, intersection_area, is_usable


def free_places(
    standing: Float[np.ndarray, "N 7+"], candidates: Float[np.ndarray, "M 7+"]
) -> Bool[np.ndarray, " M"]:
    """Which candidates can be added, one after the other, without overlap seen from above: with
    the boxes that stand there, or with a candidate added before."""
    return _free_places(_float64(standing), _float64(candidates))


def first_free(
    standing: Float[np.ndarray, "N 7+"], moved: int, places: Float[np.ndarray, "T 7+"]
) -> int:
    """The first of the places that box `moved` can take without overlap, seen from above, with
    the other boxes; -1 if there is none."""
    return _first_free(_float64(standing), moved, _float64(places))


@njit(cache=True, nogil=True)
def _free_places(standing, candidates):
    outline, clipped = np.empty((MAX_CORNERS, 2)), np.empty((MAX_CORNERS, 2))
    free = np.zeros(len(candidates), np.bool_)
    for m in range(len(candidates)):
        if not is_usable(candidates[m]):
            continue
        collides = False
        for n in range(len(standing)):
            if is_usable(standing[n]):
                if intersection_area(standing[n], candidates[m], outline, clipped) > 0:
                    collides = True
                    break
        for other in range(m):
            if collides:
                break
            if free[other]:
                area = intersection_area(candidates[other], candidates[m], outline, clipped)
                collides = area > 0
        free[m] = not collides
    return free


@njit(cache=True, nogil=True)
def _first_free(standing, moved, places):
    outline, clipped = np.empty((MAX_CORNERS, 2)), np.empty((MAX_CORNERS, 2))
    for t in range(len(places)):
        collides = False
        for n in range(len(standing)):
            if n != moved and is_usable(standing[n]) and not collides:
                collides = intersection_area(standing[n], places[t], outline, clipped) > 0
        if not collides:
            return t
    return -1


def _float64(boxes: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(boxes[:, :7], np.float64)
