import torch

from models.networks.row_rng import Rows, only
from training.randomness import draw_rows, generator, key, normal, reseed

GOLDEN = (13003956522829462082, 6232980317423138388)
CPU = torch.device("cpu")


def test_keys_are_those_of_every_release() -> None:
    """A resumed run of an older release must draw what it would have drawn."""
    assert key(0, "z", 0) == GOLDEN[0]
    assert key(7, "layers", 128_000) == GOLDEN[1]


def test_no_two_steps_share_the_32_bits_that_the_cpu_uses() -> None:
    low = {key(3, "z", nimg) & 0xFFFFFFFF for nimg in range(0, 64 * 20_000, 64)}
    assert len(low) == 20_000


def test_seeds_and_purposes_draw_unlike() -> None:
    keys = {key(seed, purpose, 64) for seed in range(50) for purpose in ("z", "layers", "init")}
    assert len(keys) == 150
    assert all(0 <= value < 2**64 for value in keys)


def test_normal_depends_on_the_key_alone() -> None:
    draws = torch.Generator()
    first = normal((4, 3), draws, 5)
    normal((9, 9), draws, 6)
    assert torch.equal(normal((4, 3), draws, 5), first)
    assert not torch.equal(normal((4, 3), draws, 6), first)


def test_reseed_rules_the_global_generator() -> None:
    reseed(2**64 - 1, CPU)
    first = torch.rand(5)
    torch.rand(100)
    reseed(2**64 - 1, CPU)
    assert torch.equal(torch.rand(5), first)


def test_rows_draw_what_they_draw_in_the_whole_batch() -> None:
    img = torch.zeros(8, 1, 3, 3, dtype=torch.float64)
    whole = draw_rows(torch.randn, img, (1, 3), generator(CPU, 11))
    assert (whole.shape, whole.dtype) == ((8, 1, 3), img.dtype)
    for part in range(4):
        with only(Rows.of_part(part, 4, 8, CPU)):
            rows = draw_rows(torch.randn, img[part::4], (1, 3), generator(CPU, 11))
        assert torch.equal(rows, whole[part::4])
    assert torch.rand(3, generator=generator(CPU, 2**64 - 1)).isfinite().all()
