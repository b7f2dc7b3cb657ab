"""A table of the granules of some sources: which would be kept, and why the others would not."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from sits_keras.config import PrepareConfig
from sits_keras.data.execution import runner
from sits_keras.data.preparation.plan import plan_series
from sits_keras.data.preparation.survey import common_grids, screen, workers_for
from sits_keras.data.sources.series import read_sources


def inspect(
    sources: Path | str | Sequence[Path | str],
    config: PrepareConfig | None = None,
    *,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    progress: bool = True,
    workers: int | None = 1,
    scheduler: str | None = None,
) -> list[dict[str, Any]]:
    """Screens the granules of some sources as `prepare` does, and writes nothing.

    Errors are those of `sits_keras.data.prepare`.

    Args:
        sources, config, include, exclude, progress, workers, scheduler: as there.
    Returns:
        A dictionary a granule, in the order of series and dates: `series`, `date`, `name`;
        `cloud` and `complete`, shares in [0, 1]; `by`, what says where cloud is; `level` and
        `baseline` of the product, or `None`; `kept`, `"kept"` or why not; `crs`, `transform`,
        `height` and `width` of its pixels; `footprint`, (longitude, latitude) of what the
        product says was seen, or `None`.
    """
    config = config or PrepareConfig()
    series = read_sources(sources, include, exclude, absolute=scheduler is not None)
    grids = common_grids(series, config)
    num_granules = sum(len(one.granules) for one in series)
    with (
        runner(workers_for(workers, series, grids, config), scheduler) as run,
        tqdm(total=num_granules, desc="screen", unit="granule", disable=not progress) as bar,
    ):
        screenings = screen(series, grids, config, run, bar)
    rows = []
    for one, grid, found in zip(series, grids, screenings, strict=True):
        plan = plan_series(one.id, grid, found, config)
        for screening in found:
            granule, date = screening.granule, str(screening.granule.date)
            kept = "kept, resampled" if date in plan.resampled else "kept"
            rows.append(
                {
                    "series": one.id,
                    "date": date,
                    "name": granule.name,
                    "cloud": screening.coverage.cloud,
                    "by": screening.cloud_source,
                    "complete": screening.coverage.complete,
                    "level": granule.level,
                    "baseline": granule.baseline,
                    "kept": plan.rejected.get(date) or plan.skipped or kept,
                    **grid._asdict(),
                    "footprint": granule.footprint,
                }
            )
    return rows
