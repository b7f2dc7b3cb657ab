import collections
import functools
import itertools
import re

import keras
import numpy as np
import pytest
import tensorflow as tf

from sits_keras.config import PrepareConfig
from sits_keras.data import pair_dataset, prepare
from sits_keras.data.radiometry import to_network
from sits_keras.data.records import Block, Manifest, serialize, write_manifest, write_shard
from sits_keras.data.tiling import Window
from sits_keras.errors import ConfigError, DataError, MissingError

# Bands that say where a pixel is from: `1 +` record, date, row and column.
BANDS = ("record", "date", "row", "col")
# Stored values up to 1000 stay within [-1, 1], 0.002 apart.
BAND_MAX = (0.1,) * 4


def coded_images(record, num_dates, height, width):
    axes = np.meshgrid([record], range(num_dates), range(height), range(width), indexing="ij")
    return 1 + np.stack([axis[0] for axis in axes], axis=-1).astype(np.uint16)


def write_records(folder, shards=(2, 2), num_dates=3, size=(70, 66), compression=""):
    """Writes records of `coded_images`, some to each shard."""
    numbers = itertools.count()
    block = Block("lake", 0, Window(0, 0, *size), ("",) * num_dates)
    written = []
    for index, count in enumerate(shards):
        records = [
            serialize(block, coded_images(number, num_dates, *size))
            for number in itertools.islice(numbers, count)
        ]
        path = folder / f"shard-{index:05d}.tfrecord"
        written.append(write_shard(path, records, compression))
    manifest = Manifest(folder, BANDS, compression, tuple(written), (), {}, {}, "")
    write_manifest(manifest)
    return manifest


@pytest.fixture
def make_records(tmp_path):
    return functools.partial(write_records, tmp_path)


def stored(values, band_max=0.1):
    """Network values as the stored values that they were."""
    return np.rint((np.asarray(values, np.float64) + 1) / 2 * 10_000 * band_max).astype(int)


def batches(records, num_steps, **options):
    """`(steps, 2, batch, 64, 64, 4)`: record, date, row and column of each pixel of each pair."""
    options = {"batch_size": 2, "seed": 0, "band_max": BAND_MAX, **options}
    dataset = pair_dataset(records, num_steps=num_steps, **options)
    return np.array([[stored(x), stored(y)] for x, y in dataset]) - 1


def record_of(images):
    numbers = images[..., 0]
    first = numbers[..., 0, 0]
    assert (numbers == first[..., None, None]).all()
    return first


def test_pair_dataset_batch_is_two_float_images_of_one_shape(make_records):
    ((x, y),) = pair_dataset(make_records(), 3, seed=0, band_max=BAND_MAX, num_steps=1)
    for images in (x, y):
        assert images.shape == (3, 64, 64, 4)
        assert images.dtype == tf.float32


def test_pair_dataset_element_spec_has_batch_and_image_size(make_records):
    x, y = pair_dataset(make_records(), 3, seed=0, band_max=BAND_MAX).element_spec
    assert x.dtype == y.dtype == tf.float32
    assert x.shape.as_list()[1:3] == y.shape.as_list()[1:3] == [64, 64]


def test_pair_dataset_images_are_network_values_of_stored_values(make_records):
    manifest = make_records(shards=(1,), num_dates=2, size=(64, 64))
    # Rows reach 64 and columns too: reflectance 0.0064, of which the last band shows up to 0.0032.
    band_max = (0.01, 0.01, 0.0064, 0.0032)
    dataset = pair_dataset(
        manifest, 1, seed=0, band_max=band_max, augment=False, pairs_per_record=1, num_steps=8
    )
    expected = to_network(coded_images(0, 2, 64, 64), band_max)
    for x, y in dataset:
        first = int(expected[0, 0, 0, 1] != x[0, 0, 0, 1])
        np.testing.assert_allclose(x[0], expected[first], atol=1e-6)
        np.testing.assert_allclose(y[0], expected[1 - first], atol=1e-6)
    assert float(tf.reduce_max(x)) == 1
    assert float(tf.reduce_min(x)) > -1


