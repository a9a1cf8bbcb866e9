"""Copies of a training's state that play on by themselves; what they are copied from stays."""

import copy
from dataclasses import replace

import torch

from training.config.training import TrainingConfig
from training.engine.state import State
from training.optim.constraints import CONSTRAINTS


def copied(
    config: TrainingConfig, state: State, device: torch.device, dtype: torch.dtype = torch.float32
) -> State:
    """Returns a copy of a training's state.

    Players, moments and all else that a round remembers are copied. The average of G begins anew,
    at G's own weights; the watchdog's figures and the looks are left out.

    Args:
        config: that the copy will be played with; optimisers and update are the state's.
        state: what is copied.
        device: of the state.
        dtype: that the copy computes in.
    """
    G, D = (copy.deepcopy(each.network).to(dtype) for each in (state.G, state.D))
    found = State.of(_without_installed(config), G, D, device)
    for own, other in ((found.G, state.G), (found.D, state.D)):
        own.load_state_dict(copy.deepcopy(other.state_dict()))  # torch shares tensors of one type
    found.cur_nimg = state.cur_nimg
    # Of the copy's own type, or means that are computed in it could not be mixed in.
    found.augment_p = state.augment_p.to(dtype, copy=True)
    found.augment_signs = state.augment_signs.to(dtype, copy=True)
    found.path_length = state.path_length.to(dtype, copy=True)
    found.slow = [each.detach().to(dtype, copy=True) for each in state.slow]
    return found


def _without_installed(config: TrainingConfig) -> TrainingConfig:
    """What acted on a new D once, normalised or frozen layers, is in the copied D already."""
    kept = tuple(
        term
        for term in config.regularizers
        if term.name not in CONSTRAINTS or CONSTRAINTS[term.name].install is None
    )
    return replace(config, regularizers=kept, frozen_D=0)
