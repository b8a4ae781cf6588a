"""Draws labelled road scenes: the data of the study that needs no download.

This file decides what such a street holds, how often, and what it looks like. A scene is laid out
in metres in road coordinates (lateral offset from the centre line, positive to the right; height
above the ground; distance ahead) and seen by a pinhole camera on a bending, rising road. Things are
drawn far to near onto three pictures at once (colour, label, depth), which makes labels exact by
construction; depth then carries texture and haze. Colours are drawn anew for each scene from
ranges that the classes share, so that no class can be told by its colour alone.
"""

import math
from functools import partial
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

ROAD, SIDEWALK, BUILDING, WALL, FENCE, POLE, TRAFFIC_LIGHT, TRAFFIC_SIGN, VEGETATION = range(9)
TERRAIN, SKY, PERSON, RIDER, CAR, TRUCK, BUS, TRAIN, MOTORCYCLE, BICYCLE = range(9, 19)
UNLABELLED = 255

SMALLEST_SIDE = 32
NEAR, FAR = 1.5, 110.0  # metres
SAMPLES = 2  # drawn pixels per final pixel and direction: colours are averaged, labels picked
TEXTURE_SIDE = 256  # a power of two: texture repeats by masking its coordinates

# Strength of fine and of coarse texture; the others get the first row.
ROUGHNESS = {
    None: (0.03, 0.03),
    ROAD: (0.08, 0.07),
    SIDEWALK: (0.09, 0.07),
    BUILDING: (0.06, 0.07),
    WALL: (0.12, 0.09),
    VEGETATION: (0.26, 0.16),
    TERRAIN: (0.20, 0.16),
    SKY: (0.0, 0.0),
}
FACADES = [
    (196, 178, 150),
    (150, 92, 74),
    (206, 200, 188),
    (172, 160, 140),
    (128, 118, 108),
    (214, 190, 132),
    (186, 132, 108),
    (140, 146, 150),
    (224, 220, 212),
    (108, 82, 70),
]
TILES = [(128, 66, 50), (92, 84, 80), (70, 70, 76), (116, 88, 70)]
STONES = [(150, 144, 134), (138, 96, 80), (176, 172, 164), (112, 110, 104), (110, 80, 54)]
GREENS = [(74, 100, 46), (58, 84, 44), (96, 112, 52), (84, 96, 60), (120, 116, 54), (50, 70, 40)]
GROUNDS = [(104, 122, 62), (128, 124, 76), (86, 108, 58), (140, 122, 92), (116, 128, 80)]
METALS = [(96, 100, 100), (140, 144, 146), (70, 84, 74), (104, 84, 64)]
PAINTS = [
    (225, 225, 225),
    (40, 42, 46),
    (150, 154, 158),
    (92, 96, 102),
    (130, 28, 30),
    (36, 58, 108),
    (188, 190, 192),
    (60, 64, 70),
    (44, 76, 62),
    (190, 178, 150),
    (24, 26, 30),
    (204, 206, 208),
]
CLOTHES = [
    (44, 46, 60),
    (120, 40, 44),
    (180, 176, 168),
    (54, 70, 104),
    (90, 84, 70),
    (30, 30, 32),
    (160, 120, 60),
    (70, 96, 76),
    (206, 200, 60),
]
SKINS = [(214, 170, 140), (176, 128, 98), (110, 76, 58)]
SIGNS = [(190, 36, 36), (34, 70, 160), (226, 222, 214), (222, 180, 40), (40, 104, 70)]
RUBBER, CHROME = (26, 26, 28), (120, 120, 122)

# Side views from the rear bumper on: (share of the length, share of the height).
HATCHBACK = [(0, 0.2), (0, 0.62), (0.09, 0.97), (0.45, 1), (0.68, 0.66), (0.96, 0.55), (1, 0.2)]
SALOON = [
    (0, 0.2),
    (0, 0.66),
    (0.15, 0.7),
    (0.29, 0.97),
    (0.5, 1),
    (0.69, 0.66),
    (0.97, 0.55),
    (1, 0.2),
]
ESTATE = [(0, 0.2), (0, 0.60), (0.04, 0.98), (0.5, 1), (0.72, 0.64), (0.97, 0.54), (1, 0.2)]
LORRY = [(0, 0.17), (0, 1), (0.76, 1), (0.76, 0.78), (0.97, 0.76), (1, 0.15)]
BOX = [(0, 0.11), (0, 1), (1, 1), (1, 0.11)]
# Of each kind: the side views, the least and the most (length, width, height) in metres, and where
# along its length the axles are.
VEHICLES = {
    CAR: ([HATCHBACK, SALOON, ESTATE], (3.7, 1.7, 1.4), (4.8, 1.85, 1.75), (0.18, 0.81)),
    TRUCK: ([LORRY], (6, 2.4, 2.7), (10, 2.5, 3.7), (0.15, 0.85)),
    BUS: ([BOX], (9, 2.5, 2.9), (12, 2.55, 3.2), (0.22, 0.78)),
    TRAIN: ([BOX], (22, 2.4, 3.3), (30, 2.5, 3.5), ()),
}
BICYCLE_FRAME = [(-0.5, 0.36), (0.05, 0.3), (0.45, 0.85), (0.4, 0.92), (0, 0.42), (-0.2, 0.9)]
MOTORCYCLE_BODY = [(-0.8, 0.75), (-0.3, 0.4), (0.4, 0.35), (0.6, 0.9), (0.3, 1.05), (-0.2, 0.85)]


def scene(
    seed: int, index: int, size: tuple[int, int] = (128, 384)
) -> tuple[np.ndarray, np.ndarray]:
    """One road scene; the arguments alone decide it.

    Parameters
    ----------
    seed, index : int, 0 or more
        Which set of scenes, and which scene of it.
    size : (int, int)
        Height and width in pixels, each at least 32.

    Returns
    -------
    image : uint8 array (height, width, 3)
        RGB.
    labels : uint8 array (height, width)
        Cityscapes train ids 0 to 18; 255 = not labelled.
    """
    if min(size) < SMALLEST_SIDE:
        raise ValueError(
            f"A scene needs at least {SMALLEST_SIDE} pixels in each direction, not {size}."
        )
    canvas = Canvas(np.random.default_rng([seed, index]), size)
    paint_sky(canvas)
    things = lay_out(canvas)
    for _, draw in sorted(things, key=lambda thing: -thing[0]):
        draw()
    if canvas.rng.random() < 0.25:
        paint_bonnet(canvas)
    return expose(canvas), np.asarray(canvas.labels)[1::SAMPLES, 1::SAMPLES].copy()


