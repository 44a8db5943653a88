"""Cars, vans and trucks: a body lofted from its side profile, a glazed cabin, wheels, lamps.

A vehicle stands on z = 0 with its middle at the origin and drives along +x. Its mesh fills the
length, width and height that it is asked for, mirrors apart, as label boxes leave them out too.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from datasets.simulation.materials import Material
from datasets.simulation.meshes import Color, Mesh, box, disc, join, loft, quads

Size = tuple[float, float, float]
"""Length, width, height, metres."""

DARK, CHROME, RIM = (0.05, 0.05, 0.06), (0.55, 0.56, 0.58), (0.42, 0.43, 0.45)


@dataclass(frozen=True)
class BodyStyle:
    """A vehicle's side profile, from nose (0) to tail (1) along it, in shares of its height."""

    size: Size
    spread: Size
    """Standard deviations."""
    nose: float
    """Height of the bonnet's front edge."""
    bonnet: float
    """Height where the windscreen starts."""
    windscreen: tuple[float, float]
    """Where it starts and where it meets the roof."""
    rear_window: tuple[float, float]
    """Where it leaves the roof and where it ends."""
    boot: float
    """Height where the rear window ends."""
    glazed: float
    """Up to where the sides have windows."""
    wheels: tuple[float, float] = (0.19, 0.80)
    wheel_radius: float = 0.31


CARS: dict[str, tuple[float, BodyStyle]] = {
    # share among cars, style
    "small": (0.25, BodyStyle((3.45, 1.55, 1.50), (0.26, 0.09, 0.08), 0.47, 0.64, (0.22, 0.42),
                              (0.88, 0.985), 0.60, 0.86, (0.17, 0.83), 0.28)),
    "hatchback": (0.31, BodyStyle((3.82, 1.62, 1.51), (0.26, 0.09, 0.09), 0.46, 0.63, (0.25, 0.45),
                                  (0.85, 0.975), 0.60, 0.86)),
    "saloon": (0.17, BodyStyle((4.20, 1.65, 1.47), (0.32, 0.09, 0.08), 0.44, 0.61, (0.28, 0.46),
                               (0.70, 0.84), 0.65, 0.80)),
    "estate": (0.15, BodyStyle((4.18, 1.65, 1.52), (0.28, 0.09, 0.08), 0.45, 0.61, (0.27, 0.44),
                               (0.92, 0.985), 0.60, 0.92)),
    "people_carrier": (0.08, BodyStyle((4.10, 1.69, 1.70), (0.30, 0.10, 0.11), 0.46, 0.60,
                                       (0.16, 0.40), (0.92, 0.985), 0.56, 0.93)),
    "off_roader": (0.04, BodyStyle((4.20, 1.75, 1.76), (0.32, 0.10, 0.11), 0.52, 0.64,
                                   (0.28, 0.40), (0.93, 0.985), 0.58, 0.93, (0.19, 0.80), 0.36)),
}  # fmt: skip
VANS: dict[str, tuple[float, BodyStyle]] = {
    "minibus": (0.42, BodyStyle((4.80, 1.86, 2.00), (0.45, 0.14, 0.16), 0.42, 0.54, (0.08, 0.26),
                                (0.95, 0.99), 0.54, 0.94, (0.19, 0.81), 0.33)),
    "panel_van": (0.42, BodyStyle((5.55, 1.98, 2.48), (0.80, 0.15, 0.26), 0.36, 0.46,
                                  (0.08, 0.23), (0.97, 0.995), 0.48, 0.34, (0.18, 0.78), 0.34)),
    "small_van": (0.16, BodyStyle((4.20, 1.75, 1.88), (0.30, 0.12, 0.12), 0.43, 0.55,
                                  (0.18, 0.36), (0.95, 0.99), 0.54, 0.46, (0.18, 0.80), 0.31)),
}  # fmt: skip
TRUCK_SIZE, TRUCK_SPREAD = (9.8, 2.57, 3.25), (2.8, 0.20, 0.45)

# Common paints with their share: black, white, silver, greys, blues, reds, others.
PAINTS: tuple[tuple[float, Color], ...] = (
    (0.22, (0.06, 0.06, 0.07)), (0.14, (0.86, 0.87, 0.87)), (0.22, (0.62, 0.64, 0.66)),
    (0.14, (0.30, 0.31, 0.33)), (0.11, (0.10, 0.17, 0.38)), (0.08, (0.52, 0.06, 0.07)),
    (0.04, (0.10, 0.28, 0.18)), (0.03, (0.70, 0.58, 0.22)), (0.02, (0.75, 0.42, 0.10)),
)  # fmt: skip


def draw_car(rng: np.random.Generator) -> tuple[Size, Mesh]:
    """A passenger car of a random style, size and paint."""
    return _draw(rng, CARS)


def draw_van(rng: np.random.Generator) -> tuple[Size, Mesh]:
    """A minibus or a delivery van; these are white more often than cars."""
    return _draw(rng, VANS, white=0.4)


