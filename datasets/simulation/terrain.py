"""Streets as curves on a ground that is not flat.

Along a street, `s` metres run from its start and `d` metres lie to its left. Traffic keeps to the
right: driving on, at d < 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float
from scipy.spatial import cKDTree

from datasets.simulation.materials import Material
from datasets.simulation.meshes import Mesh, join, quads, surface

KERB_HEIGHT = 0.12
_STEP = 2.5


@dataclass(frozen=True)
class Terrain:
    """Height of the ground as a sum of waves and a slope."""

    slope: Float[np.ndarray, " 2"]
    waves: Float[np.ndarray, "W 4"]
    """(k_x, k_y, phase, amplitude) of each: radians a metre, radians, metres."""

    def height(self, x, y) -> Float[np.ndarray, "*shape"]:
        """z of the ground, metres."""
        x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
        phases = x[..., None] * self.waves[:, 0] + y[..., None] * self.waves[:, 1]
        bumps = self.waves[:, 3] * np.sin(phases + self.waves[:, 2])
        return bumps.sum(-1) + self.slope[0] * x + self.slope[1] * y

    def gradient(self, x, y) -> tuple[Float[np.ndarray, "*shape"], Float[np.ndarray, "*shape"]]:
        """Rise a metre along x and along y, over the length of a car's wheelbase."""
        x, y, reach = np.asarray(x, np.float64), np.asarray(y, np.float64), 1.3
        east = self.height(x + reach, y) - self.height(x - reach, y)
        north = self.height(x, y + reach) - self.height(x, y - reach)
        return east / (2 * reach), north / (2 * reach)


def draw_terrain(rng: np.random.Generator, hilliness: float) -> Terrain:
    """Long gentle waves with short shallow ones on them."""
    length = np.array([160.0, 90.0, 45.0, 22.0, 9.0])
    amplitude = hilliness * np.array([0.26, 0.15, 0.08, 0.035, 0.010]) * rng.uniform(0.3, 1, 5)
    turn = rng.uniform(0, 2 * np.pi, 5)
    wave = 2 * np.pi / length
    columns = [
        wave * np.cos(turn), wave * np.sin(turn), rng.uniform(0, 2 * np.pi, 5), amplitude,
    ]  # fmt: skip
    return Terrain(rng.normal(0, 0.008 * hilliness, 2), np.column_stack(columns))


@dataclass(frozen=True)
class Street:
    """A carriageway with pavements on both sides along a curve."""

    points: Float[np.ndarray, "K 2"]
    """Its middle line, one metre from point to point."""
    headings: Float[np.ndarray, " K"]
    half_width: float
    """Of the carriageway."""
    pavement: float
    """Width of the pavement on each side."""
    start: float
    """s of the first point."""

    @property
    def end(self) -> float:
        return self.start + len(self.points) - 1

    @property
    def front(self) -> float:
        """How far from the middle line the plots begin."""
        return self.half_width + self.pavement

    def at(self, s, d=0.0):
        """(x, y, heading) at s along and d to the left; arrays or numbers."""
        s, d = np.broadcast_arrays(np.asarray(s, np.float64), np.asarray(d, np.float64))
        where = np.clip(s, self.start, self.end) - self.start
        places = np.arange(len(self.points))
        heading = np.interp(where, places, self.headings)
        x = np.interp(where, places, self.points[:, 0]) - d * np.sin(heading)
        y = np.interp(where, places, self.points[:, 1]) + d * np.cos(heading)
        return x, y, heading

    def distance(self, x, y) -> Float[np.ndarray, "*shape"]:
        """From the middle line."""
        return self._tree.query(np.stack([x, y], -1))[0]

    @cached_property
    def _tree(self) -> cKDTree:
        return cKDTree(self.points)


def draw_street(
    start: float, end: float, half_width: float, pavement: float,
    bends: tuple[tuple[float, float, float], ...] = (), origin: tuple[float, float] = (0.0, 0.0),
    heading: float = 0.0,
) -> Street:  # fmt: skip
    """A street through `origin` at s = 0 with that heading there.

    Args:
        bends: (s where it begins, s where it ends, turn in radians) of each bend.
    """
    s = np.arange(start, end + 1.0)
    curvature = np.zeros(len(s))
    for first, last, turn in bends:
        within = (s >= first) & (s < last)
        curvature[within] += turn / (last - first)
    headings = np.cumsum(curvature)
    zero = int(np.argmin(np.abs(s)))
    headings += heading - headings[zero]
    steps = np.stack([np.cos(headings), np.sin(headings)], -1)
    points = np.cumsum(steps, 0)
    points += np.asarray(origin) - points[zero]
    return Street(points, headings, half_width, pavement, float(start))