class Canvas:
    """A pinhole camera on a road, the light, and the three pictures drawn at once."""

    def __init__(self, rng: np.random.Generator, size: tuple[int, int]):
        self.rng = rng
        height, width = size[0] * SAMPLES, size[1] * SAMPLES
        self.focal = max(0.58 * width, 0.9 * height) * rng.uniform(0.92, 1.1)
        self.centre = width * (0.5 + rng.normal(0, 0.03))
        self.horizon = height * rng.uniform(0.40, 0.50)
        self.eye = rng.uniform(1.4, 1.8)
        self.offset = 0.0  # of the camera from the centre line; the street decides it
        self.haze = (200, 200, 200)  # the sky decides it
        self.bend = rng.normal(0, 0.0014)
        self.rise = rng.uniform(-0.00013, 0.00016)
        azimuth = rng.uniform(0, 2 * math.pi)
        self.sun = math.sin(azimuth), math.cos(azimuth)
        self.sunshine = max(0.0, rng.uniform(-0.4, 1.0))
        self.shadow_per_metre = rng.uniform(0.5, 2.0)
        self.colours = Image.new("RGB", (width, height))
        self.labels = Image.new("L", (width, height), SKY)
        self.depths = Image.new("F", (width, height), 1e4)
        self.shadows = Image.new("L", (width, height), 0)
        pictures = self.colours, self.labels, self.depths, self.shadows
        self.pens = [ImageDraw.Draw(picture) for picture in pictures]

    def project(self, lateral: float, height: float, ahead: float) -> tuple[float, float]:
        """Column and row of a point given in metres beside, above and along the road."""
        ahead = max(ahead, NEAR)
        x = lateral - self.offset + self.bend * ahead * ahead / 2
        y = self.eye - height - self.rise * ahead * ahead
        return self.centre + self.focal * x / ahead, self.horizon + self.focal * y / ahead

    def light(self, lateral: float, up: float, ahead: float) -> float:
        """Brightness of a face whose outward normal is given."""
        facing_sun = max(0.0, lateral * self.sun[0] + ahead * self.sun[1])
        return 0.78 + 0.2 * up + self.sunshine * (0.3 * facing_sun - 0.06 + 0.1 * up)

    def stamp(self, shape: str, outline: list, label, colour, depth: float) -> None:
        """Fill an outline in pixels on the three pictures; None leaves a picture as it is."""
        values = colour, label, None if label is None else depth
        for pen, value in zip(self.pens, values, strict=False):
            if value is not None:
                getattr(pen, shape)(outline, fill=value)

    def fill(self, points: list, label: int | None, colour: tuple | None) -> None:
        """Fill the polygon of (lateral, height, ahead) points."""
        depth = sum(max(point[2], NEAR) for point in points) / len(points)
        self.stamp("polygon", [self.project(*point) for point in points], label, colour, depth)

    def ball(self, point: tuple, across: float, up: float, label: int | None, colour: tuple):
        """Fill the ellipse of these half axes, in metres, around a point."""
        column, row = self.project(*point)
        scale = self.focal / max(point[2], NEAR)
        box = [column - across * scale, row - up * scale, column + across * scale, row + up * scale]
        self.stamp("ellipse", box, label, colour, point[2])

    def cast(self, corners: list, height: float) -> None:
        """Let a thing on these (lateral, ahead) corners throw its shadow on the ground."""
        reach = height * self.shadow_per_metre
        moved = [(s - reach * self.sun[0], z - reach * self.sun[1]) for s, z in corners]
        sweeps = [[corners[i - 1], corners[i], moved[i], moved[i - 1]] for i in range(len(corners))]
        for shape in [moved, *sweeps] if self.sunshine > 0.15 else []:
            outline = [self.project(s, 0, z) for s, z in shape]
            self.pens[3].polygon(outline, fill=int(60 + 90 * self.sunshine))


# Colours and shapes ------------------------------------------------------------------------------


def shade(colour: tuple, factor: float) -> tuple:
    """The colour times a factor, as whole numbers from 0 to 255."""
    return tuple(int(min(255, max(0, channel * factor))) for channel in colour)


def pick(rng: np.random.Generator, colours: list, spread: float = 10) -> tuple:
    """One of the colours, a little off."""
    return shade(colours[rng.integers(len(colours))] + rng.normal(0, spread, 3), 1)


def mix(first: tuple, second: tuple, share: float) -> tuple:
    """The first colour with a share of the second."""
    return tuple(int(a + (b - a) * share) for a, b in zip(first, second, strict=True))


def upright(start: tuple, end: tuple, low: float, high: float) -> list:
    """Corners of a vertical rectangle between two (lateral, ahead) places."""
    (s0, z0), (s1, z1) = start, end
    return [(s0, low, z0), (s1, low, z1), (s1, high, z1), (s0, high, z0)]


def facing(s: float, z: float, half_width: float, low: float, high: float) -> list:
    """Corners of a vertical rectangle that faces the camera."""
    return upright((s - half_width, z), (s + half_width, z), low, high)


def flat(s0: float, s1: float, z0: float, z1: float) -> list:
    """Outline of a strip of ground along the road, with points enough to follow the bend."""
    ahead = np.geomspace(max(z0, NEAR), max(z1, NEAR + 0.1), 2 + int((z1 - z0) / 6)).tolist()
    return [(s0, 0, z) for z in ahead] + [(s1, 0, z) for z in reversed(ahead)]


def ring(radius: float, count: int = 10) -> list:
    """Points of a circle around (0, 0)."""
    turns = [2 * math.pi * i / count for i in range(count)]
    return [(radius * math.cos(turn), radius * math.sin(turn)) for turn in turns]


def within(quad: list, left: float, right: float, low: float, high: float) -> list:
    """Corners of a part of a four-cornered face, in shares of its width and height."""

    def point(x, y):
        corners = zip(*quad, strict=True)
        return tuple((a + (b - a) * x) * (1 - y) + (d + (c - d) * x) * y for a, b, c, d in corners)

    return [point(left, low), point(right, low), point(right, high), point(left, high)]


