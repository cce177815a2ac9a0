"""A test is the published one, down to the pixels, unless something else was asked for."""

import json
from dataclasses import replace
from io import BytesIO

import av
import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from actcli.engine.evaluator import EvalOptions, evaluate, published_views
from actcli.engine.protocols import AskedViews, choose_views
from actcli.engine.recipes import Protocol, load_recipe
from actcli.engine.results import read_scores
from actcli.errors import ActcliError
from actcli.ingest import ExtractOptions, extract_dataset
from actcli.loaders import open_loader
from actcli.models import backbones, create_model, load_weights, save_weights
from actcli.shards import ShardOptions, ShardReader, ShardSet, write_shards

from .helpers import HARDWARE

NUM_FRAMES, WIDTH, HEIGHT = 37, 340, 256
"""A clip whose frames and crops the reference files list."""


class TwoConvolutions(nn.Sequential):
    """Tells views apart as a large network does, in a few milliseconds each: what is seen, and where."""

    num_features = 512

    def __init__(self):
        super().__init__(
            *(nn.Conv2d(3, 16, 8, 4), nn.ReLU(), nn.Conv2d(16, 32, 4, 2), nn.ReLU()),
            *(nn.AdaptiveAvgPool2d(4), nn.Flatten()),
        )


@pytest.fixture(autouse=True)
def small_network(monkeypatch):
    monkeypatch.setitem(backbones._BUILDERS, "mobilenetv2", TwoConvolutions)


@pytest.mark.parametrize(
    ("size", "training_size", "scale"),
    [(224, 224, 256), (256, 224, 256), (288, 224, 288), (112, 224, 128), (64, 64, 73), (72, 64, 73), (112, 64, 112)],
)
def test_a_larger_crop_is_cut_from_the_scale_of_the_training(size, training_size, scale):
    views = choose_views(AskedViews(size=size), Protocol(), training_size=training_size, trained_with="tsm")
    assert views.scale_size == scale


def test_the_published_full_resolution_test_is_the_whole_height():
    recipe = load_recipe("tsm-something-r50-8f")
    views = choose_views(AskedViews(), recipe.test, training_size=224, trained_with=recipe.sampling)
    assert (views.clips, views.crops, views.size, views.scale_size, views.sampling) == (2, 3, 256, 256, "tsm")


def test_with_other_crops_the_published_box_is_left():
    views = choose_views(
        AskedViews(crops=1), load_recipe("tsm-something-r50-8f").test, training_size=224, trained_with="tsm"
    )
    assert (views.size, views.scale_size) == (224, 256)


@pytest.mark.parametrize(
    ("trained_with", "clips", "sampling", "name"),
    [
        ("tokshift", 3, None, "3x3-224of224-dense-tokshift"),
        ("tokshift", 10, None, "10x3-224of224-tokshift"),
        ("tokshift", 1, "segments", "1x3-224of224-segments-tokshift"),
        ("stmulnet", 2, None, "2x3-224of512-segments-stmulnet"),
        ("tsm", 3, None, "3x3-224of256-segments"),
        ("tokshift", 2, "tsm", "2x3-224of256-tsm"),
        ("segments", 10, "tokshift", "10x3-224of224-tokshift"),
    ],
)
def test_with_our_frames_resizing_and_crops_stay_those_of_the_training(trained_with, clips, sampling, name):
    asked = AskedViews(clips=clips, crops=3, sampling=sampling)
    views = choose_views(asked, Protocol(), training_size=224, trained_with=trained_with)
    assert views.name() == name


