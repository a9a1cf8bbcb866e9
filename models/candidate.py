"""A version on trial: a share of the seeds is made by it, the rest by CURRENT.

Which seeds, is decided by a hash of the seed alone, frozen like the latents: the same seed is made
by the same version for as long as the share stays, in every process and on every replica, and a
larger share only moves seeds from CURRENT to the candidate, none back.
"""

import re
from dataclasses import dataclass
from functools import cached_property

from models.errors import RepositoryError

_FORM = re.compile(r"([1-9][0-9]{0,8}) ([0-9]{1,3}(?:\.[0-9]{1,6})?)%")
_WORD = 2**64 - 1


@dataclass(frozen=True)
class Candidate:
    """What CANDIDATE says: a version, and its share of the seeds in per cent.

    The share is 0.000001 to 100, rounded to six decimals: what is written is what is meant.
    """

    version: int
    share_percent: float

    def __post_init__(self) -> None:
        """Raises RepositoryError where the share is none."""
        share = float(_decimal(self.share_percent))
        if not (share > 0 and self.share_percent <= 100):  # so that nan is refused
            raise RepositoryError(
                f"share is {self.share_percent:g}, allowed is 0.000001 to 100 (per cent)"
            )
        object.__setattr__(self, "share_percent", share)

    def __str__(self) -> str:
        return f"{self.version} {_decimal(self.share_percent)}%"

    @classmethod
    def parse(cls, text: str) -> "Candidate":
        """Reads what `str` gives.

        Raises:
            RepositoryError: it is something else.
        """
        found = _FORM.fullmatch(text.strip())
        if found is None:
            raise RepositoryError(f"holds {text.strip()[:60]!r}, must be as '2 10%'")
        return cls(int(found[1]), float(found[2]))

    def takes(self, seed: int) -> bool:
        """True where this version, not CURRENT, makes the seed's image."""
        return position(seed) < self._bound

    @cached_property
    def _bound(self) -> int:
        return round(self.share_percent / 100 * 2**64)


def position(seed: int) -> int:
    """Where a seed stands among all, 0 .. 2**64 - 1: splitmix64's finalizer (Steele et al. 2014).

    seed: uint64; of other integers the lowest 64 bits count.
    """
    x = (seed + 0x9E3779B97F4A7C15) & _WORD
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & _WORD
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & _WORD
    return x ^ (x >> 31)


def _decimal(value: float) -> str:
    return f"{value:.6f}".rstrip("0").rstrip(".")
