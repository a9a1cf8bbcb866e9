"""float16 graphs: close to float32 for every family, their types kept, or refused in words."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from models.bundle import Bundle, Golden, write_bundle
from models.errors import BundleError
from models.latents import latents
from serving.inference.accelerator.half import half_graph
from serving.inference.accelerator.owner import DeviceOwner
from serving.inference.engine import Engine
from serving.inference.sessions import Compute
from tests.models.networks.tiny import classes, players
from tests.serving.inference.accelerator.fake_cuda import FakeCuda
from tests.serving.inference.accelerator.rounded import rounded
from training.export import onnx_graphs

# vaegan's generator is dcgan's.
FAMILIES = ("mlp", "maxout", "dcgan", "resnet", "progressive", "r3gan", "style")
HALF = Compute(device="cuda:0", math="fp16")


def info(name: str, shape: list[Any], kind: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def write(path: Path, nodes: list[onnx.NodeProto], output: Any, **weights: Any) -> Path:
    """A graph of z [n, 4] with its values' types."""
    tensors = [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()]
    graph = helper.make_graph(nodes, "small", [info("z", ["n", 4])], [output], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(onnx.shape_inference.infer_shapes(model, strict_mode=True), path)
    return path


def run(model: bytes | Path, **feed: Any) -> Any:
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    return session.run(None, feed)[0]


def operators(data: bytes) -> list[str]:
    return [node.op_type for node in onnx.load_from_string(data).graph.node]


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_is_close_to_its_float32_images(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_graphs, "MEAN_W_SEEDS", 300)
    num = classes(name)
    G, _ = players(name, resolution=8, channels=3, num_classes=num)
    wrapped = onnx_graphs.byte_generator(G.requires_grad_(False).eval(), z_dim=5, num_classes=num)
    path = tmp_path / "model.onnx"
    path.write_bytes(onnx_graphs.to_onnx(wrapped, 5, conditional=num > 0))
    half = half_graph(path)
    before, after = onnx.load(path).graph, onnx.load_from_string(half).graph
    assert list(before.input) == list(after.input)
    assert list(before.output) == list(after.output)
    onnx.checker.check_model(onnx.load_from_string(half), full_check=True)
    taken = [value.name for value in before.input]
    rows = {"z": latents(range(64), 5), "psi": np.full(64, 0.8, np.float32)}
    feed = {key: rows[key] for key in taken if key in rows}
    if num:
        feed["label"] = np.arange(64) % num
    exact = run(path, **feed).astype(int)
    assert exact.std() > 10  # else nothing was compared
    for model in (half, rounded(half)):
        steps = np.abs(run(model, **feed) - exact)
        print(f"{name}: {steps.max()}/255 at most, {steps.mean():.3f}/255 on average")
        assert steps.max() <= 16
        assert 0 < steps.mean() < 0.15  # the same bits would mean that nothing was converted


def test_a_weight_that_is_shared_with_what_takes_float32_alone(tmp_path: Path) -> None:
    """A Resize's scales are float32 whatever it resizes, and may be a factor elsewhere."""
    nodes = [
        helper.make_node("Gemm", ["z", "w"], ["a"]),
        helper.make_node("Reshape", ["a", "shape"], ["b"]),
        helper.make_node("Mul", ["b", "scales"], ["c"]),
        helper.make_node("Resize", ["c", "", "scales"], ["d"], mode="nearest"),
        helper.make_node("Resize", ["d", "", "scales"], ["image"], mode="nearest"),
    ]
    path = write(
        tmp_path / "model.onnx",
        nodes,
        info("image", ["n", 1, 4, 16]),
        w=np.eye(4, dtype=np.float32),
        shape=np.array([-1, 1, 1, 4]),
        scales=np.array([1, 1, 2, 2], np.float32),
    )
    half = half_graph(path)
    given = onnx.shape_inference.infer_shapes(onnx.load_from_string(half), strict_mode=True)
    kinds = {value.name: value.type.tensor_type.elem_type for value in given.graph.value_info}
    assert kinds["d|float16"] == TensorProto.FLOAT16
    z = np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32)
    expected, found = run(path, z=z), run(rounded(half), z=z)
    assert found.dtype == np.float32
    assert 0 < np.abs(found - expected).max() < 0.01


def test_sums_of_squares_do_not_overflow(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Gemm", ["z", "w"], ["style"]),
        helper.make_node("Pow", ["style", "two"], ["squares"]),
        helper.make_node("MatMul", ["squares", "w"], ["sums"]),
        helper.make_node("Sqrt", ["sums"], ["roots"]),
        helper.make_node("Div", ["style", "roots"], ["image"]),
    ]
    weights = {"w": np.eye(4, dtype=np.float32), "two": np.float32(2)}
    path = write(tmp_path / "model.onnx", nodes, info("image", ["n", 4]), **weights)
    z = np.array([[400, -400, 1e-3, 3]], np.float32)  # squares from 1e-6 to 160,000
    assert np.allclose(run(rounded(half_graph(path)), z=z), np.sign(z), rtol=1e-3)


