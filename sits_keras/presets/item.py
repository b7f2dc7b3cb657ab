"""A preset's STAC item, with the machine learning model (MLM) extension."""

from collections.abc import Mapping
from typing import Any

from sits_keras.hub.metadata import describe_band, make_stac_item
from sits_keras.presets.folders import (
    CARD_NAME,
    ENCODER_NAMES,
    METRICS_NAME,
    MODEL_NAME,
    TRAINING_NAME,
)


def make_item(preset: Mapping[str, Any]) -> dict[str, Any]:
    """A preset's STAC-MLM item: that of its shared encoder, with all three parts as assets."""
    shared = {**preset, **preset["encoders"]["shared"], "encoder": "shared"}
    item = make_stac_item(shared)
    item["stac_extensions"].append("https://stac-extensions.github.io/file/v2.1.0/schema.json")
    item["properties"]["description"] = (
        preset["summary"] or "Shared and exclusive representations of Sentinel-2 images."
    )
    item["properties"]["mlm:name"] = preset["name"]
    item["properties"]["mlm:total_parameters"] = preset["parameters"]
    bands = [describe_band(band) for band in preset["bands"]]
    titles = {
        "shared": "TF-Hub module of the shared encoder (with the folder variables/ beside it)",
        "exclusive": "TF-Hub module of the exclusive encoder (likewise)",
    }
    assets = {
        f"{encoder}_encoder": _asset(
            preset,
            f"{ENCODER_NAMES[encoder]}/saved_model.pb",
            "application/x-protobuf; application=tensorflow",
            title,
            {"mlm:artifact_type": "tf.saved_model.save", "eo:bands": bands},
        )
        for encoder, title in titles.items()
    }
    assets["model"] = _asset(
        preset,
        MODEL_NAME,
        "application/zip; application=keras",
        "The whole Keras model, to be trained further",
        {"mlm:artifact_type": "tf.keras.Model.save", "eo:bands": bands},
    )
    assets["card"] = {
        "href": f"./{CARD_NAME}",
        "type": "text/markdown",
        "roles": ["documentation"],
    }
    for title, name in (("metrics", METRICS_NAME), ("training", TRAINING_NAME)):
        assets[title] = {"href": f"./{name}", "type": "application/json", "roles": ["metadata"]}
    return {**item, "assets": assets}


def _asset(
    preset: Mapping[str, Any], name: str, media: str, title: str, more: Mapping[str, Any]
) -> dict[str, Any]:
    facts = preset["files"][name]
    return {
        "href": f"./{name}",
        "type": media,
        "title": title,
        "roles": ["mlm:model"],
        "file:size": facts["bytes"],
        "file:checksum": "1220" + facts["sha256"],  # a multihash: SHA-256, of 32 bytes
        **more,
    }
