"""A version on trial (canary): it serves a share of the seeds, and CURRENT serves the rest.

A hash of the seed decides, which must never change: while the share stays, a seed is served by the
same version in every process and on every replica. A larger share moves seeds from CURRENT to the
candidate and none back.
"""

import re
from dataclasses import dataclass
from functools import cached_property

from models.errors import RepositoryError

_FORM = re.compile(r"([1-9][0-9]{0,8}) ([0-9]{1,3}(?:\.[0-9]{1,6})?)%")
_WORD = 2**64 - 1


@dataclass(frozen=True)
class Candidate:
    """The content of the file CANDIDATE: a version, and its share of the seeds in per cent.

    The share is 0.000001 to 100, rounded to the six decimals that the file holds.
    """

    version: int
    share_percent: float

    def __post_init__(self) -> None:
        """Raises RepositoryError where the share is out of range."""
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
        """Parses the form that `str` gives.

        Raises:
            RepositoryError: the text has another form.
        """
        found = _FORM.fullmatch(text.strip())
        if found is None:
            raise RepositoryError(f"holds {text.strip()[:60]!r}, must look like '2 10%'")
        return cls(int(found[1]), float(found[2]))

    def takes(self, seed: int) -> bool:
        """Returns True where this version serves the seed, not CURRENT."""
        return position(seed) < self._bound

    @cached_property
    def _bound(self) -> int:
        return round(self.share_percent / 100 * 2**64)


def position(seed: int) -> int:
    """Hashes a seed to 0 .. 2**64 - 1 by splitmix64's finalizer (Steele et al. 2014).

    seed: uint64; of other integers the lowest 64 bits count.
    """
    x = (seed + 0x9E3779B97F4A7C15) & _WORD
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & _WORD
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & _WORD
    return x ^ (x >> 31)


def _decimal(value: float) -> str:
    return f"{value:.6f}".rstrip("0").rstrip(".")
