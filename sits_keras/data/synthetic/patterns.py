"""Patterns in the plane that places and clouds are drawn with."""

import numpy as np
from scipy import ndimage, spatial


def smooth_noise(rng: np.random.Generator, shape: tuple[int, int], sigma: float) -> np.ndarray:
    """Spatially correlated noise of mean 0 and standard deviation 1."""
    noise = rng.standard_normal(shape, np.float32)
    noise = ndimage.gaussian_filter(noise, sigma, mode="wrap")
    return (noise - noise.mean()) / noise.std()


def turned_axes(offset: np.ndarray, angle: np.ndarray | float) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates of (..., 2) row and column offsets along axes turned by an angle."""
    rows, columns = offset[..., 0], offset[..., 1]
    cos, sin = np.cos(angle), np.sin(angle)
    return rows * cos + columns * sin, columns * cos - rows * sin


def voronoi(
    rng: np.random.Generator, points: np.ndarray, spacing: float, angle: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cells of a jittered grid: their centres and, per point, the two nearest and the border."""
    size = np.array(points.shape[:2])
    reach = np.hypot(*size) / 2 + 2 * spacing
    steps = np.arange(-reach, reach, spacing)
    grid = np.stack(np.meshgrid(steps, steps), axis=-1)
    grid[::2, :, 0] += spacing / 2
    grid += rng.uniform(-0.28, 0.28, grid.shape) * spacing
    sites = np.stack(turned_axes(grid.reshape(-1, 2), angle), axis=-1) + size / 2
    distance, nearest = spatial.cKDTree(sites).query(points, k=2)
    apart = np.linalg.norm(sites[nearest[..., 0]] - sites[nearest[..., 1]], axis=-1)
    return sites, nearest, (distance[..., 1] ** 2 - distance[..., 0] ** 2) / (2 * apart)


def distance_to_curve(
    rng: np.random.Generator, points: np.ndarray, through: np.ndarray, angle: float, swing: float
) -> np.ndarray:
    """Distance of each pixel to a line that winds about a straight one through a point."""
    winding = swing * smooth_noise(rng, points.shape[:2], 26)
    level = turned_axes(points - through, angle)[0] + winding
    # The slope of the level varies; without it, the line would be wide where it is shallow.
    return np.abs(level) / np.hypot(*np.gradient(level))
