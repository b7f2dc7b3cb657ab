"""What an exported encoder says of itself: `module.json`, `README.md`, STAC-MLM `item.json`."""

import importlib.metadata
from typing import Any, Literal

from sits_keras.bands import EO_COMMON_NAMES
from sits_keras.config import GRID_SIZE, IMAGE_SIZE
from sits_keras.formats import HUB_MODULE
from sits_keras.hub.dense import NOT_DENSE_REASON
from sits_keras.hub.module import DENSE_STRIDES
from sits_keras.hub.pooling import num_pooled
from sits_keras.model import DisentangledSITS

_STAC_EXTENSIONS = [
    "https://stac-extensions.github.io/mlm/v1.4.0/schema.json",
    "https://stac-extensions.github.io/eo/v1.1.0/schema.json",
]
_TASKS = ["similarity-search"]  # the one of MLM's list that fits: it knows no feature extraction
_PURPOSES = {
    "shared": (
        "what stays the same over the dates of a place: retrieval, classification, segmentation"
    ),
    "exclusive": "what belongs to one date of a place: change detection",
}


def make_metadata(
    model: DisentangledSITS,
    encoder: Literal["shared", "exclusive"],
    name: str,
    license_id: str | None,
) -> dict[str, Any]:
    """What a program needs to know of a hub module to use it."""
    config = model.config
    if encoder == "shared":
        num_features = GRID_SIZE * GRID_SIZE * config.shared_channels
    else:
        num_features = config.exclusive_dim
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
        "halo": list(model.context_margin),
        "dense_strides": list(DENSE_STRIDES) if config.padding == "context" else [],
        "num_features": num_features,
        "grid": [GRID_SIZE, GRID_SIZE, config.shared_channels] if encoder == "shared" else None,
        "num_pooled": num_pooled(config) if encoder == "shared" else None,
        "model": config.to_dict(),
        "objective": model.objective.to_dict(),
        "steps": model.steps,
        "made_with": {
            package: importlib.metadata.version(package)
            for package in ("sits_keras", "keras", "tensorflow")
        },
    }


def render_card(preset: dict[str, Any]) -> str:
    """The model card, for people."""
    bands = ", ".join(preset["bands"])
    ceiling = ", ".join(f"{b} {v:g}" for b, v in preset["input"]["clipped_above"].items())
    shape = "batch, " + ", ".join(map(str, preset["input"]["shape"][1:]))
    grid = preset["grid"]
    before, after = preset["halo"]
    side = IMAGE_SIZE + before + after
    if preset["dense_strides"]:
        strides = ", ".join(map(str, preset["dense_strides"]))
        endpoints = f"""\
- `module.with_context(images)`: the same of images with their surroundings, {before} px above and
  left, {after} px below and right: `(batch, {side}, {side}, {len(preset["bands"])})`. Without them,
  `module(images)` reflects the image at its edges.
- `module.dense_8(images)`: all windows of a raster, 8 px apart (also: {strides}), from
  `(batch, height, width, {len(preset["bands"])})` with such surroundings to
  `(batch, rows, cols, {preset["num_features"]})`, for a fraction of the work.
"""
    else:
        endpoints = f"- Windows of a raster are to be encoded one by one: {NOT_DENSE_REASON}.\n"
    spatial = (
        f"- `module.spatial(images)`: `(batch, {', '.join(map(str, grid))})` float32, the same "
        "features on their grid.\n"
        f"- `module.pooled(images)`: `(batch, {preset['num_pooled']})` float32, mean and deviation "
        "of each band and of\n  each channel of every layer: for simple classifiers, often the "
        "better features.\n"
        if grid
        else ""
    )
    return f"""# {preset["name"]}

The {preset["encoder"]} encoder of a model that learns two representations of Sentinel-2 image time
series without labels (Sanchez, Serrurier and Ortner, 2019). It holds
{_PURPOSES[preset["encoder"]]}.

## Input and output

- `module(images)`: `({shape})` float32 to `(batch, {preset["num_features"]})` float32.
{spatial}{endpoints}- Bands, in this order: {bands}.
- Values are reflectance, 1.0 being full reflectance: digital numbers, plus the product's own
  offset, divided by 10,000. Above these the encoder sees no difference: {ceiling}.

```python
import tensorflow_hub as hub

encoder = hub.load("path/to/this/folder")
features = encoder(images)
```

## Training

{preset["steps"]:,} steps, width {preset["model"]["width"]}, padding `{preset["padding"]}`,
adversarial form `{preset["objective"]["adversarial"]}`, updates {preset["objective"]["update"]}.
Made with sits_keras {preset["made_with"]["sits_keras"]}, Keras
{preset["made_with"]["keras"]} and TensorFlow {preset["made_with"]["tensorflow"]}. Where it was
trained is known to whoever exported it: the run's `config.yaml` names the records.

## Licence

{preset["license"] or "Not stated by whoever exported it: the training data's terms decide."}

## Limits

It has seen only what it was trained on; scores on other land, seasons or processing levels are to
be measured before use. Cloud, snow and missing pixels are not told apart from the ground.
"""