def draw_truck(rng: np.random.Generator) -> tuple[Size, Mesh]:
    """A lorry with a cab and a box body."""
    size = draw_size(rng, TRUCK_SIZE, TRUCK_SPREAD)
    return size, truck(size, draw_paint(rng, 0.3), draw_paint(rng, 0.6))


def vehicle(style: BodyStyle, size: Size, paint: Color) -> Mesh:
    """A car or van of a style, stretched to a size."""
    length, width, height = size
    radius = style.wheel_radius
    parts = [_body(style, size, paint)]
    for share in style.wheels:
        for side in (-1, 1):
            x, y = length * (0.5 - share), side * (width / 2 - 0.11)
            parts.append(disc(radius, 0.21, DARK, Material.RUBBER, 12).at(x, y, radius))
            parts.append(
                disc(0.62 * radius, 0.22, RIM, Material.METAL, 8).at(x, y + side * 0.005, radius)
            )
    mirror_x = length * (0.5 - style.windscreen[0]) - 0.28 * length * 0.5
    for side in (-1, 1):
        y = side * (width / 2 + 0.05)
        parts.append(
            box(0.10, 0.16, 0.13, paint, Material.PAINT, mirror_x, y, style.bonnet * height)
        )
    parts += _lamps(style, size)
    parts += _seats(style, size)
    return join(parts)


def truck(size: Size, cab_paint: Color, body_paint: Color) -> Mesh:
    """A lorry: cab with a windscreen, box body, chassis and three axles."""
    length, width, height = size
    cab = min(2.1, 0.28 * length)
    front, cab_height = length / 2, min(2.9, 0.9 * height)
    body_length = length - cab - 0.15
    parts = [
        box(cab, width * 0.96, cab_height - 0.45, cab_paint, Material.PAINT, front - cab / 2,
            0, 0.45),
        box(body_length, width, height - 0.95, body_paint, Material.PAINT,
            -length / 2 + body_length / 2, 0, 0.95),
        box(length - 0.3, 0.9, 0.35, DARK, Material.METAL, -0.1, 0, 0.6),
        box(0.1, width * 0.94, 0.14, DARK, Material.PLASTIC, -length / 2 + 0.05, 0, 0.5),
    ]  # fmt: skip
    glass = np.array([(0, -0.44, 0.52), (0, 0.44, 0.52), (0, 0.42, 0.9), (0, -0.42, 0.9)])
    parts.append(
        quads((glass * (1, width, cab_height) + (front + 0.004, 0, 0))[None], DARK, Material.GLASS)
    )
    for side in (-1, 1):
        window = np.array([(0.1, 0.54), (0.75, 0.54), (0.75, 0.88), (0.1, 0.88)])
        corners = np.column_stack(
            [front - window[:, 0] * cab, np.full(4, side * (width * 0.48 + 0.004)),
             window[:, 1] * cab_height]
        )  # fmt: skip
        parts.append(quads(corners[None], DARK, Material.GLASS))
        for x in (front - 0.6 * cab, -length / 2 + 1.2, -length / 2 + 2.3):
            y = side * (width / 2 - 0.16)
            parts.append(disc(0.48, 0.30, DARK, Material.RUBBER, 12).at(x, y, 0.48))
    return join(parts)


def _body(style: BodyStyle, size: Size, paint: Color) -> Mesh:
    """Sections across the vehicle from nose to tail, ten points each."""
    length, width, height = size
    (glass_from, roof_from), (roof_to, glass_to) = style.windscreen, style.rear_window
    line = {
        0.0: style.nose - 0.10, 0.015: style.nose, glass_from: style.bonnet, roof_from: 0.975,
        (roof_from + roof_to) / 2: 1.0, roof_to: 0.97, glass_to: style.boot,
        1.0: style.boot - 0.08,
    }  # fmt: skip
    glazed = min(style.glazed, roof_to)
    pillar = (roof_from + glazed) / 2
    extra = [0.06, 0.13, 0.5 * glass_from, pillar - 0.015, pillar + 0.015, glazed, 0.96]
    stations = np.unique(np.round([*line, *extra], 4))
    top = np.interp(stations, list(line), list(line.values()))
    belt = np.minimum(top, style.bonnet + 0.01)
    # Seen from above the corners are rounded; seen from the front the cabin leans inwards.
    along = 2 * stations - 1
    half = width / 2 * (1 - 0.16 * np.abs(along) ** 7)
    lean = np.clip((top - belt) / (1 - style.bonnet), 0, 1)
    half_top = half * (1 - 0.17 * lean - 0.06)
    floor, sill = 0.13 + 0.06 * np.abs(along) ** 6, 0.24
    sections = []
    for i, station in enumerate(stations):
        outline = [
            (half[i] * 0.86, floor[i]), (half[i] * 0.97, sill), (half[i], 0.5 * (sill + belt[i])),
            (half[i] * 0.975, belt[i] - 0.01), (half_top[i], top[i] - 0.02 * lean[i]),
        ]  # fmt: skip
        outline = np.array(outline)
        crown = (half_top[i] * 0.5, top[i])
        right = np.array([*outline, crown])
        left = right[::-1] * (-1, 1)
        x = length * (0.5 - station)
        across = np.concatenate([right, left]) * (1, height)
        sections.append(np.column_stack([np.full(len(across), x), across]))
    sections = np.array(sections)
    sections[..., 2] *= height / sections[..., 2].max()
    return _glazed_loft(sections, stations, style, glazed, paint, pillar)