def shrink(points: list, share: float) -> list:
    """The polygon drawn in towards its middle."""
    middle = [sum(axis) / len(points) for axis in zip(*points, strict=True)]
    return [tuple(m + (p - m) * share for p, m in zip(q, middle, strict=True)) for q in points]


def noise(rng: np.random.Generator, shape: tuple[int, int], cells: int) -> np.ndarray:
    """Smooth noise, float32, with this many cells down and across; opposite edges meet."""
    seeds = np.pad(rng.normal(0, 1.3, (cells, cells)).astype(np.float32), 2, "wrap")
    inner = 2, 2, cells + 2, cells + 2
    return np.asarray(Image.fromarray(seeds).resize(shape[::-1], Image.Resampling.BICUBIC, inner))


# The street: what there is, where, and how often -------------------------------------------------


def lay_out(canvas: Canvas) -> list:
    """Paint the ground, and list what stands on it as (distance, drawing function)."""
    rng, things = canvas.rng, []
    street = SimpleNamespace(lane=rng.uniform(2.9, 3.6), lanes=1 + (rng.random() < 0.25))
    street.half = street.lanes * street.lane
    street.tram = rng.random() < 0.08
    street.opening = rng.uniform(9, 45) if rng.random() < 0.5 else 2 * FAR  # of a side street
    street.closing = street.opening + rng.uniform(6, 9)
    canvas.offset = street.half - street.lane / 2 + rng.normal(0, 0.25)
    sides = [choose_side(rng, street, sign) for sign in (-1, 1)]
    paint_ground(canvas, street, sides)

    def add(distance, function, *arguments):
        things.append((distance, partial(function, canvas, *arguments)))

    add_backdrop(canvas, add)
    for side in sides:
        add_frontage(canvas, add, street, side)
        add_furniture(canvas, add, street, side)
    add_traffic(canvas, add, street, sides)
    # Shadows lie on the bare ground only; all are known now, and nothing else is drawn yet.
    soft = canvas.shadows.filter(ImageFilter.GaussianBlur(canvas.colours.height / 200))
    canvas.colours.paste((14, 17, 28), mask=soft)
    return things


def choose_side(rng, street, sign) -> SimpleNamespace:
    """The kind of one side of the street, and where its strips begin, in metres from the centre."""
    kind = ("city", "suburb", "country")[rng.choice(3, p=(0.18, 0.31, 0.51))]
    side = SimpleNamespace(sign=sign, kind=kind)
    side.parking = rng.random() < {"city": 0.6, "suburb": 0.5, "country": 0.12}[kind]
    side.kerb = street.half + (2.3 if side.parking else rng.uniform(0.1, 0.5))
    has_verge = rng.random() < (0.15 if kind == "city" else 0.45)
    side.walk = side.kerb + has_verge * rng.uniform(0.8, 2.5)
    low, high = {"city": (2, 4.5), "suburb": (1.3, 2.4), "country": (1.2, 2)}[kind]
    side.end = side.walk + rng.uniform(low, high) * (kind != "country" or rng.random() < 0.4)
    side.front = side.end + (rng.uniform(0.5, 3) if kind == "country" else 0)
    return side


def paint_ground(canvas, street, sides) -> None:
    """Terrain, pavements, road, marks and patches; then the depth of the bare ground."""
    rng, half, opening, closing = canvas.rng, street.half, street.opening, street.closing
    tar = rng.uniform(78, 142) + rng.normal(0, 4, 3)
    slabs = tar * rng.uniform(0.95, 1.4) + rng.normal(2, 5, 3)
    for side in sides:
        sign, city = side.sign, side.kind == "city"
        yard = shade(slabs, 0.92) if city else pick(rng, GROUNDS)
        canvas.fill(flat(0, sign * 150, NEAR, FAR), SIDEWALK if city else TERRAIN, yard)
        # A strip without width would still leave a dotted line.
        if side.walk > side.kerb:
            verge = flat(sign * side.kerb, sign * side.walk, NEAR, FAR)
            canvas.fill(verge, TERRAIN, pick(rng, GROUNDS))
        if side.end > side.walk:
            walk = flat(sign * side.walk, sign * side.end, NEAR, FAR)
            canvas.fill(walk, SIDEWALK, shade(slabs, 1))
            for z in np.arange(3, 30, rng.uniform(0.8, 2)):
                joint = flat(sign * side.walk, sign * side.end, z, z + 0.05)
                canvas.fill(joint, None, shade(slabs, 0.85))
    if opening < FAR:
        canvas.fill(flat(-150, 150, opening - 2, closing + 2), SIDEWALK, shade(slabs, 1))
        canvas.fill(flat(-150, 150, opening, closing), ROAD, shade(tar, 1.02))
    canvas.fill(flat(-sides[0].kerb, sides[1].kerb, NEAR, FAR), ROAD, shade(tar, 1))
    stretches = [(z0, z1) for z0, z1 in ((NEAR, min(opening, FAR)), (closing, FAR)) if z0 < z1]
    for side in (side for side in sides if side.end > side.kerb):
        for stretch in stretches:
            kerb, inner, outer = (side.sign * (side.kerb + step) for step in (0, 0.22, -0.25))
            canvas.fill(flat(kerb, inner, *stretch), SIDEWALK, shade(slabs, 1.15))
            canvas.fill(flat(kerb, outer, *stretch), None, shade(tar, 0.8))
    for _ in range(rng.integers(0, 7)):
        s, z = rng.uniform(-half, half), rng.uniform(5, 35)
        patch = flat(s, s + rng.uniform(0.5, 2), z, z + rng.uniform(0.7, 6))
        canvas.fill(patch, None, shade(tar, rng.choice([0.8, 0.88, 1.1])))
    white = shade((225, 222, 210), rng.uniform(0.75, 1.05))
    for line in range(-street.lanes, street.lanes + 1):
        at_edge = abs(line) == street.lanes
        if rng.random() < (0.3 if at_edge else 0.15):
            continue
        s = line * street.lane - np.sign(line) * 0.2 * at_edge
        dashed = not at_edge and (line != 0 or rng.random() < 0.75)
        step, dash = (rng.uniform(6, 12), rng.uniform(2, 4)) if dashed else (6, 6.1)
        for z in np.arange(rng.uniform(1, 6), FAR, step):
            if z + dash < opening - 2 or z > closing + 2:
                canvas.fill(flat(s - 0.07, s + 0.07, z, z + dash), None, white)
    crossing = opening - 4.5 if opening < FAR else rng.uniform(10, 30)
    if crossing > 4 and rng.random() < (0.7 if opening < FAR else 0.2):
        for s in np.arange(-half + 0.3, half - 0.4, 1.0):
            canvas.fill(flat(s, s + 0.5, crossing, crossing + 3), None, white)
        canvas.fill(flat(0, half, crossing - 1.6, crossing - 1.2), None, white)
    for s in (-2.4, -0.96, 0.4, 1.84) if street.tram else ():
        canvas.fill(flat(s - 0.06, s + 0.06, NEAR, FAR), None, shade(tar, 0.55))
    ahead = np.geomspace(FAR, NEAR, 200)
    rows = [canvas.project(0, 0, z)[1] for z in ahead]
    width, height = canvas.colours.size
    depth = np.interp(np.arange(height), rows, ahead, left=1e4).astype(np.float32)
    canvas.depths.paste(Image.fromarray(np.repeat(depth[:, None], width, 1)))