@pytest.mark.parametrize("fault", ["no product", "control flow", "no types", "no model"])
def test_what_can_not_be_converted_is_refused_with_a_remedy(fault: str, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    product, relu = (
        helper.make_node("Gemm", ["z", "w"], ["a"]),
        helper.make_node("Relu", ["a"], ["image"]),
    )
    inner = helper.make_graph(
        [helper.make_node("Relu", ["a"], ["y"])], "g", [], [info("y", ["n", 4])]
    )
    choice = helper.make_node("If", ["yes"], ["image"], then_branch=inner, else_branch=inner)
    weights = {"w": np.eye(4, dtype=np.float32), "yes": np.array(True)}
    nodes = {
        "no product": [helper.make_node("Relu", ["z"], ["image"])],
        "control flow": [product, choice],
    }.get(fault, [product, relu])
    write(path, nodes, info("image", ["n", 4]), **weights)
    if fault == "no types":
        model = onnx.load(path)
        del model.graph.value_info[:]
        onnx.save(model, path)
    elif fault == "no model":
        path.write_bytes(b"\x3a\x7f")
    words = {
        "no product": "it has no layer that float16 makes faster; use --cuda-math fp32 or tf32",
        "control flow": "its operator If holds graphs of its own; use --cuda-math fp32 or tf32",
        "no types": "the type of its value 'a' isn't written in the graph; use --cuda-math",
        "no model": "is not an ONNX model",
    }[fault]
    with pytest.raises(BundleError, match=words):
        half_graph(path)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeCuda:
    made = FakeCuda()
    made.install(monkeypatch)
    return made


@pytest.fixture(scope="session")
def typed(make_bundle: Callable[..., Bundle]) -> Bundle:
    """A bundle whose graph says the types of its values, as an exported one does."""
    bundle = make_bundle(num_classes=3)
    model = onnx.shape_inference.infer_shapes(onnx.load(bundle.model_path), strict_mode=True)
    return changed(bundle, {"model.onnx": model.SerializeToString()})


def changed(bundle: Bundle, files: dict[str, bytes]) -> Bundle:
    kept = {name: (bundle.path / name).read_bytes() for name in bundle.manifest.files}
    manifest = msgspec.structs.replace(bundle.manifest, files={})
    folder = Path(tempfile.mkdtemp(dir=bundle.path.parent)) / "bundle"
    return write_bundle(folder, manifest, {**kept, **files})


def test_an_engine_in_float16_opens_the_converted_graph(typed: Bundle, fake: FakeCuda) -> None:
    opened: list[Any] = []
    real = ort.InferenceSession

    def on_open(options: dict[str, str]) -> None:
        assert options["use_tf32"] == "0"

    fake.on_open = on_open
    fake.on_model = opened.append
    owner = DeviceOwner(lambda reason: None)
    engine = Engine(typed, HALF, max_rows=4, owner=owner)
    assert [type(model) for model in opened] == [bytes]
    assert "Cast" in operators(opened[0])
    z, label = latents(range(9), typed.manifest.z_dim), np.arange(9) % 3
    exact = real(typed.model_path, providers=["CPUExecutionProvider"])
    (expected,) = exact.run(None, {"z": z, "label": label})
    steps = np.abs(engine(z, label).astype(int) - expected)
    assert steps.max() <= 1
    assert engine.replays


@pytest.mark.parametrize(("step", "pixels", "fits"), [(16, 1, True), (17, 1, False), (1, 9, False)])
def test_golden_images_have_a_tolerance_of_their_own_in_float16(
    step: int, pixels: int, fits: bool, typed: Bundle, fake: FakeCuda
) -> None:
    """Of one pixel, and of all on average."""
    golden = typed.golden
    images = golden.images.copy()
    flat = images.reshape(-1)
    where = slice(None) if pixels > 1 else [int(np.argmin(flat))]
    flat[where] = np.where(flat[where] < 128, flat[where] + step, flat[where] - step)
    made = Golden(seeds=golden.seeds, labels=golden.labels, images=images)
    bundle = changed(typed, {"golden.npz": made.to_bytes()})
    if fits:
        Engine(bundle, HALF, max_rows=1)
        with pytest.raises(BundleError, match="allowed are 2/255 and 2/255; the model does not"):
            Engine(bundle, Compute(device="cuda:0"), max_rows=1)
    else:
        words = "allowed are 16/255 and 0.5/255; .* use --cuda-math fp32 or tf32"
        with pytest.raises(BundleError, match=words):
            Engine(bundle, HALF, max_rows=1)
