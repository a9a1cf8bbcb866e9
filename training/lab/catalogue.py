"""What can be chosen on the page, read from the registries: a new entry is there by itself."""

from dataclasses import fields
from typing import Any, get_args, get_type_hints

from models.networks import Plane
from training.errors import ConfigError
from training.game.objectives import OBJECTIVES
from training.game.regularizers import REGULARIZERS, Term
from training.game.updates import UPDATES
from training.lab.clouds import CLOUDS, MAX_DRAWN
from training.lab.parameters import NAMES, Parameters
from training.optim.optimizers import METHODS

_LABELS = {
    "data": "Points",
    "points": "Drawn points",
    "objective": "Objective",
    "regularizers": "Penalties, constraints, noise",
    "update": "Update rule",
    "extrapolation": "Extrapolation",
    "optim_G.method": "Optimiser of G",
    "optim_G.lr": "Rate of G",
    "optim_G.beta1": "Momentum of G",
    "optim_G.beta2": "Second beta of G",
    "optim_D.method": "Optimiser of D",
    "optim_D.lr": "Rate of D",
    "optim_D.beta1": "Momentum of D",
    "optim_D.beta2": "Second beta of D",
    "steps_D": "Steps of D a round",
    "steps_G": "Steps of G a round",
    "unrolled_steps": "Unrolled steps",
    "unrolled_lr": "Rate of unrolled steps",
    "lookahead_steps": "Lookahead, rounds",
    "lazy_steps": "Lazy penalties step alone",
    "batch_size": "Batch",
    "packing": "Packing",
    "average": "Average of G",
    "ema_kimg": "Half-life, kimg",
    "network.z_dim": "Latent, numbers",
    "network.width_G": "Width of G",
    "network.width_D": "Width of D",
    "network.depth_G": "Layers of G",
    "network.depth_D": "Layers of D",
    "network.activation": "Activation",
    "network.init": "First weights",
    "seed": "Seed",
}
_GROUPS = {
    "Data": ("data", "seed"),
    "Loss": ("objective", "regularizers", "lazy_steps", "packing"),
    "Moves": (
        *("update", "extrapolation", "steps_D", "steps_G"),
        *("unrolled_steps", "unrolled_lr", "lookahead_steps"),
    ),
    "Optimisers": (
        *("optim_G.method", "optim_G.lr", "optim_G.beta1", "optim_G.beta2"),
        *("optim_D.method", "optim_D.lr", "optim_D.beta1", "optim_D.beta2"),
        "batch_size",
    ),
    "Networks": (
        *("network.width_G", "network.width_D", "network.depth_G", "network.depth_D"),
        *("network.activation", "network.init", "network.z_dim", "average", "ema_kimg"),
    ),
}


def catalogue() -> dict[str, Any]:
    """The fields of the page in their groups, and what each may be. JSON types."""
    choices = {
        "data": list(CLOUDS),
        "objective": list(OBJECTIVES),
        "update": list(UPDATES),
        "optim_G.method": list(METHODS),
        "optim_D.method": list(METHODS),
        "average": ["ema", "uniform"],
        "network.activation": _literals("activation"),
        "network.init": _literals("init"),
    }
    texts = Parameters().texts(whole=True)
    return {
        "groups": {name: list(members) for name, members in _GROUPS.items()},
        "fields": {
            name: {
                "label": _LABELS[name],
                "default": texts[name],
                "kind": type(each.default).__name__,
                "choices": choices.get(name),
                "low": each.metadata["low"] if each.metadata["low"] > -1e300 else None,
                "high": each.metadata["high"] if each.metadata["high"] < 1e300 else None,
            }
            for name, each in NAMES.items()
        },
        "papers": {
            **{name: entry.paper for name, entry in OBJECTIVES.items()},
            **{name: entry.paper for name, entry in UPDATES.items()},
            **{name: entry.paper for name, entry in METHODS.items()},
        },
        "regularizers": _regularizers(),
        "usedWith": {
            "unrolled_lr": {"name": "unrolled_steps", "not": ["0"]},
            "extrapolation": {
                "name": "update",
                "in": [name for name, update in UPDATES.items() if update.looks_ahead],
            },
            "ema_kimg": {"name": "average", "in": ["ema"]},
        },
        "signed": [name for name, objective in OBJECTIVES.items() if objective.signed],
        "maxDrawn": MAX_DRAWN,
    }


def _regularizers() -> list[dict[str, str]]:
    """Those that a game of points can have, whatever its objective."""
    found = []
    for name, entry in REGULARIZERS.items():
        if any(map(_allowed, (name,) * len(OBJECTIVES), OBJECTIVES)):
            found.append({"name": name, "paper": str(getattr(entry, "paper", ""))})
    return found


def _allowed(name: str, objective: str) -> bool:
    try:
        Parameters(objective=objective, regularizers=(Term(name=name, weight=0.1),))
    except ConfigError:
        return False
    return True


def _literals(option: str) -> list[str]:
    """The values of an option of the family, in the order of its declaration."""
    assert any(each.name == option for each in fields(Plane))
    return list(get_args(get_type_hints(Plane)[option]))