def test_pair_dataset_pixels_without_data_are_minus_one(tmp_path):
    images = np.zeros((2, 64, 64, 1), np.uint16)
    block = Block("lake", 0, Window(0, 0, 64, 64), ("", ""))
    shard = write_shard(tmp_path / "shard.tfrecord", [serialize(block, images)], "")
    manifest = Manifest(tmp_path, ("B02",), "", (shard,), (), {}, {}, "")
    ((x, y),) = pair_dataset(manifest, 1, seed=0, num_steps=1)
    np.testing.assert_array_equal(x, -np.ones((1, 64, 64, 1)))
    np.testing.assert_array_equal(y, x)


@pytest.mark.parametrize("augment", [False, True])
def test_pair_dataset_both_images_are_of_one_record_and_window(make_records, augment):
    images = batches(make_records(), 12, augment=augment)
    x, y = images[:, 0], images[:, 1]
    np.testing.assert_array_equal(x[..., [0, 2, 3]], y[..., [0, 2, 3]])
    record_of(x)


def test_pair_dataset_two_images_of_a_pair_are_of_different_dates(make_records):
    dates = batches(make_records(), 12)[..., 1]
    assert (dates == dates[..., :1, :1]).all()
    x, y = dates[:, 0, :, 0, 0], dates[:, 1, :, 0, 0]
    assert (x != y).all()


def test_pair_dataset_every_ordered_pair_of_dates_is_sampled(make_records):
    images = batches(make_records(num_dates=3), 40)
    drawn = images[:, :, :, 0, 0, 1].transpose(0, 2, 1).reshape(-1, 2)
    assert set(map(tuple, drawn)) == set(itertools.permutations(range(3), 2))


def test_pair_dataset_crops_without_augmentation_are_windows_of_the_block(make_records):
    images = batches(make_records(), 8, augment=False)
    rows, cols = images[..., 2], images[..., 3]
    steps = np.arange(64)
    np.testing.assert_array_equal(
        rows - rows[..., :1, :1], np.broadcast_to(steps[:, None], rows.shape)
    )
    np.testing.assert_array_equal(cols - cols[..., :1, :1], np.broadcast_to(steps, cols.shape))


def test_pair_dataset_every_offset_of_a_crop_is_sampled(make_records):
    images = batches(make_records(size=(66, 65)), 40, augment=False)
    corners = images[:, 0, :, 0, 0, 2:].reshape(-1, 2)
    assert set(map(tuple, corners)) == set(itertools.product(range(3), range(2)))


def test_pair_dataset_augmentation_samples_the_eight_symmetries_of_the_square(make_records):
    images = batches(make_records(size=(64, 64)), 40)
    grid = np.stack(np.indices((64, 64)), axis=-1)
    symmetries = [np.rot90(side, turns) for side in (grid, grid[::-1]) for turns in range(4)]
    drawn = set()
    for crop in images[:, 0, ..., 2:].reshape(-1, 64, 64, 2):
        (which,) = [i for i, symmetry in enumerate(symmetries) if (crop == symmetry).all()]
        drawn.add(which)
    assert drawn == set(range(8))


def test_pair_dataset_context_surrounds_the_same_crops(make_records):
    manifest = make_records()
    alone = batches(manifest, 6, pairs_per_record=2)
    around = batches(manifest, 6, pairs_per_record=2, context=(3, 8))
    assert around.shape[3:5] == (75, 75)
    np.testing.assert_array_equal(around[:, :, :, 3:67, 3:67], alone)


@pytest.mark.parametrize("context", [(3, 8), (0, 5), (150, 0)])
def test_pair_dataset_context_outside_of_the_block_is_its_reflection(make_records, context):
    images = batches(make_records(size=(64, 64)), 12, context=context)
    places = np.stack(np.indices((64, 64)), axis=-1)
    expected = [
        np.pad(np.rot90(side, turns), (context, context, (0, 0)), mode="reflect")
        for side in (places, places[::-1])
        for turns in range(4)
    ]
    for image in images[..., 2:].reshape(-1, *expected[0].shape):
        assert sum((image == symmetry).all() for symmetry in expected) == 1


