import pytest
import torch

from models.networks.mlp import Dropout


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_dropout_zeroes_its_share_and_keeps_the_mean(dtype):
    torch.manual_seed(0)
    layer, num = Dropout(0.3), 100_000
    x = torch.ones(num, dtype=dtype, requires_grad=True)
    y = layer(x)
    y.sum().backward()
    assert y.dtype == dtype
    assert set(y.tolist()) == {0.0, float(torch.tensor(1 / 0.7).to(dtype))}
    assert (y == 0).float().mean().item() == pytest.approx(0.3, abs=4 * (0.21 / num) ** 0.5)
    assert torch.equal(x.grad, y)
    assert not torch.equal(layer(x), y)


def test_dropout_leaves_what_is_judged_alone():
    x = torch.randn(5)
    assert Dropout(0.3).eval()(x) is x
    assert Dropout(0.0)(x) is x
