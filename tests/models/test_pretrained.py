"""Image weights: from the cache, from files, as flow input, in Google's and in MatConvNet's format."""

from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
import torchvision
from scipy.io import savemat
from scipy.ndimage import zoom
from typer.testing import CliRunner

from actcli.cli import app
from actcli.errors import ActcliError
from actcli.models import create_model, import_checkpoint, load_weights
from actcli.models.vit import resize_position_embedding


@pytest.fixture
def torch_cache(tmp_path, monkeypatch):
    """An empty cache and no network."""

    def no_network(url, *args, **kwargs):
        raise URLError("no network")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setattr(torch.hub, "download_url_to_file", no_network)
    return tmp_path / "hub" / "checkpoints"


def save_torchvision_resnet18(folder: Path) -> dict[str, torch.Tensor]:
    folder.mkdir(parents=True, exist_ok=True)
    weights = torchvision.models.resnet18().state_dict()
    torch.save(weights, folder / "resnet18-f37072fd.pth")
    return weights


def test_imagenet_weights_come_from_the_local_cache(torch_cache):
    weights = save_torchvision_resnet18(torch_cache)
    model = create_model("tsm", num_classes=3, backbone="resnet18", pretrained="imagenet")
    assert torch.equal(model.backbone.layer3[1].conv1.weight, weights["layer3.1.conv1.weight"])
    assert "pretrained" not in model.config


def test_flow_gets_the_mean_of_the_rgb_kernel_in_every_channel(torch_cache):
    weights = save_torchvision_resnet18(torch_cache)
    model = create_model("tsn", num_classes=3, backbone="resnet18", modality="flow", pretrained="imagenet")
    mean = weights["conv1.weight"].mean(1)
    assert model.backbone.conv1.weight.shape == (64, 10, 7, 7)
    assert all(torch.equal(model.backbone.conv1.weight[:, channel], mean) for channel in range(10))


def test_without_network_the_file_to_bring_and_its_place_are_named(torch_cache):
    with pytest.raises(ActcliError) as error:
        create_model("tsm", num_classes=3, backbone="resnet18", pretrained="imagenet")
    assert str(torch_cache / "resnet18-f37072fd.pth") in str(error.value)


def test_inception_weights_have_to_be_brought(torch_cache):
    with pytest.raises(ActcliError, match="give the file's path"):
        create_model("gsm", num_classes=3, pretrained="imagenet")


def test_weights_of_another_network_are_refused(tmp_path):
    save_torchvision_resnet18(tmp_path)
    with pytest.raises(ActcliError, match="not the weights of resnet34"):
        create_model("tsn", num_classes=3, backbone="resnet34", pretrained=tmp_path / "resnet18-f37072fd.pth")


def test_a_caffe_bninception_file_fills_the_backbone(tmp_path, parity_dir):
    from fill import case_weights, load_case

    case = case_weights(load_case(parity_dir / "models" / "tsn_bninception_8f.json"))
    stored = {
        key.removeprefix("base_model."): torch.from_numpy(value[None] if "_bn." in key and value.ndim else value)
        for key, value in case.items()
        if key.startswith("base_model.")
    }
    torch.save({**stored, "fc.weight": torch.zeros(1000, 1024)}, tmp_path / "bn_inception.pth")
    model = create_model("gsm", num_classes=3, pretrained=tmp_path / "bn_inception.pth")
    unit = model.backbone.inception_4c.branches["pool"][1]
    assert np.array_equal(unit.conv.weight.detach(), case["base_model.inception_4c_pool_proj.weight"])
    assert np.array_equal(unit.bn.running_var, case["base_model.inception_4c_pool_proj_bn.running_var"])


