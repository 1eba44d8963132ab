"""Our quantizer for ncnn: what it writes, ncnn runs, and means what the float network means."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import ncnn as runtime
import numpy as np
import pytest
from hypothesis import given as cases
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from musgd_cli.compress import ncnn, ncnn_files, ncnn_int8
from musgd_cli.compress.formats import Material
from musgd_cli.compress.ncnn_files import Layer
from musgd_cli.errors import MusgdError

SIZE = 64


@pytest.fixture(scope="module")
def material(settled_material: Material) -> Material:
    return settled_material


def build(material: Material, folder: Path) -> str | None:
    folder.mkdir(exist_ok=True)
    return ncnn.build(material, folder, "int8")


@pytest.fixture(scope="module")
def made(material: Material, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The network in int8."""
    folder = tmp_path_factory.mktemp("int8")
    assert build(material, folder) == "mean-minmax"
    return folder


def run(folder: Path, x: np.ndarray) -> np.ndarray:
    """Run a model with ncnn alone, as it comes."""
    net = runtime.Net()
    net.opt.num_threads = 1
    assert net.load_param(str(folder / "model.ncnn.param")) == 0
    assert net.load_model(str(folder / "model.ncnn.bin")) == 0
    (entry,), (end,) = net.input_names(), net.output_names()
    with net.create_extractor() as extractor:
        extractor.input(entry, runtime.Mat(x))
        return np.array(extractor.extract(end)[1])


def test_ncnn_alone_runs_it_and_it_means_what_the_float_model_does(material, made, tmp_path):
    ncnn.build(material, tmp_path, "fp32")
    for x in material.inputs:
        wanted, got = run(tmp_path, x[0]), run(made, x[0])
        assert got.shape == wanted.shape
        # Of random weights, so a few places go far astray.
        assert np.abs(got[:4] - wanted[:4]).mean() < SIZE / 64
        assert np.abs(got[4:] - wanted[4:]).mean() < wanted[4:].mean() / 5
        assert np.abs(got - wanted).max() > 1e-3  # it is another arithmetic


def test_it_is_as_small_as_int8_and_half_precision_make_it(material, made, tmp_path):
    ncnn.build(material, tmp_path, "fp16")

    def size(folder: Path) -> int:
        return sum((folder / name).stat().st_size for name in ncnn.FILES)

    assert size(made) <= 0.62 * size(tmp_path)


def test_reading_back_names_exactly_the_int8_layers(made):
    lines = [line.split() for line in (made / "model.ncnn.param").read_text().splitlines()[2:]]
    convolutions = [line for line in lines if line[0].startswith("Convolution")]
    found = ncnn.read_back(made)
    assert found.precision == "int8"
    assert found.int8_macs_share >= 0.9
    assert list(found.int8_layers) == [line[1] for line in convolutions if "8=1" in line]
    assert list(found.float_layers) == [line[1] for line in convolutions if "8=1" not in line]
    assert len(convolutions) == 102


def test_what_int8_harms_or_slows_down_stays_float(made):
    layers = {layer.name: layer for layer in ncnn_files.read(made)}
    kept = [layers[name] for name in ncnn.read_back(made).float_layers]
    grouped = [layer for layer in kept if layer.kind == "ConvolutionDepthWise"]
    others = [layer for layer in kept if layer.kind == "Convolution"]
    # Eight depth-wise ones; the image's; boxes and scores of three sizes.
    assert len(grouped) == 8
    outputs = [layer.number(ncnn_files.Key.N_OUTPUT) for layer in others]
    assert sorted(outputs) == [3, 3, 3, 4, 4, 4, 16]
    assert all(layer.tensors[0].dtype == np.float16 for layer in kept)


