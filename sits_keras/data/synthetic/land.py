"""The unchanging side of a place: where every parcel lies and what it is."""

from typing import NamedTuple

import numpy as np
from scipy import ndimage, spatial

from sits_keras.data.synthetic.patterns import distance_to_curve, smooth_noise, turned_axes, voronoi
from sits_keras.data.synthetic.states import (
    CROP_DAYS,
    FOREST,
    GRASS,
    MAX_DELAY,
    ROAD,
    SOIL,
    SUPPORTED_BANDS,
    TOWN,
    WATER,
)


class Land(NamedTuple):
    """The unchanging side of a place: `(height, width)` arrays, then one row per parcel."""

    parcels: np.ndarray
    texture: np.ndarray  # around 0
    soil: np.ndarray  # around 0; brightness of the ground
    rows: np.ndarray  # -1 to 1; sown and mown lines
    roofs: np.ndarray  # relative brightness of what stands in towns
    gardens: np.ndarray  # share of green in towns
    cover: np.ndarray  # the state outside events; bare soil stands for arable land
    tints: np.ndarray  # (parcels, SUPPORTED_BANDS); relative reflectance
    variety: np.ndarray  # 0 to 1; share of needle trees, yellowness of crops
    first_crop: np.ndarray  # offset in the crop rotation
    delay: np.ndarray  # days behind the crop calendar


def make_land(rng: np.random.Generator, shape: tuple[int, int]) -> Land:
    """Draws a place of `(height, width)` pixels."""
    points = np.moveaxis(np.indices(shape), 0, -1)
    warp = np.stack([smooth_noise(rng, shape, 18) for _ in range(2)], axis=-1)
    fields, turned, blocks, border = _make_fields(rng, points + 3 * warp)
    pairs = blocks.min(axis=-1) * 100_000 + blocks.max(axis=-1)
    has_lane = rng.random(4096)[pairs % 4093] < 0.6
    meadow = rng.random(4096)[fields % 4093] < rng.uniform(0.12, 0.32)

    wood = smooth_noise(rng, shape, 20) + 0.25 * smooth_noise(rng, shape, 4)
    wooded = wood > np.quantile(wood, 1 - rng.uniform(0.12, 0.30))
    stands = voronoi(rng, points + 4 * warp, 32, rng.uniform(0, np.pi))[1][..., 0]

    centre, town, streets, town_blocks, roofs, gardens = _make_towns(rng, points + warp)
    angle = rng.uniform(0, np.pi)
    road = distance_to_curve(rng, points, centre, angle, 6) < 1.1
    road |= distance_to_curve(rng, points, centre, angle + rng.uniform(0.9, 2.2), 6) < 0.8
    through = rng.uniform(0.2, 0.8, 2) * shape
    bank = distance_to_curve(rng, points, through, rng.uniform(0, np.pi), 15)
    has_river, has_lake = ((True, False), (False, True), (True, True))[rng.integers(3)]
    river = has_river & (bank < rng.uniform(1.8, 3.6))
    shore = ndimage.binary_dilation(river, iterations=2)
    lake = has_lake & _make_lake(rng, points, road | town | shore)
    # Later layers cover earlier ones; a parcel is one id of one layer.
    layers: list[tuple[np.ndarray, np.ndarray | int, np.ndarray | int]] = [
        (np.ones(shape, np.bool_), np.where(meadow, GRASS, SOIL), fields),
        ((border < 0.9) & ~has_lane, FOREST, pairs),  # hedges
        ((border < 0.7) & has_lane, ROAD, pairs),
        (wooded, FOREST, stands),
        (shore, GRASS, 0),
        (town, TOWN, town_blocks),
        (town & streets, ROAD, 0),
        (river, WATER, 0),
        (lake, WATER, 0),
        (road, ROAD, 0),
    ]
    keys = states = np.zeros(shape, np.int64)
    for number, (mask, state, ids) in enumerate(layers):
        keys = np.where(mask, number * 2**40 + ids, keys)
        states = np.where(mask, state, states)
    _, first, parcels = np.unique(keys, return_index=True, return_inverse=True)
    num = len(first)
    return Land(
        parcels=parcels.reshape(shape),
        texture=0.8 * smooth_noise(rng, shape, 0.8) + 0.5 * smooth_noise(rng, shape, 3),
        soil=0.7 * smooth_noise(rng, shape, 9) + 0.5 * smooth_noise(rng, shape, 3),
        rows=np.sin(turned_axes(points, turned)[0] * 2 * np.pi / rng.uniform(3.5, 6.5)),
        roofs=roofs,
        gardens=gardens,
        cover=states.ravel()[first],
        tints=rng.normal(1, 0.06, (num, 1)) * rng.normal(1, 0.04, (num, len(SUPPORTED_BANDS))),
        variety=np.clip(rng.normal(0.4, 0.45, num), 0, 1),
        first_crop=rng.integers(0, len(CROP_DAYS), num),
        delay=rng.integers(-MAX_DELAY, MAX_DELAY + 1, num),
    )


