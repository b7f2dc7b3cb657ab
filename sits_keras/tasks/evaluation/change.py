"""Figure 7, and scores of change maps against references (section 4.6)."""

from pathlib import Path

from sits_keras import hub
from sits_keras.data.rasters.read import read_mask
from sits_keras.model import DisentangledSITS
from sits_keras.tasks.change import scores as change_scores
from sits_keras.tasks.change.maps import detect_change
from sits_keras.tasks.evaluation.context import Context
from sits_keras.tasks.evaluation.results import Figure, Row, Section, Table
from sits_keras.tasks.quicklooks import draw_change

_NUM_FIGURES = 2  # pictures, at most


def make_section(context: Context) -> Section:
    """Figure 7, and scores against references (section 4.6)."""
    model, config = context.subject.model, context.config
    exclusive = hub.wrap(model, "exclusive")
    untrained = hub.wrap(DisentangledSITS(model.config, seed=1), "exclusive")
    encoders = {"Exclusive features": exclusive, "Untrained encoder": untrained}
    scores = change_scores.score_pairs(
        context.stock.folder / "change", encoders, stride=config.change_stride, mode=config.mode
    )
    columns = {"f1": "F1", "iou": "IoU", "average_precision": "average precision"}
    tables = []
    for family, methods in change_scores.mean_by_family(scores).items():
        rows = [
            Row(
                f"{method[0].upper()}{method[1:]}",
                [means[name] for name in columns],
                method != "Exclusive features",
            )
            for method, means in methods.items()
        ]
        chance = next(iter(methods.values()))
        rows.append(Row("Chance", [None, None, chance["chance"]], True))
        tables.append(
            Table(
                f"change_{family}",
                f"Change, {family}: means over {int(chance['num_pairs'])} pairs, windows every "
                f"{config.change_stride} px. F1 and IoU are at Otsu's threshold, pair by pair, "
                "average precision at all thresholds. The references are used for scoring only.",
                list(columns.values()),
                rows,
            )
        )
    figures = []
    for pair in _first_of_each_family(context.stock.pairs)[:_NUM_FIGURES]:
        change = detect_change(
            pair / "before.tif",
            pair / "after.tif",
            exclusive,
            stride=config.change_stride,
            mode=config.mode,
        )
        file = f"figures/change-{pair.name}.png"
        mask = read_mask(pair / "mask.tif")
        draw_change(change, context.out / file, mask=mask, overwrite=True)
        figures.append(
            Figure(
                file,
                f"Figure 7. {pair.name}: both dates, the distance of their exclusive features, "
                "what lies above the threshold in red, the reference outlined.",
                f"Four panels of {pair.name}: before, after, distance, changed.",
            )
        )
    notes = [
        "The reference of a fire is its official perimeter, which is coarser than the burn.",
        "Whether these pairs were seen in training is for whoever trained the model to say.",
    ]
    settings = {"stride": config.change_stride, "threshold": "auto"}
    return Section("change", "Change (4.6)", settings, tables, figures, notes)


def _first_of_each_family(pairs: tuple[Path, ...]) -> list[Path]:
    families = {pair.name.split("-")[0]: pair for pair in reversed(pairs)}
    return [families[name] for name in sorted(families, reverse=True)]