def add_backdrop(canvas, add) -> None:
    """What closes the view at the end of the road."""
    rng = canvas.rng
    wooded = rng.uniform(0.2, 1)
    for s in range(-130, 130, 9):
        if rng.random() < wooded:
            place = s, FAR - rng.uniform(0, 6)
            add(FAR + 1, draw_tree, *place, rng.uniform(5, 12), pick(rng, GREENS))
        else:
            add(FAR + 2, draw_house, 1 if s > 0 else -1, s, FAR - 3, FAR, rng.uniform(6, 20))
    for s in range(-130, 130, 4):
        hedge = upright((s, FAR - 8), (s + 4.2, FAR - 8), 0, rng.uniform(1.5, 4))
        add(FAR, draw_barrier, hedge, "hedge", pick(rng, GREENS))


def add_frontage(canvas, add, street, side) -> None:
    """Buildings, gardens, woods and what encloses them, plot by plot."""
    rng, sign, front = canvas.rng, side.sign, side.sign * side.front
    green = pick(rng, GREENS)
    barrier = choose_barrier(rng, green)
    z = rng.uniform(-4, 3)
    while z < FAR - 12:
        end = z + rng.uniform(8, 20)
        if z < street.closing + 2 and end > street.opening - 2:
            end = street.opening - 2.2
            if end - z < 4:
                z = street.closing + 2.2
                continue
        terraced = side.kind == "city" and rng.random() < 0.8
        built = terraced or rng.random() < {"city": 0, "suburb": 0.5, "country": 0.06}[side.kind]
        height = rng.uniform(6, 16) if terraced else rng.uniform(3.5, 7)
        line = front + (0 if terraced else sign * rng.uniform(2.5, 7))
        if built:
            near = z + (0 if terraced else rng.uniform(0.5, 3))
            add(end, draw_house, sign, line, near, end, height)
            back = line + sign * 10
            canvas.cast([(line, near), (back, near), (back, end), (line, end)], height)
        if not terraced:
            if rng.random() < 0.3:
                barrier = choose_barrier(rng, green)
            edges = np.linspace(max(z, 1), end, 2 + int((end - z) / 2.5)).tolist()
            for a, b in pairwise(edges) if barrier else ():
                kind, top, colour = barrier
                add(b, draw_barrier, upright((front, b), (front, a), 0, top), kind, colour)
                canvas.cast([(front, a), (front, b)], top)
            density = {"city": 0.5, "suburb": 0.28, "country": 0.5}[side.kind]
            for where in np.arange(max(z, 2), end, 2.0):
                if rng.random() < density:
                    size = rng.uniform(2, 5) if built else rng.uniform(3, 11)
                    s = front + sign * (rng.uniform(1, 3 if built else 14) + 0.15 * size)
                    add_tree(canvas, add, s, where, size, green)
        z = end


def choose_barrier(rng, green) -> tuple | None:
    """Kind, height and colour of what stands between a plot and the street."""
    kinds = ["hedge", "wall", "palings", "railing", "guard rail", None]
    kind = kinds[rng.choice(6, p=(0.3, 0.2, 0.1, 0.08, 0.1, 0.22))]
    colour = green if kind == "hedge" else pick(rng, STONES if kind == "wall" else STONES + METALS)
    height = rng.uniform(0.7, 0.9) if kind == "guard rail" else rng.uniform(0.8, 2.2)
    return kind and (kind, height, colour)


def add_tree(canvas, add, s, z, size, green) -> None:
    """A tree of about this height and colour, with its shadow."""
    add(z, draw_tree, s, z, size, pick(canvas.rng, [green], 7))
    canvas.cast([(s + x, z + y) for x, y in ring(size * 0.3, 16)], size * 0.7)


def add_furniture(canvas, add, street, side) -> None:
    """Lamps, traffic lights, signs, street trees, people, bins and parked cycles."""
    rng, sign, kerb = canvas.rng, side.sign, side.kerb
    metal = pick(rng, METALS)

    def put(count, farthest):
        """Places beside the road, denser nearby, none in the mouth of the side street."""
        for _ in range(rng.poisson(count)):
            z = 6.5 + farthest * rng.random() ** 1.2
            if not street.opening - 1 < z < street.closing + 1:
                yield sign * rng.uniform(kerb + 0.4, max(side.end - 0.2, kerb + 0.8)), z

    if rng.random() < 0.75:
        tall = rng.uniform(5, 9)
        for z in np.arange(rng.uniform(6, 25), 85, rng.uniform(15, 30)):
            add(z, draw_lamp, sign * (kerb + 0.5), z, sign, tall, metal)
            canvas.cast([(sign * (kerb + x), z) for x in (0.4, 0.6)], tall)
    if street.opening < 60 and rng.random() < 0.7:
        z = street.opening - 2.5 if sign > 0 else street.closing + 2.5
        add(z, draw_traffic_light, sign * (kerb + 0.6), z, sign, metal)
    for _, z in put(1.3, 40):
        add(z, draw_sign, sign * (kerb + rng.uniform(0.4, 1)), z, metal)
    if rng.random() < 0.42:
        size, green = rng.uniform(4, 9), pick(rng, GREENS)
        for z in np.arange(rng.uniform(6, 16), 90, rng.uniform(6, 13)):
            if not street.opening - 1 < z < street.closing + 1:
                s = sign * (side.walk + 0.7)
                add_tree(canvas, add, s, z, size * rng.uniform(0.85, 1.15), green)
    for s, z in put({"city": 2, "suburb": 0.6, "country": 0.2}[side.kind], 35):
        for step in range(rng.integers(1, 3)):
            add(z, draw_figure, s + 0.6 * step, z, rng.uniform(1.5, 1.9), PERSON)
            canvas.cast([(s + x + 0.6 * step, z) for x in (-0.2, 0.2)], 1.6)
    for s, z in put(0.3, 24):
        add(z, draw_cycle, s, z, rng.uniform(-1, 2), BICYCLE, False)
    for _, z in put(0.12, 16):
        s = sign * (kerb - 0.8 if side.parking else kerb + 0.6)
        add(z, draw_cycle, s, z, rng.uniform(-1, 2), MOTORCYCLE, False)
    for _, z in put(0.5, 24):
        add(z, draw_bin, sign * max(side.end - 0.3, kerb + 0.4), z)


