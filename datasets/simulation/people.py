"""People on foot, on benches and on bicycles, with limbs that move as they walk or pedal.

A person stands on z = 0 at the origin and faces +x. What they look like is drawn once; `posed`
gives the mesh at a time.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from datasets.simulation.materials import Material
from datasets.simulation.meshes import Color, Mesh, box, ellipsoid, join, pose, tube

SKINS: tuple[Color, ...] = ((0.87, 0.68, 0.56), (0.72, 0.52, 0.40), (0.45, 0.30, 0.22))
HAIRS: tuple[Color, ...] = ((0.12, 0.09, 0.07), (0.30, 0.20, 0.12), (0.62, 0.50, 0.30),
                            (0.55, 0.55, 0.55))  # fmt: skip


@dataclass(frozen=True)
class Person:
    """How one person is built and dressed, in metres for a height of 1.75."""

    height: float
    girth: float
    """Times the usual breadth of trunk and limbs."""
    skin: Color
    hair: Color
    top: Color
    trousers: Color
    shoes: Color
    bag: str
    """"none", "backpack", "shoulder" or "coat" (a long coat or skirt)."""
    swing: float
    """Largest angle of the thigh when walking, radians; 0 for somebody who stands."""
    stride_hz: float
    """Double steps a second."""
    phase: float
    """Of the step at time 0, radians."""
    slack: tuple[float, float]
    """How much longer and wider than the body its box is drawn, metres."""

    def posed(self, time_s: float) -> Mesh:
        """Standing or walking at a time, the middle of the gait's box over the origin."""
        low, high = self._reach
        return self._walk(time_s).at(*(-(low + high) / 2)[:2].tolist())

    def _walk(self, time_s: float) -> Mesh:
        angle = 2 * np.pi * self.stride_hz * time_s + self.phase
        step = self.swing * np.sin(angle)
        bend = self.swing * (1 + np.sin(angle + np.array([1.2, 1.2 + np.pi])))  # knees
        return self._figure(
            thighs=(step, -step), knees=tuple(bend), arms=(-0.8 * step, 0.8 * step), elbow=0.35,
            lean=0.05 * (self.swing > 0),
        )  # fmt: skip

    def seated(self) -> Mesh:
        """Sitting, the seat at the height of a bench; the feet stand on z = 0."""
        figure = self._figure((1.45, 1.4), (1.4, 1.35), (0.5, 0.6), 0.9, -0.05)
        return figure.at(z=-float(figure.extent[0][2]))

    @cached_property
    def walking_size(self) -> tuple[float, float, float]:
        """Length, width, height of a box that holds the whole gait with some slack, as
        annotators draw it."""
        low, high = self._reach
        length, width = (high - low)[:2] + self.slack
        return float(length), float(width), float(high[2])

    @cached_property
    def _reach(self) -> tuple[np.ndarray, np.ndarray]:
        """Lowest and highest x, y, z over a double step."""
        moments = np.arange(6 if self.swing else 1) / 6 / self.stride_hz
        extents = np.array([self._walk(moment).extent for moment in moments], np.float64)
        return extents[:, 0].min(0), extents[:, 1].max(0)

    def _figure(self, thighs, knees, arms, elbow, lean) -> Mesh:
        hip, neck = 0.90, 1.47
        parts = [
            _limb((0, 0, hip - 0.06), lean, 0.30, (0.145, 0.135), self.trousers, flat=0.72),
            _limb((0, 0, hip + 0.12), lean, neck - hip - 0.12, (0.135, 0.185), self.top, flat=0.62),
        ]
        shoulder = np.array([np.sin(lean) * 0.55, 0, neck - 0.06])
        head = np.array([np.sin(lean) * 0.75 + 0.02, 0, neck + 0.155])
        parts.append(tube(shoulder, head, 0.06, self.skin, Material.SKIN, 6))
        parts.append(ellipsoid((0.095, 0.078, 0.125), head, self.skin, Material.SKIN, 5, 8))
        parts.append(
            ellipsoid((0.10, 0.086, 0.085), head + (-0.018, 0, 0.045), self.hair, Material.CLOTH)
        )
        for side, thigh, knee, arm in zip((-1, 1), thighs, knees, arms, strict=True):
            parts += self._leg(np.array([0, side * 0.09, hip]), thigh, knee)
            parts += self._arm(shoulder + (0, side * 0.20, 0), arm, elbow, side)
        parts += self._baggage(shoulder, lean)
        figure = join(parts)
        low, high = figure.extent
        scale = self.height / 1.75
        return figure.stretched(scale * self.girth, scale * self.girth, self.height / high[2])

    def _leg(self, hip: np.ndarray, thigh: float, knee: float) -> list[Mesh]:
        joint = hip + 0.43 * np.array([np.sin(thigh), 0, -np.cos(thigh)])
        shin = thigh - knee
        ankle = joint + 0.42 * np.array([np.sin(shin), 0, -np.cos(shin)])
        foot = np.array([ankle[0] + 0.06, ankle[1], max(ankle[2] - 0.05, 0.0)])
        return [
            tube(hip, joint, (0.085, 0.062), self.trousers, Material.CLOTH),
            tube(joint, ankle, (0.060, 0.045), self.trousers, Material.CLOTH),
            box(0.26, 0.10, 0.09, self.shoes, Material.CLOTH, *foot),
        ]

    def _arm(self, shoulder: np.ndarray, angle: float, elbow: float, side: int) -> list[Mesh]:
        down = np.array([np.sin(angle), 0.10 * side, -np.cos(angle)])
        joint = shoulder + 0.29 * down
        bent = angle + elbow
        hand = joint + 0.27 * np.array([np.sin(bent), 0, -np.cos(bent)])
        return [
            tube(shoulder, joint, (0.055, 0.045), self.top, Material.CLOTH),
            tube(joint, hand, (0.044, 0.034), self.top, Material.CLOTH),
            ellipsoid((0.045, 0.03, 0.05), hand, self.skin, Material.SKIN, 3, 5),
        ]

    def _baggage(self, shoulder: np.ndarray, lean: float) -> list[Mesh]:
        if self.bag == "backpack":
            return [box(0.17, 0.28, 0.42, self.shoes, Material.CLOTH, shoulder[0] - 0.21, 0, 1.02)]
        if self.bag == "shoulder":
            return [box(0.26, 0.10, 0.26, self.shoes, Material.CLOTH, -0.02, 0.25, 0.80)]
        if self.bag == "coat":
            return [_limb((0, 0, 0.48), lean * 0.5, 0.62, (0.21, 0.15), self.top, flat=0.75)]
        return []