def test_keep_float_returns_exactly_those(material, made, tmp_path):
    before = set(ncnn.read_back(made).int8_layers)
    asked = {"/model.1/conv/Conv", "/model.10/m/m.0/attn/qkv/conv/Conv", "/model.23/Concat"}
    build(replace(material, keep_float=frozenset(asked)), tmp_path)
    returned = before - set(ncnn.read_back(tmp_path).int8_layers)
    import onnx
    from onnx import numpy_helper

    graph = onnx.load(material.onnx).graph
    weights = {tensor.name: tensor for tensor in graph.initializer}
    wanted = sorted(
        numpy_helper.to_array(weights[node.input[1]]).astype(np.float16).tobytes()
        for node in graph.node
        if node.op_type == "Conv" and node.name in asked
    )
    layers = {layer.name: layer for layer in ncnn_files.read(tmp_path)}
    assert sorted(layers[name].tensors[0].tobytes() for name in returned) == wanted
    assert len(wanted) == 2


def test_a_node_that_is_not_there_is_named(material, tmp_path):
    with pytest.raises(MusgdError, match=r"with the weights of /model\.99/Conv"):
        build(replace(material, keep_float=frozenset({"/model.99/Conv"})), tmp_path)


def test_a_parent_with_other_weights_is_refused(material, tmp_path):
    import onnx
    from onnx import numpy_helper

    model = onnx.load(material.onnx)
    node = next(node for node in model.graph.node if node.name == "/model.1/conv/Conv")
    tensor = next(t for t in model.graph.initializer if t.name == node.input[1])
    tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) + 1, tensor.name))
    onnx.save(model, tmp_path / "other.onnx")
    other = replace(material, onnx=tmp_path / "other.onnx")
    with pytest.raises(MusgdError, match=r"with the weights of /model\.1/conv/Conv"):
        build(replace(other, keep_float=frozenset({node.name})), tmp_path)


def test_quantize_all_leaves_no_convolution_float(material, tmp_path):
    build(replace(material, quantize_all=True), tmp_path)
    found = ncnn.read_back(tmp_path)
    assert (found.int8_macs_share, found.float_layers) == (1, ())
    assert np.isfinite(run(tmp_path, next(iter(material.inputs))[0])).all()


class Untouchable:
    """Images that nobody may look at."""

    def __iter__(self) -> Iterator[np.ndarray]:
        raise AssertionError("calibrated again")


def test_a_rebuild_has_the_same_bytes(material, made, tmp_path):
    again = replace(material, memo={})
    for name in ("first", "second"):
        build(again, tmp_path / name)
        again = replace(again, inputs=Untouchable())
        for file in ncnn.FILES:
            assert (tmp_path / name / file).read_bytes() == (made / file).read_bytes()


@pytest.mark.parametrize(
    ("method", "recorded"), [("percentile", "percentile-99.99"), ("entropy", "entropy")]
)
def test_other_methods(material, made, tmp_path, method, recorded):
    assert build(replace(material, method=method), tmp_path) == recorded
    x = next(iter(material.inputs))[0]
    assert np.isfinite(run(tmp_path, x)).all()
    scales = [
        [layer.tensors[-1][0] for layer in ncnn_files.read(folder) if layer.is_int8]
        for folder in (tmp_path, made)
    ]
    assert scales[0] != scales[1]


# ------------------------------------------------------------------------ networks written by hand


def network(folder: Path, *convolutions: tuple[np.ndarray, np.ndarray, int], side: int) -> Path:
    """Write convolutions in a row: weights (out, in, kernel, kernel), bias, groups; no padding."""
    folder.mkdir(exist_ok=True)
    channels = convolutions[0][0].shape[1] * convolutions[0][2]
    shape = {0: str(side), 1: str(side), 2: str(channels)}
    layers = [Layer("Input", "in0", (), ("b0",), shape)]
    for number, (weights, bias, groups) in enumerate(convolutions):
        parameters = {0: len(weights), 1: weights.shape[2], 5: 1, 6: weights.size, 7: groups}
        layers.append(
            Layer(
                "ConvolutionDepthWise" if groups > 1 else "Convolution",
                f"conv{number}",
                (f"b{number}",),
                (f"b{number + 1}",),
                {key: str(value) for key, value in parameters.items()},
                (weights.astype(np.float32).ravel(), bias.astype(np.float32)),
            )
        )
    ncnn_files.write(layers, folder)
    return folder


