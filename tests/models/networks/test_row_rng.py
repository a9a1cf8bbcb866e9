"""What parts of a batch draw is what the whole draws in their rows."""

import pytest
import torch
from torch import Tensor

from models.networks.row_rng import Rows, only, per_row

CPU = torch.device("cpu")


def drawn(num: int) -> Tensor:
    torch.manual_seed(3)
    return per_row(lambda size: torch.randn(size, 2), num)


@pytest.mark.parametrize("repeats", [1, 2])  # real and generated images one after the other
def test_each_part_draws_its_rows_of_the_whole(repeats: int) -> None:
    whole = drawn(12 * repeats).view(repeats, 12, 2)
    for part in range(3):
        rows = Rows.of_part(part, 3, 12, CPU)
        with only(rows):
            own = drawn(4 * repeats).view(repeats, 4, 2)
        for i in range(repeats):
            assert torch.equal(own[i], rows.of(whole[i]))
            assert torch.equal(own[i], whole[i, rows.index])


def test_parts_make_up_the_batch() -> None:
    numbers = torch.arange(12)
    parts = [Rows.of_part(part, 4, 12, CPU).of(numbers) for part in range(4)]
    assert torch.equal(torch.cat(parts).sort().values, numbers)


def test_whose_rows_they_are_ends_with_the_block() -> None:
    before = drawn(4)
    with only(Rows.of_part(1, 2, 8, CPU)):
        with only(None):
            assert torch.equal(drawn(4), before)
        assert not torch.equal(drawn(4), before)
    assert torch.equal(drawn(4), before)