def draw_person(rng: np.random.Generator, walking: bool) -> Person:
    """Somebody at random; adults mostly."""
    child = rng.random() < 0.05
    height = rng.uniform(1.25, 1.5) if child else np.clip(rng.normal(1.77, 0.085), 1.54, 2.0)
    dress = [rng.uniform(0.03, 0.85) * _hue(rng) for _ in range(3)]
    return Person(
        height=float(height),
        girth=float(np.clip(rng.normal(1.10, 0.11), 0.9, 1.45)),
        skin=SKINS[rng.choice(3, p=(0.75, 0.15, 0.10))],
        hair=HAIRS[rng.integers(len(HAIRS))],
        top=tuple(dress[0]),
        trousers=tuple(dress[1] * 0.7),
        shoes=tuple(dress[2] * 0.4),
        bag=str(rng.choice(["none", "backpack", "shoulder", "coat"], p=(0.55, 0.14, 0.16, 0.15))),
        swing=float(rng.uniform(0.34, 0.52)) if walking else 0.0,
        stride_hz=float(rng.uniform(0.8, 1.0)),
        phase=float(rng.uniform(0, 2 * np.pi)),
        slack=tuple(rng.uniform(0, (0.18, 0.12)) + (0.0 if walking else 0.08)),
    )


@dataclass(frozen=True)
class Cyclist:
    """A rider on a bicycle; the bicycle's middle is the origin."""

    person: Person
    frame: Color
    scale: tuple[float, float, float]
    """Of rider and bicycle along, across and up."""
    pedalling_hz: float

    def posed(self, time_s: float) -> Mesh:
        """Riding at a time."""
        angle = 2 * np.pi * self.pedalling_hz * time_s + self.person.phase
        return join([self._bicycle, self._rider(angle)]).stretched(*self.scale)

    @cached_property
    def size(self) -> tuple[float, float, float]:
        """Length, width, height of rider and bicycle together."""
        low, high = self.posed(0.0).extent
        return (*(high - low)[:2].tolist(), float(high[2]))

    @cached_property
    def _bicycle(self) -> Mesh:
        return bicycle(self.frame)

    def _rider(self, angle: float) -> Mesh:
        who = self.person
        scale = who.height / 1.75
        hip, lean = np.array([-0.27, 0, 0.98]), 0.38
        shoulder = hip + 0.52 * scale * np.array([np.sin(lean), 0, np.cos(lean)])
        head = shoulder + np.array([0.10, 0, 0.22])
        parts = [
            _limb(hip, lean, 0.50 * scale, (0.14, 0.18), who.top, flat=0.65),
            _limb(hip - (0, 0, 0.08), 0, 0.16, (0.15, 0.15), who.trousers, flat=0.8),
            tube(shoulder, head, 0.06, who.skin, Material.SKIN),
            ellipsoid((0.10, 0.08, 0.125), head, who.skin, Material.SKIN),
            ellipsoid((0.115, 0.09, 0.085), head + (-0.01, 0, 0.055), who.hair, Material.CLOTH),
        ]
        for side in (-1, 1):
            turn = angle + (0 if side < 0 else np.pi)
            pedal = np.array([-0.02 + 0.16 * np.cos(turn), side * 0.11, 0.30 + 0.16 * np.sin(turn)])
            seat = hip + (0, side * 0.09, 0)
            knee = _knee(seat, pedal + (0, 0, 0.08), 0.44)
            parts += [
                tube(seat, knee, (0.085, 0.062), who.trousers, Material.CLOTH),
                tube(knee, pedal + (0, 0, 0.06), (0.058, 0.045), who.trousers, Material.CLOTH),
                box(0.25, 0.09, 0.08, who.shoes, Material.CLOTH, *(pedal + (0.04, 0, 0))),
            ]
            top = shoulder + (0, side * 0.19, -0.03)
            grip = np.array([0.36, side * 0.25, 1.03])
            elbow = (top + grip) / 2 + (0, side * 0.04, -0.06)
            parts += [
                tube(top, elbow, (0.055, 0.045), who.top, Material.CLOTH),
                tube(elbow, grip, (0.043, 0.035), who.top, Material.CLOTH),
            ]
        if who.bag == "backpack":
            parts.append(
                box(0.16, 0.27, 0.40, who.shoes, Material.CLOTH).moved(
                    pose(*(shoulder + (-0.30, 0, -0.42)), pitch=lean)
                )
            )
        return join(parts)


