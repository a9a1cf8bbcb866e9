"""The context of a request: who asked, for which model, and where its time went.

It is made when the request's head has come, filled in while the request is answered, and read by
the log, the metrics and the traces (`serving.observability.requests`).
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from serving.http.memory import Hold
from serving.keys.key import Key


@dataclass(eq=False, slots=True)
class Timing:
    """Where the time of a request's images went; points in time are by time.perf_counter."""

    entered: float = field(default_factory=time.perf_counter)
    """When its rows began to wait."""
    queue_s: float = 0.0
    """From then until the last of them was sent to a worker."""
    compute_s: float = 0.0
    """Time in the model, added up over all batches that its rows were part of."""
    encode_began: float = 0.0
    """When encoding began; 0 before the images have come."""
    encode_s: float = 0.0
    """Time from pixels to bytes."""


@dataclass(eq=False, slots=True)
class RequestContext:
    """A request, from its head to its response."""

    route: str
    """The path of its route, as documented; "other" if it has none."""
    method: str
    """GET, POST ..."""
    header: Callable[[bytes], bytes | None]
    """The value of a header by its lower-case name."""
    request_id: bytes
    """The client's own, or one that this process made."""
    started: float
    """By time.perf_counter."""
    makes_images: bool = False
    """Whether its route makes images."""
    key: Key | None = None
    """The API key that it came with."""
    model: tuple[str, int] | None = None
    """Name and version of the model that it last asked for images."""
    encoding: str = ""
    """Label of the encoding of these images, as in metrics."""
    timing: Timing | None = None
    """Timing of these images; None if they came from the cache, or none were asked for."""
    bulk: bool = False
    """Whether it lets other requests go first."""
    hold: Hold | None = None
    """The memory that it holds; None if nobody counts it."""
    num_rows: int = 0
    """Images that it asked for and that were admitted."""
    num_seeds: int | None = None
    """Seeds that it asked for, cached images too; None where it asked for none."""
    peer: str = ""
    """Who has connected: an address, or `unix`; a proxy, maybe."""
    target: bytes = b""
    """Path and query, as they came."""

    def name_request(self) -> str:
        """Returns its id as text."""
        return self.request_id.decode("ascii")