def test_pair_dataset_context_within_the_block_is_real_pixels(make_records):
    images = batches(make_records(size=(200, 200)), 6, augment=False, context=(2, 3))
    corners = images[..., 2:3, 2:3, 2:]
    inside = ((corners >= 2) & (corners < 200 - 66)).all(axis=(-3, -2, -1))
    assert inside.any()
    grid = np.stack(np.indices((69, 69)), axis=-1) - 2
    expected = np.broadcast_to(grid, images[..., 2:].shape)
    np.testing.assert_array_equal((images[..., 2:] - corners)[inside], expected[inside])


@pytest.mark.parametrize("size", [2, 3])
def test_pair_dataset_workers_fraction_the_batches_of_one(make_records, size):
    manifest = make_records(shards=(2, 3))
    options = {"num_steps": 5, "pairs_per_record": 2, "seed": 4, "start_step": 1}
    one = batches(manifest, batch_size=2 * size, **options)
    for index in range(size):
        part = batches(manifest, batch_size=2, worker=(index, size), **options)
        np.testing.assert_array_equal(part, one[:, :, 2 * index : 2 * index + 2])


def test_pair_dataset_each_record_is_visited_by_one_worker_an_epoch(make_records):
    manifest = make_records(shards=(6,), num_dates=2, size=(64, 64))
    visited = [
        record_of(batches(manifest, 6, batch_size=1, pairs_per_record=1, worker=(index, 2))[:, 0])
        for index in range(2)
    ]
    epochs = np.concatenate(visited, axis=1).reshape(2, 6)
    np.testing.assert_array_equal(np.sort(epochs), [range(6)] * 2)


def test_pair_dataset_stream_begins_far_in_without_reading_what_was_before(make_records):
    manifest = make_records()
    expected = batches(manifest, 1, start_step=10**12)
    np.testing.assert_array_equal(batches(manifest, 2, start_step=10**12 - 1)[1:], expected)