def add_traffic(canvas, add, street, sides) -> None:
    """Parked, leading, oncoming and crossing vehicles, and riders."""
    rng, half = canvas.rng, street.half

    def drive(s, z, heading, kind=None):
        """Place a vehicle whose rear (or front, if oncoming) is at z; return its length."""
        kind = (CAR, TRUCK, BUS)[rng.choice(3, p=(0.85, 0.085, 0.065))] if kind is None else kind
        length, width, height = size = rng.uniform(*VEHICLES[kind][1:3]).tolist()
        z += length if heading == math.pi else 0
        sine, cosine = math.sin(heading), math.cos(heading)
        corners = [
            (s + a * length * sine + c * width * cosine, z + a * length * cosine - c * width * sine)
            for a, c in ((-0.03, -0.5), (-0.03, 0.5), (1.03, 0.5), (1.03, -0.5))
        ]
        add(sum(ahead for _, ahead in corners) / 4, draw_vehicle, s, z, heading, kind, size)
        canvas.cast(corners, height)
        beneath = [canvas.project(lateral, 0, ahead) for lateral, ahead in corners]
        canvas.pens[3].polygon(beneath, fill=190)
        return length

    for side in (side for side in sides if side.parking):
        z, crowding = rng.uniform(3, 9), rng.uniform(0.3, 0.95)
        while z < 75:
            if rng.random() < crowding and not street.opening - 7 < z < street.closing + 1:
                heading = 0.0 if side.sign > 0 else math.pi
                z += drive(side.sign * (side.kerb - 1.15), z, heading, CAR)
            z += rng.uniform(0.7, 3)
    for s in np.arange(street.lane / 2, half, street.lane):
        z = rng.uniform(9, 60)
        while z < 90 and rng.random() < 0.6:
            z += drive(s + rng.normal(0, 0.2), z, 0.0) + rng.uniform(6, 40)
        z = rng.uniform(14, 55)
        while z < 90 and rng.random() < 0.55 and not street.tram:
            z += drive(-s + rng.normal(0, 0.2), z, math.pi) + rng.uniform(8, 40)
    if street.tram:
        drive(-1.7, rng.uniform(12, 30), math.pi, TRAIN)
    if street.opening < 45 and rng.random() < 0.4:
        heading, s = rng.choice([-1, 1]) * math.pi / 2, rng.choice([-1, 1]) * rng.uniform(5, 14)
        drive(s, (street.opening + street.closing) / 2, heading)
    for chance, label in ((0.13, BICYCLE), (0.12, MOTORCYCLE)):
        if rng.random() < chance:
            s, z = rng.choice([-1, 1]) * (half - 0.5), rng.uniform(7, 24)
            add(z - 0.5, draw_cycle, s, z, rng.normal(0, 0.35), label, True)
            canvas.cast([(s - 0.25, z), (s + 0.25, z)], 1.6)


# The things: how each one looks ------------------------------------------------------------------


def paint_sky(canvas: Canvas) -> None:
    """A gradient with clouds; its colour at the horizon is also that of haze and of glass."""
    rng, (width, height) = canvas.rng, canvas.colours.size
    grey = rng.uniform(165, 240)
    canvas.haze = mix((grey, grey, grey * 1.03), (236, 214, 184), rng.uniform(0, 0.6))
    top = mix((74, 126, 200), canvas.haze, rng.uniform(0, 1 - 0.6 * canvas.sunshine))
    share = np.clip(np.arange(height) / canvas.horizon, 0, 1)[:, None, None] ** 1.3
    clouds = noise(rng, (height, width), 5) + 0.6 * noise(rng, (height, width), 14)
    clouds = np.clip(clouds * 0.5 + rng.uniform(-0.7, 0.5), 0, 1)[..., None] * 0.8
    sky = (np.array(top) * (1 - share) + np.array(canvas.haze) * share) * (1 - clouds)
    sky += rng.uniform(190, 250) * clouds
    canvas.colours.paste(Image.fromarray(np.clip(sky, 0, 255).astype(np.uint8)))


def paint_bonnet(canvas: Canvas) -> None:
    """The own car's bonnet, with the sky in it: in the picture, but not labelled."""
    width, height = canvas.colours.size
    paint = pick(canvas.rng, PAINTS)
    rise = height * canvas.rng.uniform(0.04, 0.10)
    for level in np.linspace(0, 1, 6):
        box = [-0.1 * width, height - rise * (1 - 0.8 * level), 1.1 * width, height + 3 * rise]
        colour = mix(mix(paint, canvas.haze, 0.45), paint, level)
        canvas.stamp("ellipse", box, UNLABELLED, colour, NEAR)