def google_vit(depth=12, width=192, heads=3, grid=2, seed=0):
    """Arrays as in Google's .npz files: kernels are input first."""
    draw = np.random.default_rng(seed)

    def array(*shape):
        return draw.standard_normal(shape).astype(np.float32)

    arrays = {
        "cls": array(1, 1, width),
        "Transformer/posembed_input/pos_embedding": array(1, 1 + grid * grid, width),
        "embedding/kernel": array(16, 16, 3, width),
        "embedding/bias": array(width),
        "Transformer/encoder_norm/scale": array(width),
        "Transformer/encoder_norm/bias": array(width),
        "head/kernel": array(width, 21843),
        "head/bias": array(21843),
    }
    for index in range(depth):
        block = f"Transformer/encoderblock_{index}"
        attention = f"{block}/MultiHeadDotProductAttention_1"
        for part in ("query", "key", "value"):
            arrays[f"{attention}/{part}/kernel"] = array(width, heads, width // heads)
            arrays[f"{attention}/{part}/bias"] = array(heads, width // heads)
        arrays[f"{attention}/out/kernel"] = array(heads, width // heads, width)
        arrays[f"{attention}/out/bias"] = array(width)
        for name, rows, columns in [("Dense_0", width, 4 * width), ("Dense_1", 4 * width, width)]:
            arrays[f"{block}/MlpBlock_3/{name}/kernel"] = array(rows, columns)
            arrays[f"{block}/MlpBlock_3/{name}/bias"] = array(columns)
        for name in ("LayerNorm_0", "LayerNorm_2"):
            arrays[f"{block}/{name}/scale"] = array(width)
            arrays[f"{block}/{name}/bias"] = array(width)
    return arrays


def test_google_npz_weights_compute_what_their_arrays_say(tmp_path):
    arrays = google_vit()
    np.savez(tmp_path / "Ti_16.npz", **arrays)
    model = create_model(
        "tokshift", num_classes=3, backbone="vit_ti16", image_size=32, pretrained=tmp_path / "Ti_16.npz"
    )
    vit = model.backbone
    x = torch.randn(5, 192)
    block = "Transformer/encoderblock_7"
    attention = f"{block}/MultiHeadDotProductAttention_1"
    expected = np.concatenate(
        [
            (
                np.einsum("nd,dhk->nhk", x, arrays[f"{attention}/{part}/kernel"]) + arrays[f"{attention}/{part}/bias"]
            ).reshape(5, -1)
            for part in ("query", "key", "value")
        ],
        axis=1,
    )
    np.testing.assert_allclose(vit.blocks[7].attn.qkv(x).detach(), expected, rtol=1e-4, atol=1e-4)
    projected = np.einsum("nhk,hkd->nd", x.view(5, 3, 64), arrays[f"{attention}/out/kernel"])
    np.testing.assert_allclose(
        vit.blocks[7].attn.proj(x).detach(), projected + arrays[f"{attention}/out/bias"], rtol=1e-4, atol=1e-4
    )
    hidden = x.numpy() @ arrays[f"{block}/MlpBlock_3/Dense_0/kernel"] + arrays[f"{block}/MlpBlock_3/Dense_0/bias"]
    np.testing.assert_allclose(vit.blocks[7].mlp.fc1(x).detach(), hidden, rtol=1e-4, atol=1e-4)
    patch = torch.randn(1, 3, 16, 16)
    embedded = np.einsum("chw,hwcd->d", patch[0], arrays["embedding/kernel"]) + arrays["embedding/bias"]
    np.testing.assert_allclose(vit.patch_embed.proj(patch).flatten().detach(), embedded, rtol=1e-4, atol=1e-4)
    assert np.array_equal(vit.norm.weight.detach(), arrays["Transformer/encoder_norm/scale"])
    assert np.array_equal(vit.pos_embed.detach(), arrays["Transformer/posembed_input/pos_embedding"])


@pytest.mark.parametrize(("grid", "image_size"), [(14, 256), (14, 384), (24, 224), (2, 48)])
def test_position_embeddings_are_zoomed_linearly_and_the_class_position_kept(grid, image_size):
    embedding = torch.randn(1, 1 + grid * grid, 5)
    new = image_size // 16
    expected = zoom(embedding[0, 1:].view(grid, grid, 5).numpy(), (new / grid, new / grid, 1), order=1)
    resized = resize_position_embedding(embedding, image_size)
    assert torch.equal(resized[:, 0], embedding[:, 0])
    np.testing.assert_allclose(resized[0, 1:].view(new, new, 5), expected, atol=1e-5)


def test_npz_position_embeddings_fit_the_image_size_of_the_model(tmp_path):
    np.savez(tmp_path / "Ti_16.npz", **google_vit(grid=2))
    model = create_model("vit", num_classes=3, backbone="vit_ti16", image_size=48, pretrained=tmp_path / "Ti_16.npz")
    assert model.backbone.pos_embed.shape == (1, 10, 192)


def test_an_npz_of_something_else_is_refused(tmp_path):
    np.savez(tmp_path / "x.npz", a=np.zeros(3))
    with pytest.raises(ActcliError, match="Google's format"):
        create_model("vit", num_classes=3, backbone="vit_ti16", image_size=32, pretrained=tmp_path / "x.npz")


def matconvnet_resnet50(in_channels, num_classes):
    """Parameters of a DagNN ResNet-50 with the names and shapes that MatConvNet gives them."""
    draw = np.random.default_rng(in_channels)
    params = {}

    def convolution(name, *shape):
        params[f"{name}_filter"] = draw.standard_normal(shape).astype(np.float32)

    def norm(name, channels):
        params[f"{name}_mult"] = draw.standard_normal(channels).astype(np.float32)
        params[f"{name}_bias"] = draw.standard_normal(channels).astype(np.float32)
        params[f"{name}_moments"] = (0.5 + draw.random((channels, 2))).astype(np.float32)

    convolution("conv1", 7, 7, in_channels, 64)
    params["conv1_bias"] = draw.standard_normal(64).astype(np.float32)
    norm("bn_conv1", 64)
    before = 64
    for stage, (num_blocks, width) in enumerate([(3, 64), (4, 128), (6, 256), (3, 512)], start=2):
        for block in "abcdef"[:num_blocks]:
            branches = [
                ("branch2a", 1, before, width),
                ("branch2b", 3, width, width),
                ("branch2c", 1, width, 4 * width),
            ]
            if block == "a":
                branches.append(("branch1", 1, before, 4 * width))
            for branch, kernel, inputs, outputs in branches:
                convolution(f"res{stage}{block}_{branch}", kernel, kernel, inputs, outputs)
                norm(f"bn{stage}{block}_{branch}", outputs)
            before = 4 * width
    convolution(f"fc{num_classes}", 1, 1, 2048, num_classes)
    params[f"fc{num_classes}_bias"] = draw.standard_normal(num_classes).astype(np.float32)
    return params


def save_mat(path, params, nested):
    array = np.zeros(len(params), dtype=[("name", object), ("value", object)])
    for row, (name, value) in enumerate(params.items()):
        array[row] = (name, value)
    network = {"params": array, "meta": {"normalization": {"imageSize": np.array([224.0, 224.0, 3.0])}}}
    savemat(path, {"net": {"net": network}} if nested else network)


@pytest.mark.parametrize(
    ("in_channels", "stream", "nested"), [(3, "rgb_stream", False), (3, "rgb_stream", True), (20, "flow_stream", True)]
)
def test_a_matconvnet_file_fills_its_stream(tmp_path, in_channels, stream, nested):
    params = matconvnet_resnet50(in_channels, num_classes=6)
    save_mat(tmp_path / "net.mat", params, nested)
    model = create_model("stmulnet", num_classes=6, num_frames=2)
    other = "flow_stream" if stream == "rgb_stream" else "rgb_stream"
    untouched = {key: value.clone() for key, value in model.get_submodule(other).state_dict().items()}
    report = import_checkpoint(tmp_path / "net.mat", "stmulnet", model)
    assert report.complete
    assert report.loaded == len(params) + 53  # moments become a mean and a variance
    network = model.get_submodule(stream).network
    kernel = params["res3b_branch2b_filter"]  # height, width, in, out
    assert np.array_equal(network.layer2[1].conv2.weight.detach(), kernel.transpose(3, 2, 0, 1))
    moments = params["bn3b_branch2b_moments"]
    norm = network.layer2[1].bn2
    assert np.array_equal(norm.running_mean, moments[:, 0])
    np.testing.assert_allclose((norm.running_var + norm.eps).sqrt(), moments[:, 1], rtol=1e-5)
    assert np.array_equal(network.layer1[0].downsample[1].bias.detach(), params["bn2a_branch1_bias"])
    assert np.array_equal(model.get_submodule(stream).classifier.weight.detach(), params["fc6_filter"][0, 0].T)
    assert all(torch.equal(value, untouched[key]) for key, value in model.get_submodule(other).state_dict().items())


def test_both_base_networks_are_imported_from_the_shell(tmp_path):
    nets = {channels: matconvnet_resnet50(channels, num_classes=6) for channels in (3, 20)}
    for channels, params in nets.items():
        save_mat(tmp_path / f"{channels}.mat", params, nested=True)
    runner, first, both = CliRunner(), str(tmp_path / "rgb.safetensors"), str(tmp_path / "both.safetensors")
    command = ["import", str(tmp_path / "3.mat"), "--from", "stmulnet", "--num-frames", "2", "--out", first]
    assert runner.invoke(app, command).exit_code == 0
    command = ["import", str(tmp_path / "20.mat"), "--from", "stmulnet", "--onto", first, "--out", both]
    assert runner.invoke(app, command).exit_code == 0
    model, _ = load_weights(both)
    for channels, stream in ((3, "rgb_stream"), (20, "flow_stream")):
        weight = model.get_submodule(stream).classifier.weight.detach()
        assert np.array_equal(weight, nets[channels]["fc6_filter"][0, 0].T)


def test_a_mat_file_without_a_network_is_refused(tmp_path):
    savemat(tmp_path / "x.mat", {"a": np.zeros(3)})
    with pytest.raises(ActcliError, match="no network of MatConvNet"):
        import_checkpoint(tmp_path / "x.mat", "stmulnet", create_model("stmulnet", num_classes=2))


def test_a_damaged_mat_file_is_refused(tmp_path):
    (tmp_path / "x.mat").write_bytes(b"MATLAB 5.0 MAT-file" + b"\0" * 50)
    with pytest.raises(ActcliError, match=r"x\.mat"):
        import_checkpoint(tmp_path / "x.mat", "stmulnet", create_model("stmulnet", num_classes=2))