def test_pair_dataset_window_and_date_of_prepared_series_agree(tmp_path, coded_series):
    source = coded_series(tmp_path / "lake", dates=4, size=(150, 100))
    manifest = prepare(source, tmp_path / "out", progress=False)
    # The highest value of `coded_series` is 33,900.
    dataset = pair_dataset(manifest, 2, seed=3, band_max=(4.0,) * 4, num_steps=8)
    values = np.array([[stored(x, 4.0), stored(y, 4.0)] for x, y in dataset]) - 1
    dates, places = values % 10_000 // 1000, values % 1000
    assert (values // 10_000 == np.arange(4)).all()
    assert (dates == dates[..., :1, :1, :1]).all()
    assert (dates[:, 0] != dates[:, 1]).all()
    assert set(np.unique(dates)) == {0, 1, 2, 3}
    np.testing.assert_array_equal(places[:, 0], places[:, 1])
    assert (places == places[..., :1]).all()
    assert len(np.unique(places[:, 0, :, 0, 0, 0])) > 8


def test_pair_dataset_each_record_is_visited_once_an_epoch(make_records):
    manifest = make_records(shards=(1, 2, 0, 3))
    visited = record_of(batches(manifest, 9, batch_size=2, pairs_per_record=1)[:, 0])
    epochs = visited.reshape(3, 6)
    np.testing.assert_array_equal(np.sort(epochs), [range(6)] * 3)
    assert len({tuple(epoch) for epoch in epochs}) == 3


def test_pair_dataset_each_record_of_many_shards_is_visited_once_an_epoch(make_records):
    manifest = make_records(shards=(1,) * 11, num_dates=2, size=(64, 64))
    visited = record_of(batches(manifest, 2, batch_size=11, pairs_per_record=1)[:, 0])
    np.testing.assert_array_equal(np.sort(visited), [range(11)] * 2)


def test_pair_dataset_records_of_a_shard_are_shuffled(make_records):
    manifest = make_records(shards=(6,))
    epochs = record_of(batches(manifest, 4, batch_size=6, pairs_per_record=1)[:, 0])
    np.testing.assert_array_equal(np.sort(epochs), [range(6)] * 4)
    assert len({tuple(epoch) for epoch in epochs}) > 1


def test_pair_dataset_records_of_different_shards_are_shuffled(make_records):
    manifest = make_records(shards=(1,) * 6)
    epochs = record_of(batches(manifest, 4, batch_size=6, pairs_per_record=1)[:, 0])
    np.testing.assert_array_equal(np.sort(epochs), [range(6)] * 4)
    assert len({tuple(epoch) for epoch in epochs}) > 1


def test_pair_dataset_pairs_of_a_visit_go_to_consecutive_batches(make_records):
    manifest = make_records(shards=(3, 3))
    images = batches(manifest, 8, batch_size=3, pairs_per_record=4)
    visited = record_of(images[:, 0])
    np.testing.assert_array_equal(visited[:4], visited[[0] * 4])
    np.testing.assert_array_equal(visited[4:], visited[[4] * 4])
    np.testing.assert_array_equal(np.sort(visited[[0, 4]].ravel()), range(6))
    assert len({image.tobytes() for image in images[:4, 0, 0]}) > 1


def test_pair_dataset_batch_larger_than_the_records_goes_through_more_than_one_epoch(make_records):
    manifest = make_records(shards=(3,))
    visited = record_of(batches(manifest, 1, batch_size=7)[:, 0]).ravel()
    assert sorted(visited[:3]) == sorted(visited[3:6]) == [0, 1, 2]


@pytest.fixture(scope="module")
def stream(tmp_path_factory):
    """Records and their stream, in which epochs end within batches and within visits."""
    manifest = write_records(tmp_path_factory.mktemp("stream"), shards=(2, 3))
    return manifest, batches(manifest, 12, batch_size=3, pairs_per_record=2, seed=7)


@pytest.mark.parametrize("step", [1, 2, 5, 11])
def test_pair_dataset_stream_begins_at_any_step(stream, step):
    manifest, images = stream
    later = batches(manifest, 12 - step, batch_size=3, pairs_per_record=2, seed=7, start_step=step)
    np.testing.assert_array_equal(later, images[step:])


@pytest.mark.parametrize("set_seed", [tf.random.set_seed, keras.utils.set_random_seed])
def test_pair_dataset_global_seeds_change_nothing(stream, set_seed):
    manifest, images = stream
    set_seed(1234)
    again = batches(manifest, 12, batch_size=3, pairs_per_record=2, seed=7)
    np.testing.assert_array_equal(again, images)


def test_pair_dataset_global_random_numbers_are_left_alone(make_records):
    manifest = make_records()
    tf.random.set_seed(5)
    expected = tf.random.uniform([4]).numpy()
    tf.random.set_seed(5)
    batches(manifest, 2)
    np.testing.assert_array_equal(tf.random.uniform([4]), expected)


def test_pair_dataset_stream_is_the_same_when_read_again(make_records):
    dataset = pair_dataset(make_records(), 2, seed=1, band_max=BAND_MAX, num_steps=6)
    first, second = ([x.numpy() for x, _ in dataset] for _ in range(2))
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("seed", [1, 2**31 - 1])
def test_pair_dataset_seeds_differ_in_order_and_in_samples(make_records, seed):
    manifest = make_records(shards=(8,))
    one, other = (batches(manifest, 4, pairs_per_record=1, seed=s) for s in (0, seed))
    assert (record_of(one) != record_of(other)).any()
    assert (one[..., 2:] != other[..., 2:]).any()


@pytest.mark.parametrize("num_steps", [0, 1, 5])
def test_pair_dataset_number_of_steps(make_records, num_steps):
    dataset = pair_dataset(make_records(), 2, seed=0, band_max=BAND_MAX, num_steps=num_steps)
    assert len(dataset) == num_steps
    assert len(list(dataset)) == num_steps


def test_pair_dataset_stream_has_no_end_by_default(make_records):
    dataset = pair_dataset(make_records(), 2, seed=0, band_max=BAND_MAX)
    assert dataset.cardinality() == tf.data.INFINITE_CARDINALITY
    assert len(list(itertools.islice(dataset, 20))) == 20


def test_pair_dataset_compressed_records_give_the_same_pairs(make_records):
    plain = batches(make_records(), 3)
    np.testing.assert_array_equal(batches(make_records(compression="GZIP"), 3), plain)


def test_pair_dataset_folder_does_as_well_as_its_manifest(make_records):
    manifest = make_records()
    expected = batches(manifest, 2)
    np.testing.assert_array_equal(batches(manifest.folder, 2), expected)
    np.testing.assert_array_equal(batches(str(manifest.folder), 2), expected)


def test_pair_dataset_bands_are_selected_by_name_in_the_order_asked_for(make_records):
    manifest = make_records()
    everything = batches(manifest, 3)
    some = batches(manifest, 3, bands=("col", "record"), band_max=BAND_MAX[:2])
    np.testing.assert_array_equal(some, everything[..., [3, 0]])


def test_pair_dataset_band_maxima_go_with_the_bands_asked_for(make_records):
    manifest = make_records()
    ((x, _),) = pair_dataset(
        manifest, 2, seed=0, bands=("col", "row"), band_max=(0.1, 0.2), num_steps=1
    )
    everything = batches(manifest, 1)[0, 0]
    np.testing.assert_array_equal(stored(x[..., 0], 0.1) - 1, everything[..., 3])
    np.testing.assert_array_equal(stored(x[..., 1], 0.2) - 1, everything[..., 2])


def test_pair_dataset_known_bands_have_a_default_maximum(tmp_path, coded_series):
    source = coded_series(tmp_path / "lake", dates=2)
    config = PrepareConfig(bands=("B08", "B02"))
    prepare(source, tmp_path / "out", config, progress=False)
    given, default = (
        next(iter(pair_dataset(tmp_path / "out", 2, seed=0, band_max=band_max)))
        for band_max in ((0.60, 0.30), ())
    )
    np.testing.assert_array_equal(given, default)


def test_pair_dataset_unknown_band_raises(make_records):
    with pytest.raises(DataError, match=r"has no band B11. It has: record, date, row, col\."):
        pair_dataset(make_records(), seed=0, bands=("row", "B11"), band_max=(1.0, 1.0))


def test_pair_dataset_band_without_a_default_maximum(make_records):
    with pytest.raises(ConfigError, match="No default band_max is known for row, col: give band"):
        pair_dataset(make_records(), seed=0, bands=("row", "col"))


@pytest.mark.parametrize("band_max", [(0.1,) * 3, (0.1, 0.1, 0.0, 0.1), (0.1, -1.0, 0.1, 0.1)])
def test_pair_dataset_band_maxima_that_do_not_fit(make_records, band_max):
    with pytest.raises(ConfigError, match=r"at least 0\.001, one for each of record, date"):
        pair_dataset(make_records(), seed=0, band_max=band_max)


@pytest.mark.parametrize(
    ("name", "value", "low"),
    [
        ("batch_size", 0, 1),
        ("pairs_per_record", 0, 1),
        ("seed", -1, 0),
        ("start_step", -1, 0),
        ("num_steps", -1, 0),
        ("context", (0, -1), 0),
    ],
)
def test_pair_dataset_numbers_that_are_too_low(make_records, name, value, low):
    options = {"seed": 0, "band_max": BAND_MAX, name: value}
    with pytest.raises(
        ConfigError, match=rf"{name} must be at least {low}.*{name}={re.escape(str(value))}"
    ):
        pair_dataset(make_records(), **options)


@pytest.mark.parametrize("worker", [(-1, 2), (2, 2), (0, 0)])
def test_pair_dataset_workers_that_cannot_be(make_records, worker):
    with pytest.raises(ConfigError, match=rf"such as .*Received: worker={re.escape(str(worker))}"):
        pair_dataset(make_records(), seed=0, band_max=BAND_MAX, worker=worker)


def test_pair_dataset_more_workers_than_records(make_records):
    manifest = make_records(shards=(2,))
    with pytest.raises(DataError, match=r"has 2 records\. Expected at least one for each of 3"):
        pair_dataset(manifest, seed=0, band_max=BAND_MAX, worker=(0, 3))


def test_pair_dataset_manifest_without_records(make_records):
    with pytest.raises(DataError, match="does not contain any records"):
        pair_dataset(make_records(shards=()), seed=0, band_max=BAND_MAX)


def test_pair_dataset_missing_records_raises(tmp_path):
    with pytest.raises(MissingError, match=r"No folder at .*nowhere"):
        pair_dataset(tmp_path / "nowhere", seed=0)


def test_pair_dataset_record_that_has_changed_is_named_when_it_is_first_read(make_records):
    manifest = make_records(shards=(0, 1))
    path = manifest.folder / "shard-00001.tfrecord"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    dataset = pair_dataset(manifest, 2, seed=0, band_max=BAND_MAX)
    with pytest.raises(
        tf.errors.InvalidArgumentError, match=r"Record 1 of .*shard-00001.tfrecord has changed"
    ):
        next(iter(dataset))


def test_pair_dataset_shard_that_was_truncated_in_half_is_named(make_records):
    manifest = make_records()
    path = manifest.folder / "shard-00001.tfrecord"
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=r"shard-00001.tfrecord has .* bytes\. Expected"):
        pair_dataset(manifest.folder, seed=0, band_max=BAND_MAX)