def draw_house(canvas, sign, front, z0, z1, height) -> None:
    """A building: roof, street face, and the face towards the camera."""
    rng, base = canvas.rng, pick(canvas.rng, FACADES)
    frame = mix(base, pick(rng, [(235, 232, 226), (90, 80, 72)]), 0.6)
    shop = pick(rng, PAINTS + SIGNS) if height > 8 and rng.random() < 0.45 else None
    bay, back = rng.uniform(2, 3.6), front + sign * rng.uniform(9, 16)
    if rng.random() < (0.8 if height < 8.5 else 0.4):
        ridge, middle, eaves = height + rng.uniform(1.5, 3.5), (front + back) / 2, height - 0.2
        slope = upright((front - sign * 0.4, z0), (front - sign * 0.4, z1), eaves, eaves)[:2]
        slope += [(middle, ridge, z1), (middle, ridge, z0)]
        canvas.fill(slope, BUILDING, shade(pick(rng, TILES), canvas.light(-sign * 0.7, 0.7, 0)))
        gable = [(front, height, z0), (middle, ridge, z0), (back, height, z0)]
        canvas.fill(gable, BUILDING, shade(base, canvas.light(0, 0, -1)))
    draw_facade(canvas, (front, z1), (front, z0), height, base, frame, bay, shop)
    if z0 > NEAR:
        draw_facade(canvas, (back, z0), (front, z0), height, base, frame, bay, shop)


def draw_facade(canvas, start, end, height, base, frame, bay, shop) -> None:
    """One face of a building from its far to its near end: wall, windows, shop, cornice."""
    rng, along = canvas.rng, start[0] == end[0]
    light = canvas.light(-np.sign(start[0]), 0, 0) if along else canvas.light(0, 0, -1)
    count, storeys = max(1, round(math.dist(start, end) / bay)), max(1, round(height / 3.1))
    for i in range(count):
        # Bay by bay, so that depth follows the face.
        strip = within(upright(start, end, 0, height), i / count, (i + 1) / count, 0, 1)
        canvas.fill(strip, BUILDING, shade(base, light))
        for storey in range(storeys if strip[0][2] > NEAR and end[1] < 90 else 0):
            margin, low, high = 0.22, 0.28, 0.82
            if storey == 0 and shop:
                margin, low, high = 0.06, 0.1, 0.75
            elif storey == 0 and rng.random() < 0.2:
                margin, low = 0.3, 0.0
            low, high = (storey + low) / storeys, (storey + high) / storeys
            pane = within(strip, margin, 1 - margin, low, high)
            if end[1] < 35:
                canvas.fill(pane, None, shade(frame, light))
                pane = within(pane, 0.1, 0.9, 0.08, 0.92)
            glass = mix((34, 38, 44), canvas.haze, rng.uniform(0, 0.55) ** 1.5)
            canvas.fill(pane, None, shade(glass, 0.8 + 0.3 * light))
    face = upright(start, end, 0, height)
    if shop:
        canvas.fill(within(face, 0, 1, 0.8 / storeys, 0.98 / storeys), None, shade(shop, light))
    canvas.fill(within(face, 0, 1, 1 - 0.1 / storeys, 1), None, shade(frame, light * 0.95))


def draw_tree(canvas, s, z, size, green) -> None:
    """A trunk and a crown of overlapping leaf clusters, brighter above and towards the sun."""
    rng, thick = canvas.rng, 0.025 * size
    bark = shade((92, 78, 64), rng.uniform(0.6, 1.2))
    canvas.fill(facing(s, z, thick, 0, size * 0.5), VEGETATION, bark)
    count = 60 if z < 30 else 30 if z < 60 else 9
    spread, leaf = rng.uniform(0.24, 0.36) * size, 0.45 * size / math.sqrt(count)
    for i in range(count):
        angle, radius = rng.uniform(0, 2 * math.pi), math.sqrt(rng.random())
        across, up = radius * math.cos(angle), radius * math.sin(angle)
        light = 0.8 + 0.24 * up + (0.1 + 0.2 * canvas.sunshine) * across * canvas.sun[0]
        light *= (0.7 + 0.4 * i / count) * rng.uniform(0.8, 1.2)
        point = s + across * spread, size * (0.66 + 0.32 * up), z
        wide, high = leaf * rng.uniform(0.9, 1.9), leaf * rng.uniform(0.8, 1.5)
        canvas.ball(point, wide, high, VEGETATION, shade(green, light))


def draw_barrier(canvas, piece, kind, colour) -> None:
    """A piece of hedge, wall or fence. A fence's label covers its gaps, its colour only bars."""
    rng = canvas.rng
    light = canvas.light(-np.sign(piece[0][0]), 0, 0)
    lit = shade(colour, light)
    if kind == "hedge":
        canvas.fill(piece, VEGETATION, lit)
        height = piece[2][1]
        for _ in range(14 if piece[0][2] < 50 else 4):
            up, leaf = rng.uniform(0.1, 1), rng.uniform(0.06, 0.16) * (height + 0.5)
            point = within(piece, rng.random(), 1, up, 1)[0]
            tone = shade(colour, light * (0.65 + 0.45 * up) * rng.uniform(0.8, 1.2))
            canvas.ball(point, leaf * 1.3, leaf, VEGETATION, tone)
    elif kind == "wall":
        canvas.fill(piece, WALL, shade(lit, rng.uniform(0.95, 1.05)))
        canvas.fill(within(piece, 0, 1, 0.92, 1), None, shade(lit, 1.2))
    else:
        canvas.fill(piece, FENCE, lit if kind == "palings" else None)
        bars, width = {"palings": (6, 0.15), "railing": (12, 0.5), "guard rail": (1, 0.06)}[kind]
        for i in range(bars):
            bar = within(piece, i / bars, (i + width) / bars, 0, 1)
            canvas.fill(bar, None, shade(lit, 0.6 if kind == "palings" else 1))
        for low, high in [(0.5, 0.95)] if kind == "guard rail" else [(0.2, 0.26), (0.85, 0.92)]:
            canvas.fill(within(piece, 0, 1, low, high), None, shade(lit, 0.9))


def draw_lamp(canvas, s, z, sign, tall, metal) -> None:
    """A street lamp: a pole with an arm over the road."""
    canvas.fill(facing(s, z, 0.09, 0, tall), POLE, metal)
    canvas.fill(facing(s - sign * 0.8, z, 0.8, tall - 0.12, tall), POLE, metal)
    canvas.fill(facing(s - sign * 1.5, z, 0.4, tall - 0.15, tall + 0.1), POLE, shade(metal, 1.3))


