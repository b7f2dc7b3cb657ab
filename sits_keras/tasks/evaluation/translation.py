"""Table 1, and Figures 3 and 4: one place at the date of another (section 4.2)."""

from pathlib import Path
from typing import Any

import numpy as np

from sits_keras.model import DisentangledSITS
from sits_keras.tasks import figures
from sits_keras.tasks.evaluation.context import Context
from sits_keras.tasks.evaluation.inventory import Place, count_places
from sits_keras.tasks.evaluation.results import Figure, Row, Section, Table, mean_and_spread
from sits_keras.tasks.translation import table_1 as translation

_NUM_PLACES = 4
_NUM_DATES = 5
_NUM_SERIES = 8  # dates of a series that are shown, at most

_TRANSLATION_ROWS = {
    "translation": ("Image translation", False, 0.0152, 0.0207),
    "autoencoding": ("Autoencoding", False, 0.0084, 0.0087),
    "time_series": ("Time series", False, 0.0177, 0.0223),
    "unchanged": ("One date taken for the other", True, None, None),
}


def make_section(context: Context) -> Section:
    """Table 1, and Figures 3 and 4 (section 4.2)."""
    model, config = context.subject.model, context.config
    held_out = context.read_places("held_out")
    sets = {"held out": held_out}
    if context.stock.trained_on:
        sets = {"trained on": context.read_places("trained_on"), **sets}
    series = {name: [place.images for place in places] for name, places in sets.items()}
    tables = [
        translation.translation_table(model, series, num_crops=config.num_crops, seed=seed)
        for seed in range(config.num_seeds)
    ]
    columns: list[str] = []
    for name in sets:
        columns += [f"{name}: mean", f"{name}: deviation", f"{name}: spread over seeds"]
    rows = []
    for key, (title, is_baseline, train, test) in _TRANSLATION_ROWS.items():
        values: list[Any] = []
        for name in sets:
            mean, spread = mean_and_spread([getattr(table[name], key).mean for table in tables])
            deviation, _ = mean_and_spread([getattr(table[name], key).std for table in tables])
            values += [mean, deviation, spread]
        rows.append(Row(title, [*values, train, test], is_baseline))
    num_places = ", ".join(f"{name} {count_places(places)}" for name, places in sets.items())
    table_1 = Table(
        "table_1",
        "Table 1. L1 distance between generated and real images in network units, from -1 to 1: "
        f"mean and standard deviation over pixels and bands of {config.num_crops} crops a seed, "
        f"each with all its dates. Places: {num_places}. The paper's numbers are of its own data.",
        [*columns, "paper: train mean", "paper: test mean"],
        rows,
    )
    by_place = []
    for place in held_out:
        crops = translation.draw_crops(
            [place.images], max(1, config.num_crops // 10), model.config.band_max, seed=0
        )
        scores = translation.measure_translation(model, crops)
        by_place.append(
            Row(
                place.id,
                [
                    len(place.dates),
                    " x ".join(map(str, place.images.shape[1:3])),
                    scores.translation.mean,
                    scores.autoencoding.mean,
                    scores.time_series.mean,
                    scores.unchanged.mean,
                ],
            )
        )
    table_places = Table(
        "table_1_places",
        "Mean L1 distance at each place that was held out.",
        ["dates", "size, px", *(one[0] for one in _TRANSLATION_ROWS.values())],
        by_place,
    )
    return Section(
        "translation",
        "Translation between dates (4.2)",
        {"crops": config.num_crops, "seeds": config.num_seeds},
        [table_1, table_places],
        _draw_generated(model, held_out, context.out),
        [_period(held_out)],
    )


def _draw_generated(model: DisentangledSITS, places: list[Place], out: Path) -> list[Figure]:
    """Draws a matrix of translations, a reconstructed series, drawn dates, and steps between two.

    Args:
        model: what generates.
        places: at which; not those that it was trained on.
        out: the evaluation's folder.
    """
    options: dict[str, Any] = {"bands": model.config.bands, "band_max": model.config.band_max}
    # From each place in turn, so that every one is seen.
    crops = [
        translation.draw_crops([place.images], 1, model.config.band_max, seed=index)[0]
        for index in range(-(-_NUM_DATES // len(places)))
        for place in places
    ]
    rng = np.random.default_rng(0)
    chosen = [rng.choice(len(crop), 2, replace=False) for crop in crops]
    first = np.stack([crop[dates[0]] for crop, dates in zip(crops, chosen, strict=True)])
    second = np.stack([crop[dates[1]] for crop, dates in zip(crops, chosen, strict=True)])
    places_in, dates_in = first[:_NUM_PLACES], second[:_NUM_DATES]
    drawn = [
        (
            figures.draw_matrix(
                *(places_in, dates_in, translation.translate_all(model, places_in, dates_in)),
                out / "figures" / "translation.png",
                **options,
            ),
            "Figure 3. Places that were held out, down, at the dates of others, across. On the "
            "diagonal place and date are of one crop.",
            "A grid of images: the left column gives the place, the top row the date.",
        )
    ]
    longest = max(places, key=lambda place: len(place.dates))
    crop = translation.draw_crops([longest.images], 1, model.config.band_max, seed=0)[0]
    shown = np.unique(np.linspace(0, len(crop) - 1, _NUM_SERIES).round().astype(int))
    generated = np.asarray(model.reconstruct_series(crop, 0))
    drawn.append(
        (
            figures.draw_series(
                [("real", crop[shown]), ("generated", generated[shown])],
                [longest.dates[index] for index in shown],
                out / "figures" / "series.png",
                **options,
            ),
            f"Figure 4. {longest.id}: the series, and the same from the shared representation of "
            f"{longest.dates[0]} and the exclusive ones of each date.",
            f"Two rows of images of {longest.id}: real above, generated below.",
        )
    )
    num_rows = min(3, len(places))
    titles = [place.id for place in places[:num_rows]]
    samples = np.asarray(model.sample(first[:num_rows], _NUM_DATES, seed=0))
    drawn.append(
        (
            figures.draw_series(
                [
                    (title, np.concatenate([image[None], row]))
                    for title, image, row in zip(titles, first, samples, strict=False)
                ],
                ["real", *(f"drawn {index}" for index in range(1, _NUM_DATES + 1))],
                out / "figures" / "samples.png",
                **options,
            ),
            "Held-out places at dates that are drawn: exclusive representations from N(0, I), the "
            "same draws in each row.",
            "Rows of images: the real one, then five that were generated.",
        )
    )
    # Dates of other seasons, where a series is of a year or more.
    first = np.stack([crop[0] for crop in crops[:num_rows]])
    second = np.stack([crop[len(crop) // 2] for crop in crops[:num_rows]])
    steps = np.asarray(model.interpolate(first, first, second, _NUM_DATES))
    drawn.append(
        (
            figures.draw_series(
                [
                    (title, np.concatenate([one[None], row, other[None]]))
                    for title, one, row, other in zip(titles, first, steps, second, strict=False)
                ],
                [
                    "real",
                    *(f"{index / (_NUM_DATES - 1):.0%}" for index in range(_NUM_DATES)),
                    "real",
                ],
                out / "figures" / "steps.png",
                **options,
            ),
            "From one date to another of held-out places: linear between the exclusive means.",
            "Rows of images: a real one, five steps, and the real one of the other date.",
        )
    )
    return [Figure(f"figures/{path.name}", caption, alt) for path, caption, alt in drawn]


def _period(places: list[Place]) -> str:
    dates = sorted(date for place in places for date in place.dates)
    names = ", ".join(place.id for place in places)
    return f"Held out: {names}, from {dates[0]} to {dates[-1]}."