def test_a_test_that_tokshift_does_not_define_is_resized_and_cropped_as_tokshift_does(footage, tmp_path):
    recipe = load_recipe("tokshift-kinetics-b16-8x32-224")
    weights = _untrained(recipe, tmp_path / "weights.safetensors")
    asked = AskedViews(clips=2)
    result = evaluate(EvalOptions(weights, footage, tmp_path / "eval", views=asked, keep_views=True), HARDWARE)
    whole = open_loader(footage, "val", 8, 224, 1, 0, training=False, sampling="dense", num_test_clips=2,
                        num_crops=3, views="tokshift")  # fmt: skip
    with whole as loader:
        [batch] = loader
    model, _ = load_weights(weights)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (model.input_spec.mean, model.input_spec.std))
    with torch.inference_mode():
        logits = model.eval()((batch.clips[0].float() / 255 - mean) / std).numpy()
    [found] = read_scores(result.out_dir).logits
    np.testing.assert_allclose(found, logits.mean(0), rtol=1e-3, atol=1e-4)
    assert json.loads((result.out_dir / "metrics.json").read_text())["protocol"].count("crops of 'tokshift'") == 1


@pytest.mark.parametrize(("field", "value"), [("crops", 0), ("crops", 2), ("clips", 0), ("size", 5), ("scale_size", 5)])
def test_nonsense_is_refused_by_name(field, value):
    with pytest.raises(ActcliError, match=f"{field} is {value}"):
        AskedViews(**{field: value})


# -- end to end, against what the original code looks at ---------------------------------------------------------------


@pytest.fixture(scope="module")
def footage(clips_dir, tmp_path_factory):
    """Shards with real footage of 37 frames, 340 x 256: both classes in training, ``walk`` in validation."""
    root = tmp_path_factory.mktemp("footage")
    source = av.open(str(clips_dir / "street_h264.mp4"))
    frames = [frame.to_image() for frame, _ in zip(source.decode(video=0), range(NUM_FRAMES), strict=False)]
    assert len(frames) == NUM_FRAMES
    for split, name in (("train", "walk"), ("train", "stand"), ("val", "walk")):
        folder = root / "raw" / split / name
        folder.mkdir(parents=True)
        _write(folder / f"{split}.mp4", [image.resize((WIDTH, HEIGHT)) for image in frames])
    extract_dataset(ExtractOptions("street", root / "raw", root / "frames", short_side=0, executor="serial"))
    write_shards(ShardOptions(root / "frames", root / "shards"))
    return str(root / "shards")


def _write(path, images):
    with av.open(str(path), "w") as file:
        stream = file.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = WIDTH, HEIGHT, "yuv420p", 4_000_000
        for image in images:
            for packet in stream.encode(av.VideoFrame.from_image(image)):
                file.mux(packet)
        for packet in stream.encode():
            file.mux(packet)


ORIGINALS = [
    # recipe, mode of the original in sampling.json, crops in crops.json: group, scale and crop size, name
    ("tsm-something-r50-8f", "tsm", "test_2clip_twice_sample", (256, 256, "full_res_3crop")),
    ("tsm-kinetics-r50-8f", "tsm", "test_dense_10clip", (256, 256, "full_res_3crop")),
    ("masnet-sthv1-r50-8f", "masnet", "test_2clip_twice_sample", (256, 256, "full_res_3crop")),
    ("masnet-kinetics-r50-8f", "masnet", "test_dense_10clip", (256, 256, "full_res_3crop")),
    ("gsf-something-bninception-8f", "gsf", "test_2clip", (256, 224, "full_res_3crop")),
    ("gsm-something-bninception-8f", "gsm", "test_2clip", (256, 224, "center_crop")),
    ("tokshift-kinetics-b16-8x32-224", "tokshift", "val_test_dense_10clip", (224, 224, "tokshift")),
]


@pytest.mark.parametrize(("name", "codebase", "mode", "crops"), ORIGINALS, ids=[case[0] for case in ORIGINALS])
def test_an_evaluation_looks_at_what_the_original_looks_at(footage, parity_dir, tmp_path, name, codebase, mode, crops):
    recipe = load_recipe(name)
    weights = _untrained(recipe, tmp_path / "weights.safetensors")
    result = evaluate(EvalOptions(weights, footage, tmp_path / "eval", keep_views=True), HARDWARE)
    [found] = read_scores(result.out_dir).logits

    model, _ = load_weights(weights)
    views = _original_views(footage, parity_dir, codebase, mode, recipe.num_frames, crops)
    spec = model.input_spec
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (spec.mean, spec.std))
    clips = torch.from_numpy(views).movedim(-1, -3).float() / (255 / spec.value_range)
    clips = ((clips if spec.channel_order == "rgb" else clips.flip(2)) - mean) / std
    with torch.inference_mode():
        logits = torch.cat([model.eval()(clip[None]) for clip in clips]).numpy()
    assert len(views) == result.views.num_views
    # filters differ a little (OpenCV here, Pillow there); another frame, box or scale would differ by far more
    scale = np.abs(logits).max()
    np.testing.assert_allclose(found, logits.mean(0), atol=0.02 * scale)


