"""What `verify` looks at beyond files and golden images: an encoder, where there is one."""

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from models.bundle import ENCODER
from models.bundle.verification import batch_sizes, check_batches, verify
from models.errors import BundleError

PIXELS, Z_DIM = 64, 6


def encoder(
    *,
    z_dim: int = Z_DIM,
    given: str = "image",
    made: str = "z",
    conditional: bool = False,
    domain: str = "",
) -> ModelProto:
    """A linear encoder by hand: uint8 [N, 8, 8, 1] to float32 [N, z_dim]."""
    info = helper.make_tensor_value_info
    weight = np.ones((PIXELS, z_dim), np.float32)
    inputs = [info(given, TensorProto.UINT8, ["n", 8, 8, 1])]
    nodes = [
        helper.make_node("Cast", [given], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Reshape", ["float", "shape"], ["flat"]),
        helper.make_node("MatMul", ["flat", "weight"], ["linear"]),
    ]
    constants = {"shape": np.array([-1, PIXELS], np.int64), "weight": weight}
    last = "linear"
    if conditional:
        inputs.append(info("label", TensorProto.INT64, ["n"]))
        constants["table"] = np.zeros((3, z_dim), np.float32)
        nodes.append(helper.make_node("Gather", ["table", "label"], ["embedded"]))
        nodes.append(helper.make_node("Add", ["linear", "embedded"], ["sum"]))
        last = "sum"
    nodes.append(helper.make_node("Identity", [last], [made], domain=domain))
    graph = helper.make_graph(
        nodes,
        "encoder",
        inputs,
        [info(made, TensorProto.FLOAT, ["n", z_dim])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    opsets = [helper.make_opsetid("", 18)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9)


@pytest.mark.parametrize("conditional", [False, True])
def test_a_bundle_with_an_encoder(spoil, conditional):
    copy = spoil(conditional=conditional)
    copy.write(ENCODER, encoder(conditional=conditional).SerializeToString())
    assert verify(copy.open()) == 0


def test_a_bundle_without_one(grey):
    assert verify(grey) == 0


def test_an_encoder_may_leave_the_label_aside(spoil):
    copy = spoil(conditional=True)
    copy.write(ENCODER, encoder().SerializeToString())
    assert verify(copy.open()) == 0


def moved() -> bytes:
    """Its weights are in another file."""
    model = encoder()
    (weight,) = [entry for entry in model.graph.initializer if entry.name == "weight"]
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    weight.external_data.add(key="location", value="/etc/passwd")
    return model.SerializeToString()


SPOILED = {
    "garbage": (b"no model", "is not an ONNX model"),
    "nothing": (b"", "is not an ONNX model"),
    "no graph": (b"\x08\x07" * 50, "export the model again"),
    "weights elsewhere": (moved(), "weights are in another file"),
    "a foreign operator": (
        encoder(domain="com.microsoft").SerializeToString(),
        "operator Identity is of the domain 'com.microsoft'",
    ),
    "another input": (
        encoder(given="x").SerializeToString(),
        "takes x and gives z; an encoder takes image",
    ),
    "another output": (
        encoder(made="w").SerializeToString(),
        "takes image and gives w; an encoder takes image",
    ),
    "another latent": (
        encoder(z_dim=5).SerializeToString(),
        r"gave float32 \[2, 5\], must give float32 \[2, 6\]",
    ),
    "a label that no image has": (
        encoder(conditional=True).SerializeToString(),
        "can't encode the golden images",
    ),
}


@pytest.mark.parametrize("change", SPOILED)
def test_an_encoder_that_is_none(spoil, change):
    data, message = SPOILED[change]
    copy = spoil()
    copy.write(ENCODER, data)
    with pytest.raises(BundleError, match=rf"(?s)encoder\.onnx: .*{message}"):
        verify(copy.open())


def test_batches_to_try_are_the_buckets_and_odd_ones():
    assert batch_sizes(64) == (1, 2, 3, 4, 7, 8, 13, 16, 32, 64)
    assert batch_sizes(100) == (1, 2, 3, 4, 7, 8, 13, 16, 32, 64, 100)
    assert batch_sizes(2) == (1, 2)
    assert batch_sizes(1) == (1,)


def images_of(z):
    """Rows of a model that does as it should."""
    grey = np.clip(z[:, :1] * 40 + 128, 2, 255).astype(np.uint8)
    return np.repeat(grey, 64, 1).reshape(-1, 8, 8, 1)


def fails(z):
    raise RuntimeError("no kernel")


FAULTY = {
    "can't be run": (fails, "can't make a batch of 7: no kernel"),
    "too few images": (lambda z: images_of(z)[:-1], r"a batch of 7 gave .*\[6, 8, 8, 1\]"),
    "another shape": (lambda z: images_of(z)[..., 0], r"a batch of 7 gave .*\[7, 8, 8\]"),
    "another type": (lambda z: images_of(z).astype(int), "a batch of 7 gave int64"),
    "other images": (lambda z: images_of(z) // 2, "of 7 and of 64.*mixes the images"),
}


@pytest.mark.parametrize("kind", FAULTY)
def test_a_model_that_fails_at_one_batch_size(grey, kind):
    faulty, message = FAULTY[kind]

    def generate(z, label=None, psi=None):
        return (faulty if len(z) == 7 else images_of)(z)

    check_batches(grey, lambda z, label=None, psi=None: images_of(z), batch_sizes(64))
    check_batches(grey, generate, (1, 64))
    with pytest.raises(BundleError, match=rf"(?s)model\.onnx: .*{message}"):
        check_batches(grey, generate, batch_sizes(64))


def test_rounding_is_no_mixing(grey):
    def generate(z, label=None, psi=None):
        return images_of(z) - np.uint8(len(z) == 7)

    check_batches(grey, generate, batch_sizes(64))
