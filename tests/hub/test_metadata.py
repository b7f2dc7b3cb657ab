import json
import re

import pystac
import pytest
import yaml
from pystac.extensions.mlm import MLMExtension

from sits_keras import DisentangledSITS, ModelConfig
from sits_keras.hub.metadata import make_metadata, make_stac_item, render_card

# What the MLM extension 1.4.0 and the eo extension 1.1.0 allow (their JSON schemas).
MLM_NAME = r"[a-zA-Z][a-zA-Z0-9_.\-\s]+[a-zA-Z0-9]"
MLM_TASKS = {
    "regression", "classification", "scene-classification", "detection", "object-detection",
    "segmentation", "semantic-segmentation", "instance-segmentation", "panoptic-segmentation",
    "similarity-search", "generative", "image-captioning", "super-resolution",
}  # fmt: skip
EO_COMMON_NAMES = {
    "coastal", "blue", "green", "red", "rededge", "yellow", "pan", "nir", "nir08", "nir09",
    "cirrus", "swir16", "swir22", "lwir", "lwir11", "lwir12",
}  # fmt: skip
ALL_BANDS = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B11", "B12")


def front_matter(card):
    """Parse the YAML between the first two lines of `---`."""
    empty, text, _ = card.split("---\n", 2)
    assert empty == ""
    return yaml.safe_load(text)


@pytest.fixture(scope="module")
def model():
    return DisentangledSITS(ModelConfig(width=1, shared_channels=2, exclusive_dim=3))


@pytest.fixture(scope="module", params=["shared", "exclusive"])
def metadata(request, model):
    return make_metadata(model, request.param, "my module", None)


@pytest.fixture(scope="module")
def item(metadata):
    return make_stac_item(metadata)


def test_make_metadata_shared_encoder_has_grid_and_features(model):
    metadata = make_metadata(model, "shared", "a name", None)
    assert metadata["name"] == "a name"
    assert metadata["encoder"] == "shared"
    assert metadata["bands"] == ["B02", "B03", "B04", "B08"]
    assert metadata["input"] == {
        "shape": [None, 64, 64, 4],
        "dtype": "float32",
        "quantity": "reflectance",
        "range": [0.0, 1.0],
        "clipped_above": {"B02": 0.3, "B03": 0.3, "B04": 0.4, "B08": 0.6},
    }
    assert metadata["grid"] == [4, 4, 2]
    assert metadata["num_features"] == metadata["num_pooled"] == 46
    assert metadata["num_flattened"] == 32
    assert metadata["steps"] == 0


def test_make_metadata_exclusive_encoder_has_no_grid(model):
    metadata = make_metadata(model, "exclusive", "a name", None)
    assert metadata["grid"] is None
    assert metadata["num_features"] == 3


def test_make_metadata_compiled_model_has_its_steps(model):
    trained = DisentangledSITS(model.config)
    trained.compile()
    trained.optimizer.iterations.assign(1234)
    metadata = make_metadata(trained, "shared", "a name", None)
    assert metadata["steps"] == 1234
    assert "| steps | 1,234 |" in render_card(metadata)


def test_make_metadata_contains_configuration_and_versions(metadata, model):
    assert ModelConfig.from_dict(metadata["model"]) == model.config
    assert metadata["objective"] == model.objective.to_dict()
    assert set(metadata["made_with"]) == {"sits_keras", "keras", "tensorflow"}
    assert json.loads(json.dumps(metadata)) == metadata


def test_render_card_states_inputs_and_outputs(model):
    card = render_card(make_metadata(model, "shared", "my module", None))
    assert "\n# my module\n\nShared encoder of a model" in card
    assert "| `module(images)` | `(batch, 64, 64, 4)` | `(batch, 46)` |" in card
    assert (
        "| `module.spatial(images)` | the same | `(batch, 4, 4, 2)`: the shared representation"
        in card
    )
    assert "| `module.flattened(images)` | the same | `(batch, 32)`: the same grid" in card
    assert "Bands, in this order: B02, B03, B04, B08." in card
    assert "B02 0.3, B03 0.3, B04 0.4, B08 0.6." in card
    for row in ("steps | 0", "width | 1", "padding | `zeros`", "updates | `alternating`"):
        assert f"| {row} |" in card


def test_render_card_context_padding_states_margin(model):
    metadata = make_metadata(model, "shared", "my module", None)
    assert (metadata["padding"], metadata["context_margin"], metadata["dense_strides"]) == (
        "zeros",
        [0, 0],
        [],
    )
    expected = "Encode the windows of a raster one by one: its convolutions pad each window with"
    assert expected in render_card(metadata)
    config = ModelConfig(width=1, shared_channels=2, exclusive_dim=3, padding="context")
    metadata = make_metadata(DisentangledSITS(config), "exclusive", "my module", None)
    assert (metadata["padding"], metadata["context_margin"]) == ("context", [31, 47])
    assert metadata["dense_strides"] == [4, 8, 16, 32]
    card = render_card(metadata)
    assert "`(batch, 142, 142, 4)`: with 31 px of context above and left, 47 px below" in card
    assert "whole rasters `(batch, height, width, 4)` with such context" in card
    assert "`(batch, rows, cols, 3)`" in card
    assert "one by one" not in card


def test_render_card_exclusive_encoder_has_no_spatial(model):
    card = render_card(make_metadata(model, "exclusive", "my module", None))
    assert "| `(batch, 3)` |" in card
    assert "spatial" not in card


