"""Table 3: telling classes of land apart (section 4.4)."""

from pathlib import Path
from typing import Any, Literal

from sits_keras.data.labelled.chips import PICTURE_BANDS
from sits_keras.data.labelled.eurosat import LabelledImages, read_labelled
from sits_keras.tasks.classification import table_3
from sits_keras.tasks.classification.table_3_rows import METHODS, QUICK_METHODS
from sits_keras.tasks.evaluation.context import Context
from sits_keras.tasks.evaluation.results import Row, Section, Table

_MANY_IMAGES = 2000  # more take hours to train the whole encoder on


def make_section(context: Context) -> Section:
    """Table 3 and confusion matrices (section 4.4)."""
    model, config = context.subject.model, context.config
    tables, notes = [], []
    for archive in context.stock.archives:
        is_pictures = "allbands" not in archive.name.lower()
        if is_pictures and not set(model.config.bands) <= set(PICTURE_BANDS):
            notes.append(
                f"{archive.name} is left out: its pictures show {', '.join(PICTURE_BANDS)}, and "
                f"the model takes {', '.join(model.config.bands)}."
            )
            continue
        images = read_labelled(archive, model.config.bands, progress=context.progress)
        methods = list(METHODS)
        is_small = len(images.labels) <= _MANY_IMAGES
        if config.train_encoder == "none" or (config.train_encoder == "small" and not is_small):
            methods = list(QUICK_METHODS)
            notes.append(
                f"The whole encoder is not trained on {archive.name}: --train-encoder all does, "
                "for hours where images are many."
            )
        # Four fifths are learned from, of which each class needs an image.
        least = len(images.classes) / (0.8 * len(images.labels))
        fractions = [fraction for fraction in config.fractions if fraction > least] or [1.0]
        if not set(config.fractions) <= set(fractions):
            left_out = [f"{one:.0%}" for one in config.fractions if one not in fractions]
            notes.append(
                f"{', '.join(left_out)} of the labels of {archive.name} are less than one image "
                "for each class, and left out."
            )
        splits: list[Literal["stratified", "spatial"]] = ["stratified"]
        if images.cells:
            splits.append("spatial")
        for split in splits:
            rows = table_3.fill_table(
                model,
                images,
                methods=methods,
                fractions=fractions,
                split=split,
                seeds=range(config.num_seeds),
                progress=context.progress,
            )
            tables += _make_tables(archive, images, split, rows)
    settings = {"fractions": list(config.fractions), "seeds": config.num_seeds}
    return Section("classification", "Classification (4.4)", settings, tables, [], notes)


def _make_tables(
    archive: Path, images: LabelledImages, split: str, rows: list[dict[str, Any]]
) -> list[Table]:
    name = f"{archive.stem.lower()}_{split}"
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
            f"Table 3. Accuracy on {archive.name}, {len(images.labels)} images in "
            f"{len(images.classes)} classes, {split} split, {rows[0]['num_test']} test images. "
            "The paper's numbers are of 27,000 images.",
            [
                *("accuracy", "95 % from", "to", "spread over seeds", "images to learn from"),
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
                f"{archive.name}, {split} split, all seeds together: true classes down, told "
                "classes across.",
                list(best["classes"]),
                [
                    Row(title, list(map(int, counts)))
                    for title, counts in zip(best["classes"], best["confusion"], strict=True)
                ],
            )
        )
    return tables