# Crops of several windows, and number of visits of a record

INSIDE = slice(31, 31 + 128)


def crops(records, num_steps=1, **options):
    """Yield records, dates, rows and columns of the pixels of crops, and weights of their cells."""
    options = {"batch_size": 2, "seed": 0, "band_max": BAND_MAX, "context": (31, 47), **options}
    for x, y, weights in pair_dataset(records, num_steps=num_steps, crop_size=128, **options):
        yield stored(x) - 1, stored(y) - 1, np.asarray(weights)


def test_pair_dataset_large_crops_of_a_pair_show_same_pixels(tmp_path):
    records = write_records(tmp_path, size=(150, 140))
    for x, y, weights in crops(records, 4):
        assert x.shape == (2, 206, 206, 4)
        np.testing.assert_array_equal(x[..., 2:], y[..., 2:])
        assert (x[..., 1] != y[..., 1]).all()
        np.testing.assert_array_equal(weights, np.ones((2, 8, 8)))


@pytest.mark.parametrize("augment", [True, False])
def test_pair_dataset_cells_beyond_small_record_have_no_weight(tmp_path, augment):
    records = write_records(tmp_path, size=(128, 70))
    for x, _, weights in crops(records, 6, augment=augment):
        for crop, cells in zip(x, weights, strict=True):
            # 70 px hold four cells of 16 px. The other pixels are a reflection.
            assert cells.sum() == 8 * 4
            assert set(np.unique(cells)) == {0, 1}
            for row, col in np.argwhere(cells):
                cell = crop[INSIDE, INSIDE][16 * row : 16 * row + 16, 16 * col : 16 * col + 16]
                places = {tuple(place) for place in cell[..., 2:].reshape(-1, 2)}
                assert len(places) == 256