def draw_traffic_light(canvas, s, z, sign, metal) -> None:
    """A signal on a post, sometimes with one more on an arm over the road."""
    rng, heads = canvas.rng, [(s, 2.4)]
    if rng.random() < 0.5:
        canvas.fill(facing(s - sign * 2, z, 2, 5.8, 5.95), POLE, metal)
        heads.append((s - sign * 3.7, 5))
    canvas.fill(facing(s, z, 0.08, 0, 2.4 if len(heads) == 1 else 5.95), POLE, metal)
    case, lit = shade((34, 38, 36), rng.uniform(0.7, 1.5)), rng.integers(3)
    for where, low in heads:
        canvas.fill(facing(where, z, 0.22, low, low + 1.05), TRAFFIC_LIGHT, case)
        for i, colour in enumerate([(60, 230, 130), (250, 190, 50), (250, 60, 44)]):
            lens = shade(colour, 1 if i == lit else 0.2)
            canvas.ball((where, low + 0.2 + 0.32 * i, z), 0.13, 0.13, None, lens)


def draw_sign(canvas, s, z, metal) -> None:
    """A disc, triangle, diamond or board on its post, at times seen from behind."""
    rng = canvas.rng
    high, radius, wide = rng.uniform(2.1, 2.7), rng.uniform(0.32, 0.48), rng.uniform(1, 1.8)
    canvas.fill(facing(s, z, 0.045, 0, high), POLE, metal)
    outer, inner = pick(rng, SIGNS, 8), (228, 226, 220)
    if rng.random() < 0.2:
        outer = inner = (130, 132, 134)
    triangle = [(-0.9, -0.7), (0.9, -0.7), (0, 0.9)]
    rectangle = [(-0.7 * wide, -0.7), (0.7 * wide, -0.7), (0.7 * wide, 0.7), (-0.7 * wide, 0.7)]
    shape = [ring(1, 12), ring(1, 4), triangle, rectangle][rng.integers(4)]
    board = [(s + radius * x, high + radius * (0.3 + y), z) for x, y in shape]
    canvas.fill(board, TRAFFIC_SIGN, outer)
    canvas.fill(shrink(board, rng.choice([0.25, 0.7])), None, inner)


def draw_bin(canvas, s, z) -> None:
    """A bin or box, which no class of the label set covers."""
    colour, wide = pick(canvas.rng, PAINTS), canvas.rng.uniform(0.25, 0.6)
    front = facing(s, z, wide, 0, canvas.rng.uniform(0.8, 1.5))
    canvas.fill(front, UNLABELLED, shade(colour, 0.8))
    canvas.fill(within(front, 0, 1, 0.88, 1), None, colour)


def draw_figure(canvas, s, z, height, label, low=0.0) -> None:
    """Legs, body and head of somebody walking or riding; `low` is the height of the feet."""
    rng, stride = canvas.rng, canvas.rng.uniform(-0.22, 0.22)
    coat, trousers = pick(rng, CLOTHES), pick(rng, CLOTHES)
    hair = pick(rng, [(40, 32, 28), (110, 84, 56), (180, 176, 170)])

    def limb(outline, colour):
        canvas.fill([(s + x, low + y * height, z) for x, y in outline], label, colour)

    for foot, tone in ((stride, 0.8), (-stride, 1.0)):
        leg = [(-0.12, 0.5), (0.12, 0.5), (foot + 0.08, 0), (foot - 0.08, 0)]
        limb(leg, shade(trousers, tone))
    half = [(0, 0.45), (0.17, 0.45), (0.25, 0.62), (0.23, 0.8), (0.1, 0.86), (0, 0.86)]
    limb(half, shade(coat, 0.85))
    limb([(-x, y) for x, y in half], coat)
    canvas.ball((s, low + 0.93 * height, z), 0.1, 0.13, label, pick(rng, SKINS))
    canvas.ball((s, low + 0.97 * height, z), 0.1, 0.08, label, hair)


def draw_cycle(canvas, s, z, heading, label, ridden) -> None:
    """A bicycle or motorcycle, with a rider or parked."""
    heavy, paint = label == MOTORCYCLE, pick(canvas.rng, PAINTS)
    sine, cosine = math.sin(heading), math.cos(heading)

    def plate(points, colour):
        """Fill a polygon of (along, across, up) points."""
        placed = [(s + a * sine + c * cosine, up, z + a * cosine - c * sine) for a, c, up in points]
        canvas.fill(placed, label, colour)

    def bar(along, half_width, low, high, colour):
        """Fill a rectangle across the cycle, which gives it a width when seen from its end."""
        plate([(along, *corner[:2]) for corner in facing(0, 0, half_width, low, high)], colour)

    thick, radius, reach = (0.16, 0.31, 0.62) if heavy else (0.045, 0.34, 0.52)
    for along in (reach, -reach):
        for share, colour in ((1, RUBBER), (0.5 if heavy else 0.75, CHROME)):
            plate([(along + a, 0, radius + up) for a, up in ring(radius * share)], colour)
        bar(along, thick, 0, 2 * radius, RUBBER)
    for across in (1.2 * thick, -1.2 * thick):
        outline = MOTORCYCLE_BODY if heavy else BICYCLE_FRAME
        plate([(a, across, up) for a, up in outline], paint)
    bar(-0.3, 1.2 * thick, 0.35, 0.95, shade(paint, 0.8))
    bar(0.4, 0.33, 0.98, 1.06, RUBBER)
    if ridden:
        draw_figure(canvas, s, z, 1.45, RIDER, 0.3)