def test_render_card_front_matter_has_keys_of_hugging_face(metadata):
    values = front_matter(render_card(metadata))
    assert values["library_name"] == "keras"
    assert values["pipeline_tag"] == "image-feature-extraction"
    assert {"sentinel-2", "self-supervised-learning"} <= set(values["tags"])
    for tag in values["tags"]:
        assert re.fullmatch(r"[a-z0-9-]+", tag)


def test_render_card_has_limits_and_citation(metadata):
    headings = re.findall("^## (.*)$", render_card(metadata), flags=re.MULTILINE)
    assert headings == ["Input", "Functions", "Training", "Limits", "Licence", "Citation"]


def test_make_stac_item_is_read_by_pystac(item, metadata):
    read = pystac.Item.from_dict(item)
    extension = MLMExtension.ext(read)
    assert extension.input[0].bands == metadata["bands"]
    assert extension.output[0].result.shape == [-1, metadata["num_features"]]


def test_make_stac_item_has_required_fields_of_stac(item):
    assert item["type"] == "Feature"
    assert item["stac_version"] == pystac.get_stac_version()
    assert item["id"] == "my module"
    assert item["links"] == []
    (ring,) = item["geometry"]["coordinates"]
    assert item["geometry"]["type"] == "Polygon"
    assert ring[0] == ring[-1]
    assert item["bbox"] == [-180, -90, 180, 90]
    # Without a datetime, STAC asks for both ends of a period.
    assert item["properties"]["datetime"] is None
    stamp = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"
    for name in ("start_datetime", "end_datetime"):
        assert re.fullmatch(stamp, item["properties"][name])
    for asset in item["assets"].values():
        assert asset["href"].startswith("./")
    assert json.loads(json.dumps(item)) == item


def test_make_stac_item_has_required_fields_of_mlm(item, metadata):
    assert "https://stac-extensions.github.io/mlm/v1.4.0/schema.json" in item["stac_extensions"]
    properties = item["properties"]
    assert re.fullmatch(MLM_NAME, properties["mlm:name"])
    assert properties["mlm:architecture"] in {"CNN", "ResNet"}
    assert set(properties["mlm:tasks"]) <= MLM_TASKS
    assert properties["mlm:framework"] == "TensorFlow"
    assert re.fullmatch(r"\d+\.\d+\.\d+", properties["mlm:framework_version"])
    (model_input,) = properties["mlm:input"]
    assert model_input["name"] == "inputs"
    assert model_input["bands"] == ["B02", "B03", "B04", "B08"]
    assert model_input["input"] == {
        "shape": [-1, 64, 64, 4],
        "dim_order": ["batch", "height", "width", "channel"],
        "data_type": "float32",
    }
    assert "10,000" in model_input["description"]
    (output,) = properties["mlm:output"]
    assert set(output["tasks"]) <= set(properties["mlm:tasks"])
    assert output["result"] == {
        "shape": [-1, metadata["num_features"]],
        "dim_order": ["batch", "feature"],
        "data_type": "float32",
    }


def test_make_stac_item_untrained_model_is_not_pretrained(metadata):
    untrained = make_stac_item(metadata)["properties"]
    assert untrained["mlm:pretrained"] is False
    assert untrained["mlm:pretrained_source"] is None
    trained = make_stac_item({**metadata, "steps": 5})["properties"]
    assert trained["mlm:pretrained"] is True
    assert trained["mlm:pretrained_source"] == "Sentinel-2 image time series, self-supervised"


def test_make_stac_item_has_one_model_asset_with_bands(item):
    assert "https://stac-extensions.github.io/eo/v1.1.0/schema.json" in item["stac_extensions"]
    (asset,) = [one for one in item["assets"].values() if "mlm:model" in one["roles"]]
    assert asset["mlm:artifact_type"] == "tf.saved_model.save"
    assert asset["eo:bands"] == [
        {"name": "B02", "common_name": "blue"},
        {"name": "B03", "common_name": "green"},
        {"name": "B04", "common_name": "red"},
        {"name": "B08", "common_name": "nir"},
    ]
    # MLM forbids these in an asset: they are of the model as a whole.
    for other in item["assets"].values():
        assert not {"mlm:name", "mlm:input", "mlm:output"} & set(other)


def test_make_stac_item_sentinel_2_bands_have_common_names_of_eo(metadata):
    bands = make_stac_item({**metadata, "bands": list(ALL_BANDS)})["assets"]["model"]["eo:bands"]
    assert [band["name"] for band in bands] == list(ALL_BANDS)
    assert {band["common_name"] for band in bands} <= EO_COMMON_NAMES


def test_make_stac_item_band_of_another_sensor_has_name_only(metadata):
    bands = make_stac_item({**metadata, "bands": ["NDVI"]})["assets"]["model"]["eo:bands"]
    assert bands == [{"name": "NDVI"}]


def test_metadata_licence_is_stated_if_given(model):
    metadata = make_metadata(model, "shared", "a name", "CC-BY-4.0")
    assert metadata["license"] == "CC-BY-4.0"
    assert make_stac_item(metadata)["properties"]["license"] == "CC-BY-4.0"
    assert "## Licence\n\nCC-BY-4.0\n" in render_card(metadata)
    assert front_matter(render_card(metadata))["license"] == "cc-by-4.0"
    unstated = make_metadata(model, "shared", "a name", None)
    assert "license" not in make_stac_item(unstated)["properties"]
    assert "Not stated" in render_card(unstated)
    assert "license" not in front_matter(render_card(unstated))
