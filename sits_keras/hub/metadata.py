"""Description of an exported encoder: `module.json`, `README.md` and the STAC-MLM `item.json`."""

import datetime
import importlib.metadata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import jinja2
import pystac
import yaml
from pystac.extensions import mlm
from pystac.extensions.eo import Band, EOExtension
from pystac.extensions.file import FileExtension

from sits_keras.bands import EO_COMMON_NAMES
from sits_keras.config import GRID_SIZE, IMAGE_SIZE
from sits_keras.formats import HUB_MODULE
from sits_keras.hub.encoder import DENSE_STRIDES, NOT_DENSE_REASON

if TYPE_CHECKING:
    from sits_keras.model import DisentangledSITS

CARD_NAME = "README.md"
ITEM_NAME = "item.json"

_TEMPLATES = Path(__file__).with_name("templates")

# The one of MLM's tasks that fits: it has no feature extraction.
_TASKS = [mlm.TaskType.SIMILARITY_SEARCH]
_PURPOSES = {
    "shared": "the location, as opposed to the acquisition date: for retrieval, classification and "
    "segmentation",
    "exclusive": "the acquisition date, as opposed to the location: for change detection",
}
_TAGS = [
    *("earth-observation", "remote-sensing", "sentinel-2", "satellite-image-time-series"),
    *("self-supervised-learning", "representation-learning", "tensorflow-hub"),
]
_INPUT_DESCRIPTION = (
    "Reflectance: (digital number + the product's offset) / 10,000. Scaled and clipped inside the "
    "module."
)
SENTINEL_2_PERIOD = (
    datetime.datetime(2015, 6, 23, tzinfo=datetime.UTC),
    datetime.datetime(9999, 12, 31, 23, 59, 59, tzinfo=datetime.UTC),
)
"""First and last time of STAC items that hold at any date; STAC has no open end."""

_GLOBE = {
    "type": "Polygon",
    "coordinates": [[[-180, -90], [180, -90], [180, 90], [-180, 90], [-180, -90]]],
}


def make_metadata(
    model: "DisentangledSITS",
    encoder: Literal["shared", "exclusive"],
    name: str,
    license_id: str | None,
) -> dict[str, Any]:
    """Make the content of a hub module's `module.json`: all that a program needs to use it.

    Args:
        model: Model whose encoder is exported.
        encoder: Which of its encoders.
        name: Name of the module.
        license_id: SPDX identifier of the weights' licence, or None if not stated.

    Returns:
        JSON-serialisable values.
    """
    from sits_keras.hub.pooling import num_pooled  # imports Keras

    config = model.config
    is_shared = encoder == "shared"
    return {
        "format": HUB_MODULE.name,
        "version": HUB_MODULE.version,
        "name": name,
        "encoder": encoder,
        "license": license_id,
        "bands": list(config.bands),
        "input": {
            "shape": [None, IMAGE_SIZE, IMAGE_SIZE, len(config.bands)],
            "dtype": "float32",
            "quantity": "reflectance",
            "range": [0.0, 1.0],
            "clipped_above": dict(zip(config.bands, config.band_max, strict=True)),
        },
        "padding": config.padding,
        "context_margin": list(model.context_margin),
        "dense_strides": list(DENSE_STRIDES) if config.padding == "context" else [],
        "num_features": num_pooled(config) if is_shared else config.exclusive_dim,
        "grid": [GRID_SIZE, GRID_SIZE, config.shared_channels] if is_shared else None,
        "num_flattened": GRID_SIZE * GRID_SIZE * config.shared_channels if is_shared else None,
        "num_pooled": num_pooled(config) if is_shared else None,
        "is_whitened": is_shared and model.whitening is not None,
        "model": config.to_dict(),
        "objective": model.objective.to_dict(),
        "steps": model.steps,
        "made_with": {
            package: importlib.metadata.version(package)
            for package in ("sits_keras", "keras", "tensorflow")
        },
    }


def render_card(metadata: Mapping[str, Any], template: str = "card.md") -> str:
    """Render the model card of a hub module, Markdown with front matter.

    Args:
        metadata: Content of `module.json`.
        template: Name of the template; `converted.md` for that of another format, whose metadata
            are the content of `encoder.json`.

    Returns:
        Content of `README.md`.
    """
    before, after = metadata["context_margin"]
    return render_template(
        _TEMPLATES / template,
        front_matter=render_front_matter(metadata["license"]),
        module=metadata,
        purpose=_PURPOSES[metadata["encoder"]],
        num_bands=len(metadata["bands"]),
        before=before,
        after=after,
        side=IMAGE_SIZE + before + after,
        not_dense_reason=NOT_DENSE_REASON,
    )


def render_front_matter(license_id: str | None, datasets: Sequence[str] = ()) -> str:
    """Render the YAML front matter that Hugging Face reads from a model card.

    Args:
        license_id: SPDX identifier, or None if not stated.
        datasets: Names of the training data sets.

    Returns:
        The front matter, from `---` to `---`.
    """
    values = {
        "license": license_id.lower() if license_id else None,
        "library_name": "keras",
        "pipeline_tag": "image-feature-extraction",
        "tags": _TAGS,
        "datasets": list(datasets),
    }
    stated = {name: value for name, value in values.items() if value}
    return f"---\n{yaml.safe_dump(stated, sort_keys=False, allow_unicode=True)}---"