def _make_fields(rng: np.random.Generator, points: np.ndarray) -> tuple[np.ndarray, ...]:
    """Ids of fields, angles of their rows, the two nearest blocks and their border."""
    angle = rng.uniform(0, np.pi)
    sites, nearest, border = voronoi(rng, points, rng.uniform(62, 82), angle)
    block, num = nearest[..., 0], len(sites)
    turned = (angle + rng.normal(0, 0.12, num) + rng.integers(0, 2, num) * np.pi / 2)[block]
    across, along = turned_axes(points - sites[block], turned)
    strip = across / rng.uniform(13, 27, num)[block]
    # Monotone, so that strips only get uneven widths.
    strip = strip + 0.3 * np.sin(2.3 * strip + rng.uniform(0, 6, num)[block]) + 100.5
    piece = along / rng.uniform(30, 55, num)[block] + rng.uniform(0, 1, num)[block] + 100
    fields = (block * 200 + strip.astype(np.int64)) * 200 + piece.astype(np.int64)
    # Nobody tills slivers: they go to the nearest proper field.
    _, inverse, areas = np.unique(fields, return_inverse=True, return_counts=True)
    small = (areas < 40)[inverse.reshape(fields.shape)]
    nearby = ndimage.distance_transform_edt(small, return_distances=False, return_indices=True)
    return fields[tuple(nearby)], turned, nearest, border


def _make_lake(rng: np.random.Generator, points: np.ndarray, taken: np.ndarray) -> np.ndarray:
    """A lake in the middle of the widest gap between what is there already."""
    room = ndimage.distance_transform_edt(np.pad(~taken, 1))[1:-1, 1:-1]
    centre = np.array(np.unravel_index(room.argmax(), room.shape))
    radius = min(rng.uniform(0.06, 0.12) * min(room.shape), 30, 0.8 * room.max())
    distance = np.linalg.norm(points - centre, axis=-1)
    ragged = 0.3 * radius * smooth_noise(rng, room.shape, max(radius / 2.5, 1))
    return (distance + ragged < radius) & (room > 2)


def _make_towns(rng: np.random.Generator, points: np.ndarray) -> tuple[np.ndarray, ...]:
    """Centre of the first town, then maps of town, streets, blocks, roofs and gardens."""
    shape = points.shape[:2]
    num = max(1, round(shape[0] * shape[1] / 200**2))
    centres = (rng.uniform(0.12, 0.88, (num, 2)) * shape).astype(np.float32)
    radii = np.minimum(rng.uniform(0.05, 0.13, num) * min(shape), 34)
    radii[0] = min(0.14 * min(shape), 36)
    distance, nearest = spatial.cKDTree(centres).query(points)
    town = distance < radii[nearest] * (1 + 0.15 * smooth_noise(rng, shape, 7))

    turned = rng.uniform(0, np.pi, num)[nearest]
    across, along = turned_axes(points - centres[nearest], turned)
    length, depth = rng.uniform(12, 18), rng.uniform(8, 12)
    streets = (across % length < 1.2) | (along % depth < 1.2)
    blocks = (across // length * 10_000 + along // depth).astype(np.int64)
    houses = (across // 2.6 * 10_007 + along // 2.6 * 31).astype(np.int64) % 4093
    roofs = rng.choice([0.5, 0.7, 1.0, 1.3, 2.0], 4096)[houses]
    gardens = rng.choice([0.0, 0.3, 0.9], 4096)[houses]
    # Halls and warehouses fill their blocks.
    hall = rng.random(4096)[blocks % 4093] < 0.12
    roofs, gardens = np.where(hall, 2.1, roofs), np.where(hall, 0.0, gardens)
    return centres[0], town, streets, blocks + nearest * 10**9, roofs, gardens