def _untrained(recipe, path):
    """A small network with the recipe's test, whose classifier is not near 0, so that its scores tell views apart."""
    torch.manual_seed(3)
    model = create_model("tsn", num_classes=2, num_frames=recipe.num_frames, backbone="mobilenetv2")
    torch.nn.init.normal_(model.classifier.weight, std=1.0)
    metadata = {
        "classes": ["stand", "walk"],
        "sampling": recipe.sampling,
        "size": 224,
        "test": recipe.to_dict()["test"],
    }
    save_weights(model, path, metadata)
    return path


def _original_views(shards, parity_dir, codebase, mode, num_segments, crops):
    """The views ``[V, T, H, W, 3]`` of the original code: its frames, its resize with Pillow, its boxes."""
    protocol = json.loads((parity_dir / "protocol" / "sampling.json").read_text())["codebases"][codebase]["modes"]
    [row] = [
        row
        for row in protocol[mode]["rows"]
        if (row["num_frames"], row["num_segments"]) == (NUM_FRAMES, num_segments) and row.get("new_length", 1) == 1
    ]
    frames = np.array(row.get("clips", row.get("indices"))).reshape(-1, num_segments) - 1
    scale, size, kind = crops
    sizes = json.loads((parity_dir / "protocol" / "crops.json").read_text())["sizes"]
    [reference] = [entry for entry in sizes if (entry["width"], entry["height"]) == (WIDTH, HEIGHT)]
    pictures = _stored_frames(shards)
    if kind == "tokshift":
        setting = next(e for e in reference["tokshift"] if (e["patch_size"], e["short_side"]) == (size, scale))
        boxes, filter_ = setting["test_3crop_order_center_left_right"], Image.Resampling.BICUBIC
    else:
        [setting] = [
            entry for entry in reference["settings"] if (entry["scale_size"], entry["crop_size"]) == (scale, size)
        ]
        found, filter_ = setting[kind], Image.Resampling.BILINEAR
        boxes = found if isinstance(found[0], list) else [found]
    width, height = setting["resized"]
    resized = [picture.resize((width, height), filter_) for picture in pictures]
    return np.stack(
        [
            [np.asarray(resized[frame].crop((x, y, x + w, y + h))) for frame in clip]
            for clip in frames
            for x, y, w, h, _ in boxes
        ]
    )


def _stored_frames(shards):
    opened = ShardSet.open(shards)
    index, reader = opened.index("val"), ShardReader(opened.root)
    places = index.frame_extents(0, range(NUM_FRAMES))
    return [
        Image.open(BytesIO(reader.read(index.shard_name(0), int(offset), int(size)))).convert("RGB")
        for offset, size in zip(places.offsets, places.sizes, strict=True)
    ]


def test_the_wrong_scale_would_have_been_noticed(footage, tmp_path):
    weights = _untrained(load_recipe("tsm-something-r50-8f"), tmp_path / "weights.safetensors")
    options = EvalOptions(weights, footage, tmp_path / "eval")
    right = read_scores(evaluate(options, HARDWARE).out_dir).logits
    wrong = replace(options, views=AskedViews(scale_size=292, size=256))
    other = read_scores(evaluate(wrong, HARDWARE).out_dir).logits
    assert np.abs(right - other).max() > 0.02 * np.abs(right).max()


def test_weights_bring_their_published_test_along(tmp_path):
    model, metadata = load_weights(_untrained(load_recipe("tsm-something-r50-8f"), tmp_path / "w.safetensors"))
    views = published_views(AskedViews(), model, metadata)
    assert views.name() == "2x3-256of256-tsm"
