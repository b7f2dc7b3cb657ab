"""Table 2 and Figure 5: finding places again (section 4.3)."""

from collections.abc import Callable

from sits_keras import hub
from sits_keras.data.rasters.rows import ArrayStrips
from sits_keras.model import DisentangledSITS
from sits_keras.tasks.classification.probes import image_statistics
from sits_keras.tasks.evaluation.context import Context
from sits_keras.tasks.evaluation.inventory import count_places
from sits_keras.tasks.evaluation.results import Figure, Row, Section, Table, mean_and_spread
from sits_keras.tasks.retrieval import search as lookup
from sits_keras.tasks.retrieval import table_2
from sits_keras.tasks.windows.sliding import Encoder, raw_pixels


def make_section(context: Context) -> Section:
    """Table 2 and Figure 5 (section 4.3)."""
    model, config = context.subject.model, context.config
    places = context.read_places("held_out")
    series = [place.images for place in places]
    shared = hub.wrap(model)
    methods: dict[str, tuple[Callable[[int], Encoder], bool, float | None]] = {
        "Shared features": (lambda seed: shared, False, 0.7372),
        "Raw pixels": (lambda seed: raw_pixels, True, 0.5083),
        "Image statistics": (lambda seed: image_statistics, True, None),
        # Not the weights that training began with.
        "Untrained encoder": (
            lambda seed: hub.wrap(DisentangledSITS(model.config, seed=1000 + seed)),
            True,
            None,
        ),
    }
    rows = []
    for title, (encoder_of, is_baseline, paper) in methods.items():
        encoders = {seed: encoder_of(seed) for seed in range(config.num_seeds)}
        found = [
            table_2.measure_recall(
                encoder,
                series,
                num_queries=config.num_queries,
                stride=config.stride,
                seed=seed,
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
    one = found[0]
    chance = [one.chance, None, None, one.chance_at_5, one.chance_near, None]
    rows.append(Row("Chance", chance, True))
    table = Table(
        "table_2",
        f"Table 2. Windows of each date looked up in all other dates of their place, stride "
        f"{config.stride} px, by L1 distance: {one.num_queries} look-ups a seed among "
        f"{one.num_windows} windows, in held-out places: {count_places(places)}. The paper's "
        "images are 1,024 px wide, with some 60,000 windows each: recall among fewer windows is "
        "easier, so compare with chance.",
        [
            *("Recall@1", "standard error over places", "spread over seeds", "Recall@5"),
            *(f"within {table_2.NEAR} px", "paper: Recall@1"),
        ],
        rows,
    )
    largest = max(places, key=lambda place: place.images[0].size)
    first, last = (
        ArrayStrips(largest.images[date], model.config.bands, largest.dates[date])
        for date in (0, len(largest.dates) // 2)
    )
    queries = lookup.draw_queries(first, 12, stride=config.stride, seed=0)
    matches = lookup.find_windows(
        shared, first, queries, last, stride=config.stride, mode=config.mode
    )
    file = "figures/retrieval.png"
    lookup.draw_matches(first, queries, last, matches, context.out / file)
    near, by_chance = lookup.share_near(queries, matches, last.grid, config.stride)
    figure = Figure(
        file,
        f"Figure 5. {len(queries)} windows of {largest.id} on {first.name}, and where they were "
        f"found on {last.name}. {near:.0%} lie within {table_2.NEAR} px of their place; by "
        f"chance {by_chance:.0%} would.",
        f"Two images of {largest.id} with coloured boxes: a colour for each window.",
    )
    settings = {"queries": config.num_queries, "stride": config.stride, "seeds": config.num_seeds}
    return Section(
        "retrieval",
        "Finding places again (4.3)",
        settings,
        [table],
        [figure],
        [f"Held out: {', '.join(place.id for place in places)}."],
    )
