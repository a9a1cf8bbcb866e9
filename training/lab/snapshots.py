"""A state as plain tensors, copied, and put back: for the way back and for other processes."""

from collections.abc import Mapping
from typing import Any

import torch

from training.engine.state import PlayerState, State

Content = dict[str, Any]
"""Nested dicts and lists of tensors, and the names of the optimisers' methods."""


def content_of(state: State) -> Content:
    """Copies all that a round changes."""
    return {
        "G": _copied(state.G.network.state_dict()),
        "D": _copied(state.D.network.state_dict()),
        "G_ema": _copied(state.G_ema.state_dict()),
        "methods": (state.G.optim.method, state.D.optim.method),
        "optim_G": _copied(state.G.state_dict()),
        "optim_D": _copied(state.D.state_dict()),
        "slow": _copied(state.slow),
        "cur_nimg": state.cur_nimg,
    }


def put_back(state: State, content: Content) -> None:
    """Writes a copy into a state of the same networks; moments only where the method is the same.

    Where an optimiser of another method made the copy, this one's begin at 0.
    """
    state.G.network.load_state_dict(content["G"])
    state.D.network.load_state_dict(content["D"])
    state.G_ema.load_state_dict(content["G_ema"])
    for player, name, method in zip(
        (state.G, state.D), ("optim_G", "optim_D"), content["methods"], strict=True
    ):
        remember(player, content[name], method)
    if state.slow:
        slow = content["slow"] or [each.detach() for each in state.parameters()]
        torch._foreach_copy_(state.slow, slow)
    state.cur_nimg = content["cur_nimg"]


def remember(player: PlayerState, content: Content, method: str) -> None:
    """Gives a player the memory of an optimiser of that method, if its own has the same."""
    if method == player.optim.method:
        # torch takes some tensors over as they are, and the copy must stay what it is.
        player.load_state_dict(_copied(content))
    else:
        player.optimizer.state.clear()


def num_bytes(content: Any) -> int:
    """Bytes of all its tensors."""
    if isinstance(content, torch.Tensor):
        return content.nbytes
    if isinstance(content, Mapping):
        return sum(map(num_bytes, content.values()))
    return sum(map(num_bytes, content)) if isinstance(content, (list, tuple)) else 0


def _copied(value: Any) -> Any:
    """The same nest with copies of its tensors; copy.deepcopy takes ten times as long."""
    if isinstance(value, torch.Tensor):
        return value.detach().clone()
    if isinstance(value, Mapping):
        return {name: _copied(each) for name, each in value.items()}
    return [_copied(each) for each in value] if isinstance(value, list) else value
