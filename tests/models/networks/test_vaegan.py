import pytest
import torch

from models.networks import Encoding
from tests.models.networks.tiny import inputs, players


@pytest.mark.parametrize("num_classes", [0, 3])
def test_the_reconstruction_is_of_a_draw_from_the_posterior(num_classes):
    G, _ = players("vaegan", num_classes=num_classes)
    G.eval()
    z, img, label = inputs("vaegan", num_classes=num_classes)
    torch.manual_seed(5)
    reconstruction, mu, logvar = G(None, label, img=img)
    assert mu.shape == logvar.shape == z.shape
    found = G.encoder(img, label)
    assert torch.equal(found[0], mu)
    assert torch.equal(found[1], logvar)
    torch.manual_seed(5)
    eps = torch.randn(z.shape)
    assert torch.allclose(reconstruction, G(mu + (logvar / 2).exp() * eps, label), atol=1e-6)
    # The latent that is given beside an image is not looked at.
    torch.manual_seed(5)
    assert torch.equal(G(z, label, img=img)[0], reconstruction)


@pytest.mark.parametrize("num_classes", [0, 3])
def test_a_reconstruction_trains_encoder_and_generator(num_classes):
    G, _ = players("vaegan", num_classes=num_classes)
    _, img, label = inputs("vaegan", num_classes=num_classes)
    reconstruction, mu, logvar = G.eval()(None, label, img=img)
    loss = (reconstruction - img).square().sum() + mu.square().sum() + logvar.exp().sum()
    loss.backward()
    for name, parameter in G.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().max() > 0, name


def test_an_encoder_looks_at_image_and_label():
    G, _ = players("vaegan", num_classes=2)
    assert isinstance(G, Encoding)
    _, img, _ = inputs("vaegan")
    zero, one = (torch.full((6,), label) for label in (0, 1))
    encoder = G.encoder.eval()
    assert not torch.allclose(encoder(img, zero)[0], encoder(img, one)[0], atol=1e-3)
    assert not torch.allclose(encoder(img, zero)[0], encoder(-img, zero)[0], atol=1e-3)


def test_a_plain_generator_has_no_encoder():
    G, _ = players("dcgan")
    assert not isinstance(G, Encoding)