def render_template(file: Path, **values: Any) -> str:
    """Render a Markdown template; a name that the template uses and that is not given raises."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([file.parent, _TEMPLATES]),
        autoescape=False,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["cell"] = _render_cell
    return environment.get_template(file.name).render(**values)


def _render_cell(value: Any) -> str:
    """Render a value for a cell of a Markdown table."""
    if isinstance(value, list):
        value = " to ".join(map(str, value))
    return "" if value is None else str(value).replace("|", "\\|")


def make_stac_item(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Make a STAC item of a hub module, with the machine learning model (MLM) extension.

    The item covers the globe and the time of Sentinel-2: a model is not tied to a place or date.

    Args:
        metadata: Content of `module.json`.

    Returns:
        Content of `item.json`.
    """
    item = build_item(
        metadata,
        f"sits_keras-{metadata['encoder']}-encoder",
        f"Encoder that represents {_PURPOSES[metadata['encoder']]}.",
    )
    add_model_asset(
        item,
        "model",
        "saved_model.pb",
        metadata["bands"],
        title="TF-Hub Reusable SavedModel (with the folder variables/ beside it)",
    )
    add_asset(item, "card", CARD_NAME, "text/markdown", "documentation")
    return item.to_dict(include_self_link=False)


def build_item(
    metadata: Mapping[str, Any],
    mlm_name: str,
    description: str,
    total_parameters: int | None = None,
) -> pystac.Item:
    """Build a STAC-MLM item of an encoder, without assets.

    Args:
        metadata: Content of `module.json`.
        mlm_name: Name of the model in the MLM extension.
        description: Description of the item.
        total_parameters: Number of the model's parameters, if known.

    Returns:
        The item.
    """
    item = pystac.Item(
        metadata["name"],
        geometry=_GLOBE,
        bbox=[-180, -90, 180, 90],
        datetime=None,
        start_datetime=SENTINEL_2_PERIOD[0],
        end_datetime=SENTINEL_2_PERIOD[1],
        properties={"description": description},
    )
    if metadata["license"]:
        item.common_metadata.license = metadata["license"]
    extension = mlm.MLMExtension.ext(item, add_if_missing=True)
    model_input = mlm.ModelInput.create(
        name="inputs",
        bands=list(metadata["bands"]),
        input=mlm.InputStructure.create(
            shape=[-1, *metadata["input"]["shape"][1:]],
            dim_order=["batch", "height", "width", "channel"],
            data_type=mlm.DataType.FLOAT32,
        ),
        description=_INPUT_DESCRIPTION,
    )
    output = mlm.ModelOutput.create(
        name="features",
        tasks=_TASKS,
        result=mlm.ResultStructure.create(
            shape=[-1, metadata["num_features"]],
            dim_order=["batch", "feature"],
            data_type=mlm.DataType.FLOAT32,
        ),
    )
    is_trained = metadata["steps"] > 0
    extension.apply(
        name=mlm_name,
        architecture="CNN" if metadata["encoder"] == "shared" else "ResNet",
        tasks=_TASKS,
        input=[model_input],
        output=[output],
        framework="TensorFlow",
        framework_version=metadata["made_with"]["tensorflow"],
        total_parameters=total_parameters,
        pretrained=is_trained,
        pretrained_source="Sentinel-2 image time series, self-supervised" if is_trained else None,
    )
    return item


def add_model_asset(
    item: pystac.Item,
    key: str,
    href: str,
    bands: Sequence[str],
    *,
    title: str,
    media_type: str = "application/x-protobuf; application=tensorflow",
    artifact_type: str = "tf.saved_model.save",
    facts: Mapping[str, Any] | None = None,
) -> None:
    """Add a file of weights to an item.

    Args:
        item: Item to add it to.
        key: Key of the asset.
        href: Path of the file, relative to the item.
        bands: Bands of the model's input.
        title: Title of the asset.
        media_type: Media type of the file.
        artifact_type: Function that wrote the file, as MLM names it.
        facts: `sha256` and `bytes` of the file, if known.
    """
    asset = add_asset(item, key, href, media_type, "mlm:model", title)
    mlm.AssetGeneralMLMExtension.ext(asset).artifact_type = artifact_type
    EOExtension.ext(asset, add_if_missing=True).bands = [
        Band.create(name, common_name=EO_COMMON_NAMES.get(name)) for name in bands
    ]
    if facts:
        multihash = "1220" + facts["sha256"]  # SHA-256, 32 bytes
        FileExtension.ext(asset, add_if_missing=True).apply(checksum=multihash, size=facts["bytes"])


def add_asset(
    item: pystac.Item, key: str, href: str, media_type: str, role: str, title: str | None = None
) -> pystac.Asset:
    """Add a file beside the item as an asset of one role, and return the asset."""
    item.add_asset(key, pystac.Asset(f"./{href}", title, media_type=media_type, roles=[role]))
    return item.assets[key]