def _glazed_loft(sections, stations, style, glazed, paint, pillar) -> Mesh:
    """The body with windows: its faces between the belt line and the roof are glass."""
    around = sections.shape[1]                                # 12: six points a side
    middle = (stations[:-1] + stations[1:]) / 2
    materials = np.full((len(middle), around), Material.PAINT)
    colors = np.broadcast_to(np.array(paint), (len(middle), around, 3)).copy()
    side = (3, 7)                       # faces from the belt to the roof's edge, right and left
    upper = (4, 5, 6)                   # the faces that make bonnet, windscreen, roof, boot
    in_cabin = (middle > style.windscreen[0]) & (middle < glazed)
    at_pillar = np.abs(middle - pillar) < 0.015
    screen = (middle > style.windscreen[0]) & (middle < style.windscreen[1])
    rear = (middle > style.rear_window[0]) & (middle < style.rear_window[1])
    for face in side:
        materials[in_cabin & ~at_pillar, face] = Material.GLASS
    for face in upper:
        materials[screen | rear, face] = Material.GLASS
    colors[materials == Material.GLASS] = DARK
    for face in (0, 10, 11):            # sills and floor
        materials[:, face], colors[:, face] = Material.PLASTIC, DARK
    return loft(sections, colors.reshape(-1, 3), materials.reshape(-1))


def _lamps(style: BodyStyle, size: Size) -> list[Mesh]:
    """Head lamps, rear lamps and number plates, just proud of the body."""
    length, width, height = size
    face = np.array([(-0.5, 0), (0.5, 0), (0.5, 1), (-0.5, 1)])

    def plate(x, y, z, wide, high, color, material):
        corners = np.column_stack([np.full(4, x), y + face[:, 0] * wide, z + face[:, 1] * high])
        return quads(corners[None], color, material)

    front, back = length / 2 + 0.003, -length / 2 - 0.003
    nose = (style.nose - 0.17) * height
    tail = (style.boot - 0.20) * height
    parts = [
        plate(front, 0, 0.36, 0.50, 0.11, (0.9, 0.9, 0.88), Material.RETRO),
        plate(back, 0, 0.55 * tail, 0.50, 0.11, (0.9, 0.9, 0.88), Material.RETRO),
    ]
    for side in (-1, 1):
        y = side * 0.33 * width
        parts.append(plate(front, y, nose, 0.30, 0.12, (0.92, 0.93, 0.95), Material.GLASS))
        parts.append(plate(back, y, tail, 0.16, 0.18, (0.62, 0.05, 0.05), Material.RETRO))
    return parts


def _seats(style: BodyStyle, size: Size) -> list[Mesh]:
    """What pulses meet that got in through a window: seats and the dashboard."""
    length, width, height = size
    bottom, top = 0.28 * height, 0.82 * height
    first = style.windscreen[1] + 0.06
    parts = [
        box(0.10 * length, 0.8 * width, 0.3 * height, DARK, Material.PLASTIC,
            length * (0.5 - style.windscreen[0] - 0.08), 0, bottom)
    ]  # fmt: skip
    for share in (first, first + 0.22):
        if share + 0.05 < style.glazed:
            for side in (-1, 1):
                parts.append(
                    box(0.16, 0.3 * width, top - bottom, DARK, Material.CLOTH,
                        length * (0.5 - share), side * 0.2 * width, bottom)
                )  # fmt: skip
    return parts


def _draw(rng: np.random.Generator, styles, white: float = 0.0) -> tuple[Size, Mesh]:
    shares = np.array([share for share, _ in styles.values()])
    _, style = list(styles.values())[rng.choice(len(shares), p=shares / shares.sum())]
    size = draw_size(rng, style.size, style.spread)
    return size, vehicle(style, size, draw_paint(rng, white))


def draw_size(rng: np.random.Generator, mean: Size, spread: Size) -> Size:
    """A size about the mean one."""
    common = rng.normal()                       # long vehicles are also wide, less so high
    own = rng.normal(size=3)
    wobble = np.clip(np.array([0.7, 0.6, 0.3]) * common + 0.7 * own, -2.2, 2.2)
    length, width, height = np.array(mean) + wobble * spread
    return float(length), float(width), float(height)


def draw_paint(rng: np.random.Generator, white: float = 0.0) -> Color:
    """One of PAINTS, or white with the chance `white`."""
    if rng.random() < white:
        return (0.85, 0.86, 0.86)
    shares = np.array([share for share, _ in PAINTS])
    color = np.array(PAINTS[rng.choice(len(PAINTS), p=shares / shares.sum())][1])
    return tuple(np.clip(color * rng.uniform(0.8, 1.2) + rng.normal(0, 0.012, 3), 0.02, 0.95))