def quantize(folder: Path, inputs: list[np.ndarray], into: Path) -> Path:
    """Quantize every convolution of a model."""
    layers = ncnn_files.read(folder)
    blobs = [layer.inputs[0] for layer in layers if layer.is_convolution]
    found = ncnn_int8.magnitudes(folder, blobs, inputs, "minmax")
    into.mkdir()
    ncnn_files.write(
        [ncnn_int8.quantize(x, found[x.inputs[0]]) if x.is_convolution else x for x in layers], into
    )
    return into


@pytest.mark.parametrize("groups", [1, 8])
def test_int8_computes_what_float_does(tmp_path, groups):
    rng = np.random.default_rng(0)
    weights = (
        rng.normal(size=(8, 8 // groups, 3, 3)) * 10.0 ** np.arange(-3, 5)[:, None, None, None]
    )
    x = rng.normal(size=(1, 8, 12, 12)).astype(np.float32)
    net = network(tmp_path / "float", (weights, rng.normal(size=8), groups), side=12)
    wanted, got = run(net, x[0]), run(quantize(net, [x], tmp_path / "int8"), x[0])
    # Each channel by its own size, which differ by 10^7: one scale for all would lose most.
    error = np.abs(got - wanted).max(axis=(1, 2)) / np.abs(wanted).max(axis=(1, 2))
    assert error.max() < 0.03


@pytest.mark.parametrize("groups", [1, 8])
def test_zeros_give_the_bias(tmp_path, groups):
    """Neither an input that is always zero nor a channel of zero weights may divide by zero."""
    weights = np.ones((8, 8 // groups, 3, 3))
    weights[2] = 0
    zeros = np.zeros((1, 8, 6, 6), np.float32)
    net = network(tmp_path / "float", (weights, np.arange(8), groups), side=6)
    got = run(quantize(net, [zeros], tmp_path / "int8"), zeros[0])
    np.testing.assert_array_equal(got, np.arange(8)[:, None, None] * np.ones((8, 4, 4)))


def test_no_input_makes_integer_winograd_overflow(tmp_path):
    """It computes 576 times the sum in 32 bits; this is the largest sum there is."""
    net = network(tmp_path / "float", (np.ones((16, 256, 3, 3)), np.zeros(16), 1), side=8)
    x = np.ones((1, 256, 8, 8), np.float32)
    got = run(quantize(net, [x], tmp_path / "int8"), x[0])
    np.testing.assert_allclose(got, 256 * 9, rtol=0.05)


def test_the_share_of_macs_is_counted_on_the_outputs(tmp_path):
    rng = np.random.default_rng(0)
    first = (rng.normal(size=(8, 4, 3, 3)), np.zeros(8), 1)
    second = (rng.normal(size=(4, 8, 1, 1)), np.zeros(4), 1)
    net = network(tmp_path / "float", first, second, side=10)
    layers = ncnn_files.read(net)
    layers[1] = ncnn_int8.quantize(layers[1], 1.0)
    ncnn_files.write(layers, net)
    macs = (8 * 8 * 8 * 4 * 9, 8 * 8 * 4 * 8)
    found = ncnn.read_back(net)
    assert found.int8_macs_share == pytest.approx(macs[0] / sum(macs))
    assert (found.int8_layers, found.float_layers) == (("conv0",), ("conv1",))


def test_values_that_are_not_finite(tmp_path):
    net = network(tmp_path, (np.full((1, 1, 1, 1), np.inf), np.zeros(1), 1), side=4)
    ones = np.ones((1, 1, 4, 4), np.float32)
    with pytest.raises(MusgdError, match="not finite"):
        ncnn_int8.magnitudes(net, ["b1"], [ones], "minmax")


# -------------------------------------------------------------------------------------- arithmetic

_VALUES = st.floats(-(2.0**100), 2.0**100, width=32)


@cases(arrays(np.float32, st.tuples(st.integers(1, 4), st.integers(1, 9)), elements=_VALUES))
def test_no_weight_is_off_by_more_than_half_a_step(weights):
    values, scales = ncnn_int8.quantize_weights(weights)
    assert np.isfinite(scales).all()
    assert (scales > 0).all()
    assert (values.min() >= -127) & (values.max() <= 127)
    steps = 1 / scales.astype(np.float64)[:, None]
    error = np.abs(values * steps - weights)
    assert (error <= np.maximum(0.5 * steps * (1 + 1e-4), 1e-30)).all()
    largest = np.abs(weights).max(axis=1)
    assert (np.abs(values).max(axis=1)[largest > 1e-29] == 127).all()  # all of the range is used


@cases(
    arrays(np.float32, st.tuples(st.just(2), st.integers(1, 200)), elements=_VALUES),
    st.integers(200, 5000),
)
def test_the_sum_of_a_channels_weights_stays_within_its_bound(weights, most):
    values, _ = ncnn_int8.quantize_weights(weights, most)
    assert np.abs(values.astype(int)).sum(axis=1).max() <= most


def test_entropy_cuts_an_outlier_and_no_even_distribution():
    even = np.full(2048, 100)
    assert ncnn_int8.least_divergence(even) == 2048
    bell = np.rint(1e5 * np.exp(-((np.arange(2048) / 150) ** 2) / 2)).astype(int)
    bell[-1] = 1
    assert 300 < ncnn_int8.least_divergence(bell) < 1500


# ------------------------------------------------------------------------------------------- files


@settings(max_examples=40)
@cases(st.data())
def test_a_file_that_was_cut_or_grew_is_refused(made, tmp_path_factory, data):
    whole = (made / "model.ncnn.bin").read_bytes()
    length = data.draw(st.integers(0, len(whole) - 1) | st.sampled_from([0, 4, len(whole) - 4]))
    folder = tmp_path_factory.mktemp("damaged")
    (folder / "model.ncnn.param").write_bytes((made / "model.ncnn.param").read_bytes())
    for content in (whole[:length], whole + bytes(4)):
        (folder / "model.ncnn.bin").write_bytes(content)
        with pytest.raises(MusgdError, match="not what ncnn reads") as caught:
            ncnn.read_back(folder)
        assert "\n" not in caught.value.what


@pytest.mark.parametrize(
    "spoil",
    [
        lambda text: "",
        lambda text: text[: len(text) // 2],
        lambda text: text.replace("7767517", "7767518"),
        lambda text: text.replace(" 8=1", "", 1),
        lambda text: text.replace(" 6=4608", " 6=4604", 1),
        lambda text: text.replace(" 6=4608", " 6=-1", 1),
        lambda text: text.replace(" 5=1", " 5=one", 1),
    ],
)
def test_a_param_file_that_was_changed_is_refused(made, tmp_path, spoil):
    text = (made / "model.ncnn.param").read_text()
    assert spoil(text) != text
    (tmp_path / "model.ncnn.param").write_text(spoil(text))
    (tmp_path / "model.ncnn.bin").write_bytes((made / "model.ncnn.bin").read_bytes())
    with pytest.raises(MusgdError, match="not what ncnn reads"):
        ncnn.read_back(tmp_path)


def test_reading_and_writing_gives_what_pnnx_wrote(material, tmp_path):
    ncnn.build(material, tmp_path, "fp16")
    before = (tmp_path / "model.ncnn.bin").read_bytes()
    layers = ncnn_files.read(tmp_path)
    ncnn_files.write(layers, tmp_path)
    assert (tmp_path / "model.ncnn.bin").read_bytes() == before
    again = ncnn_files.read(tmp_path)
    assert [replace(x, tensors=()) for x in again] == [replace(x, tensors=()) for x in layers]