def make_stac_item(preset: dict[str, Any]) -> dict[str, Any]:
    """A STAC item with the machine learning model (MLM) extension.

    The item covers the globe and no particular time: a model is not tied to one, its training
    data are.
    """
    # Of a model that is not trained, MLM asks to say that it comes from nowhere.
    optional: dict[str, Any] = {} if preset["steps"] else {"mlm:pretrained_source": None}
    if preset["license"]:
        optional["license"] = preset["license"]
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "stac_extensions": list(_STAC_EXTENSIONS),
        "id": preset["name"],
        "geometry": {
            "type": "Polygon",
            "coordinates": [[[-180, -90], [180, -90], [180, 90], [-180, 90], [-180, -90]]],
        },
        "bbox": [-180, -90, 180, 90],
        "properties": {
            "datetime": None,
            "start_datetime": "2015-06-23T00:00:00Z",
            "end_datetime": "9999-12-31T23:59:59Z",
            "description": f"Encoder of {_PURPOSES[preset['encoder']]}.",
            "mlm:name": f"sits_keras-{preset['encoder']}-encoder",
            "mlm:architecture": "CNN" if preset["encoder"] == "shared" else "ResNet",
            "mlm:tasks": list(_TASKS),
            "mlm:framework": "TensorFlow",
            "mlm:framework_version": preset["made_with"]["tensorflow"],
            "mlm:pretrained": preset["steps"] > 0,
            **optional,
            "mlm:input": [
                {
                    "name": "inputs",
                    "bands": list(preset["bands"]),
                    "input": {
                        "shape": [-1, *preset["input"]["shape"][1:]],
                        "dim_order": ["batch", "height", "width", "channel"],
                        "data_type": "float32",
                    },
                    "description": "Reflectance: digital numbers plus the product's offset, over "
                    "10,000. It is scaled and clipped inside the module.",
                    "pre_processing_function": None,
                }
            ],
            "mlm:output": [
                {
                    "name": "features",
                    "tasks": list(_TASKS),
                    "result": {
                        "shape": [-1, preset["num_features"]],
                        "dim_order": ["batch", "feature"],
                        "data_type": "float32",
                    },
                    "post_processing_function": None,
                }
            ],
        },
        "assets": {
            "model": {
                "href": "./saved_model.pb",
                "type": "application/x-protobuf; application=tensorflow",
                "title": "TF-Hub Reusable SavedModel (with the folder variables/ beside it)",
                "roles": ["mlm:model"],
                "mlm:artifact_type": "tf.saved_model.save",
                "eo:bands": [describe_band(band) for band in preset["bands"]],
            },
            "card": {
                "href": "./README.md",
                "type": "text/markdown",
                "roles": ["documentation"],
            },
        },
        "links": [],
    }


def describe_band(name: str) -> dict[str, str]:
    """A band as the eo extension describes it."""
    common = {"common_name": EO_COMMON_NAMES[name]} if name in EO_COMMON_NAMES else {}
    return {"name": name, **common}