def test_pair_dataset_crops_of_64_px_have_no_weights(tmp_path):
    (batch,) = pair_dataset(write_records(tmp_path), 2, seed=0, band_max=BAND_MAX, num_steps=1)
    assert len(batch) == 2


def test_pair_dataset_balanced_by_dates_visits_long_series_more_often(tmp_path):
    records = write_records(tmp_path, shards=(3,), num_dates=8)
    visits = collections.Counter()
    dataset = pair_dataset(
        records, 3, seed=0, band_max=BAND_MAX, num_steps=2, pairs_per_record=1, balance="dates"
    )
    for x, _ in dataset:
        visits.update((stored(x)[:, 0, 0, 0] - 1).tolist())
    # sqrt(8 / 2) = 2 visits of each of three records in an epoch of two batches.
    assert visits == {0: 2, 1: 2, 2: 2}


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"crop_size": 100}, "crop_size must be a multiple of 64. Received: crop_size=100"),
        ({"balance": "area"}, "balance must be 'records' or 'dates'. Received: balance='area'"),
    ],
)
def test_pair_dataset_unknown_crop_or_balance_raises(tmp_path, option, message):
    records = write_records(tmp_path)
    with pytest.raises(ConfigError, match=re.escape(message)):
        pair_dataset(records, seed=0, band_max=BAND_MAX, **option)