def draw_vehicle(canvas, s, z, heading, kind, size) -> None:
    """A car, truck, bus or tram: a side view pulled to its width and painted face by face.

    (s, z) is the middle of the rear end, which lies away from the camera when heading is pi.
    """
    rng, (length, width, height) = canvas.rng, size
    views, _, _, axles = VEHICLES[kind]
    profile = views[rng.integers(len(views))]
    sine, cosine = math.sin(heading), math.cos(heading)
    paint, cover = pick(rng, PAINTS if kind == CAR else PAINTS + SIGNS), pick(rng, PAINTS)
    glass = mix((26, 30, 34), canvas.haze, rng.uniform(0.05, 0.35))

    def place(along, across, up):
        """The point at these shares of the length, half width and height."""
        across *= width / 2 * (1 - (0.5 * max(0.0, up - 0.6) if kind == CAR else 0))
        along *= length
        return s + along * sine + across * cosine, up * height, z + along * cosine - across * sine

    def distance(face):
        points = face[0][0]
        lateral, _, ahead = (sum(axis) / len(points) for axis in zip(*points, strict=True))
        return math.hypot(lateral - canvas.offset + canvas.bend * ahead**2 / 2, ahead)

    def end_face(start, stop):
        """One edge of the side view pulled across, with what is on it."""
        run, rise = (stop[0] - start[0]) * length, (stop[1] - start[1]) * height
        up, back = run / math.hypot(run, rise), -rise / math.hypot(run, rise)
        light = canvas.light(back * sine, up, back * cosine)
        low, high = sorted([start, stop], key=lambda corner: corner[1])
        quad = [place(a, c, u) for (a, u), c in ((low, -1), (low, 1), (high, 1), (high, -1))]
        rear, details = start[0] == 0, []
        face = [(quad, shade(cover if kind == TRUCK and start[0] < 0.76 else paint, light))]
        if low[1] <= 0.2:
            lens = (200, 24, 24) if rear else (240, 240, 225)
            level = (0.6, 0.84) if kind == CAR else (0.1, 0.16)
            details = [((0.01, 0.99, 0, 0.12), RUBBER), ((0.36, 0.64, 0.15, 0.3), CHROME)]
            details += [((0.03, 0.2, *level), lens), ((0.8, 0.97, *level), lens)]
            if kind in (BUS, TRAIN) or (kind == TRUCK and not rear):
                details.append(((0.07, 0.93, 0.45, 0.9), glass))
        elif kind == CAR and high[1] > 0.9 and low[1] < 0.8:
            details = [((0.07, 0.93, 0.07, 0.93), shade(glass, 0.9 + 0.2 * up))]
        return face + [(within(quad, *share), colour) for share, colour in details]

    def side_face(side):
        """The side view with its windows and wheels."""
        light = canvas.light(side * cosine, 0, -side * sine)
        panes, count = [], round(length / 1.7)
        if kind == CAR:
            cabin = [(a, max(u, 0.66)) for a, u in profile if u > 0.59 and a < 0.8]
            panes = [(shrink(cabin, 0.82), shade(glass, light))]
        elif kind == TRUCK:
            panes = [(LORRY[3:] + [(0.76, 0.15)], shade(paint, light))]
        else:
            spans = [((i + 0.06) / count, (i + 0.94) / count) for i in range(count)]
            panes = [([(a, 0.47), (b, 0.47), (b, 0.8), (a, 0.8)], glass) for a, b in spans]
        radius = 0.32 if kind == CAR else 0.48
        for axle in axles:
            for share, colour in ((1, RUBBER), (0.55, CHROME)):
                rim = ring(radius * share)
                rim = [(axle + a / length, (radius + up) / height) for a, up in rim]
                panes.append((rim, colour))
        parts = [(profile, shade(cover if kind == TRUCK else paint, light)), *panes]
        return [([place(a, side, u) for a, u in outline], colour) for outline, colour in parts]

    for axle in sorted(axles, reverse=cosine > 0):
        for side in (-1, 1):
            tyre = [(0.95, 0), (0.6, 0), (0.6, 0.22), (0.95, 0.22)]
            canvas.fill([place(axle, side * c, u) for c, u in tyre], kind, RUBBER)
    faces = [end_face(*edge) for edge in pairwise(profile)] + [side_face(-1), side_face(1)]
    for face in sorted(faces, key=distance, reverse=True):
        for points, colour in face:
            canvas.fill(points, kind, colour)


# The picture: from drawn colours to those of a camera --------------------------------------------


def expose(canvas: Canvas) -> np.ndarray:
    """Add texture, haze, lens and sensor, at the size asked for: uint8 (height, width, 3)."""
    rng, (width, height) = canvas.rng, canvas.colours.size
    labels, depth = np.asarray(canvas.labels), np.minimum(np.asarray(canvas.depths), 2 * FAR)
    colours = np.asarray(canvas.colours).astype(np.float32)
    # Texture belongs to the world, not to the picture: it is looked up by metres, on the ground
    # by (beside, ahead), on upright faces of either direction by (beside + ahead, up + ahead).
    x = (np.arange(width, dtype=np.float32) - canvas.centre)[None] * depth / canvas.focal
    y = (np.arange(height, dtype=np.float32) - canvas.horizon)[:, None] * depth / canvas.focal
    x += depth * ~np.isin(labels, (ROAD, SIDEWALK, TERRAIN))
    y += 0.6 * depth
    table = np.array([ROUGHNESS.get(label, ROUGHNESS[None]) for label in range(256)], np.float32)
    table *= rng.uniform(0.6, 1.4, 2)
    texture = np.ones_like(depth)
    for column, (texels, octaves) in enumerate([(20.0, (256, 128, 48)), (6.0, (64, 32, 12))]):
        pattern = sum(0.6 * noise(rng, (TEXTURE_SIDE, TEXTURE_SIDE), cells) for cells in octaves)
        # The jitter lets neighbouring texels run into each other close to the camera.
        jitter = rng.random(depth.shape, np.float32)
        down, across = (
            (axis * texels + jitter).astype(int) & (TEXTURE_SIDE - 1) for axis in (y, x)
        )
        # Texels far below the size of a pixel would only be noise.
        texture += table[labels, column] * pattern[down, across] * np.minimum(1, 25 / depth)
    haze = (1 - np.exp(-depth / rng.uniform(120, 700))) * (labels != SKY)
    colours *= np.clip(texture, 0.3, 1.8)[..., None]
    colours += (np.array(canvas.haze, np.float32) - colours) * haze[..., None]
    colours = colours.reshape(height // SAMPLES, SAMPLES, width // SAMPLES, SAMPLES, 3)
    small = Image.fromarray(np.clip(colours.mean((1, 3)), 0, 255).astype(np.uint8))
    blur = ImageFilter.GaussianBlur(small.height / 128 * rng.uniform(0, 0.45))
    light = np.asarray(small.filter(blur)).astype(np.float32) / 255
    light = light ** rng.uniform(0.75, 1.2) * rng.uniform(0.85, 1.2) * rng.normal(1, 0.03, 3)
    across, down = np.linspace(-1, 1, small.width), np.linspace(-1, 1, small.height)[:, None]
    light *= (1 - rng.uniform(0, 0.12) * (across**2 + down**2))[..., None]
    light += rng.normal(0, rng.uniform(0.004, 0.02), light.shape)
    return (np.clip(light, 0, 1) * 255).astype(np.uint8)