@dataclass(frozen=True)
class Motorcyclist(Cyclist):
    """A rider on a motorcycle, whose feet stand still."""

    machine: Mesh
    """The motorcycle, along x."""

    @cached_property
    def _bicycle(self) -> Mesh:
        return self.machine


def draw_cyclist(rng: np.random.Generator) -> Cyclist:
    """A rider and a bicycle at random."""
    return Cyclist(
        person=draw_person(rng, walking=False),
        frame=tuple(rng.uniform(0.05, 0.75) * _hue(rng)),
        scale=tuple(np.clip(rng.normal((1.01, 1.0, 0.955), (0.07, 0.12, 0.045)), 0.8, 1.3)),
        pedalling_hz=float(rng.uniform(0.9, 1.4)),
    )


def draw_motorcyclist(rng: np.random.Generator, machine: Mesh) -> Motorcyclist:
    """A rider at random on a motorcycle."""
    scale = tuple(np.clip(rng.normal((1.15, 1.05, 0.92), (0.06, 0.08, 0.03)), 0.8, 1.3))
    return Motorcyclist(draw_person(rng, walking=False), (0, 0, 0), scale, 0.0, machine)


def bicycle(frame: Color) -> Mesh:
    """A city bicycle, 1.74 m long, along x."""
    radius, tyre = 0.34, (0.04, 0.04, 0.04)
    back, front = np.array([-0.53, 0, radius]), np.array([0.53, 0, radius])
    saddle, head, crank = (-0.25, 0, 0.93), (0.40, 0, 0.95), (-0.02, 0, 0.30)
    parts = []
    for hub in (back, front):
        angle = np.linspace(0, 2 * np.pi, 13)
        rim = np.column_stack([np.cos(angle), np.zeros(13), np.sin(angle)]) * (radius - 0.015) + hub
        parts += [
            tube(a, b, 0.02, tyre, Material.RUBBER, 4)
            for a, b in zip(rim[:-1], rim[1:], strict=True)
        ]
        spokes = rim[:12:3]
        parts += [tube(hub, end, 0.008, (0.6, 0.6, 0.6), Material.METAL, 3) for end in spokes]
    bars = [(back, saddle), (back, crank), (crank, saddle), (crank, head), (saddle, head)]
    parts += [tube(a, b, 0.022, frame, Material.METAL, 4) for a, b in bars]
    parts.append(tube(front, head, 0.022, frame, Material.METAL, 4))
    parts.append(tube((0.36, -0.27, 1.03), (0.36, 0.27, 1.03), 0.018, tyre, Material.METAL, 4))
    parts.append(tube(head, (0.36, 0, 1.03), 0.02, tyre, Material.METAL, 4))
    parts.append(box(0.25, 0.15, 0.06, tyre, Material.PLASTIC, -0.27, 0, 0.93))
    parts.append(box(0.06, 0.05, 0.06, (0.6, 0.05, 0.05), Material.RETRO, -0.83, 0, 0.6))
    return join(parts)


def _limb(start, lean, length, radii, color, flat) -> Mesh:
    """An upright tapered trunk part, thinner front to back than across."""
    part = tube((0, 0, 0), (0, 0, length), radii, color, Material.CLOTH, 8)
    return part.stretched(flat, 1, 1).moved(pose(*start, pitch=lean))


def _knee(hip: np.ndarray, foot: np.ndarray, thigh: float) -> np.ndarray:
    """The joint ahead of the line from hip to foot, for two halves of equal length."""
    middle, reach = (hip + foot) / 2, np.linalg.norm(foot - hip)
    out = np.sqrt(max(thigh**2 - reach**2 / 4, 0.0))
    along = (foot - hip) / max(reach, 1e-6)
    return middle + out * np.array([-along[2], 0, along[0]])


def _hue(rng: np.random.Generator) -> np.ndarray:
    return np.clip(1 - rng.uniform(0, 0.7) * rng.random(3), 0.1, 1.0)