# ------------------------------------------------------------------------------- its surface


@dataclass(frozen=True)
class Ground:
    """Terrain with streets on it: carriageways lie on the terrain, all else a kerb higher."""

    terrain: Terrain
    streets: tuple[Street, ...]
    """The main street first; another one crosses it at a right angle."""
    kerb: float = KERB_HEIGHT
    crossing: float | None = None
    """s along the main street where the other crosses."""

    def height(self, x, y) -> Float[np.ndarray, "*shape"]:
        """z of what one stands on."""
        raised = np.min(
            [street.distance(x, y) - street.half_width for street in self.streets], 0
        )
        return self.terrain.height(x, y) + self.kerb * (raised > 0)

    def mesh(self, plots: tuple, paving: tuple) -> Mesh:
        """The whole surface.

        Args:
            plots, paving: (colour, material) of the ground beyond and of the pavement.
        """
        parts = [self._carriageways()]
        main = self.streets[0]
        if self.crossing is None:
            spans = [(main.start, main.end)]
        else:
            gap = self.streets[1].half_width
            spans = [(main.start, self.crossing - gap), (self.crossing + gap, main.end)]
        for first, last in spans:
            for side in (-1, 1):
                parts.append(self._slab(first, last, side, plots, paving))
        return join(parts)

    def markings(self, lanes: int, half_width: float) -> Mesh:
        """White lines between the main street's lanes, broken, and stop lines.

        Args:
            half_width: of all lanes together, which parking places may flank.
        """
        main = self.streets[0]
        parts = []
        for lane in range(1, lanes):
            d = half_width * (2 * lane / lanes - 1)
            for s in np.arange(main.start, main.end - 4, 9.0):
                if self.crossing is None or abs(s + 2 - self.crossing) > 10:
                    parts.append(self._line(s, s + 4.0, d - 0.07, d + 0.07))
        if self.crossing is not None:
            gap = self.streets[1].half_width + 1.0
            parts.append(self._line(self.crossing - gap - 0.4, self.crossing - gap,
                                    -main.half_width + 0.2, -0.2))  # fmt: skip
            stripes = np.arange(-main.half_width + 0.3, main.half_width - 0.3, 0.9)
            parts += [
                self._line(self.crossing + gap, self.crossing + gap + 3.0, d, d + 0.45)
                for d in stripes
            ]
        return join(parts)

    def _line(self, first, last, right, left) -> Mesh:
        x, y, _ = self.streets[0].at([first, last, last, first], [right, right, left, left])
        z = self.terrain.height(x, y) + 0.012
        return quads(np.column_stack([x, y, z])[None], (0.82, 0.82, 0.80), Material.MARKING)

    def _carriageways(self) -> Mesh:
        """A lattice that follows the terrain at the streets and sinks out of sight beside them."""
        low = np.min([street.points.min(0) for street in self.streets], 0) - 12
        high = np.max([street.points.max(0) for street in self.streets], 0) + 12
        far = np.array([400.0, 250.0, 120.0, 60.0])
        axes = [
            np.concatenate([a - far, np.arange(a, b, _STEP), b + far[::-1]])
            for a, b in zip(low, high, strict=True)
        ]
        x, y = np.meshgrid(*axes, indexing="ij")
        beside = np.min([s.distance(x, y) - s.half_width for s in self.streets], 0)
        z = self.terrain.height(x, y) - np.clip(beside - 2 * _STEP, 0, 1.0)
        return surface(np.stack([x, y, z], -1), (0.21, 0.21, 0.22), Material.ASPHALT)

    def _slab(self, first, last, side, plots, paving) -> Mesh:
        """Pavement and plots on one side, with the kerb's upright face."""
        main = self.streets[0]
        edge = main.half_width
        out = np.array([0, 0, 0.16, main.pavement, main.pavement + 4, *np.arange(12, 75, 6.0)])
        s = np.linspace(first, last, max(2, int((last - first) / _STEP)))
        x, y, _ = main.at(s[:, None], side * (edge + out))
        z = self.terrain.height(x, y) + self.kerb
        z[:, 0] -= self.kerb + 0.05
        grid = np.stack([x, y, z], -1)
        parts = [
            surface(grid[:, :3], (0.50, 0.50, 0.48), Material.KERB),
            surface(grid[:, 2:4], *paving),
            surface(grid[:, 3:], *plots),
        ]
        if self.crossing is not None:                 # the other street's kerb at the open end
            inner = 0 if abs(last - self.crossing) > abs(first - self.crossing) else -1
            top = grid[inner, 1:]
            face = np.stack([top, top - (0, 0, self.kerb + 0.05)])
            parts.append(surface(face, (0.50, 0.50, 0.48), Material.KERB))
        return join(parts)
