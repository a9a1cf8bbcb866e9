"""The frames between processes survive any cut of the stream."""

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from serving.inference.frames import (
    Announce,
    Beat,
    Candidacy,
    Failed,
    FrameProtocol,
    Loaded,
    Made,
    Message,
    Parked,
    Refreshed,
    Run,
    pack,
    run_arrays,
)


class Received:
    """A protocol fed by hand, and what came out of it."""

    def __init__(self) -> None:
        self.frames: list[tuple[Message, bytes]] = []
        self.protocol = FrameProtocol(
            lambda _, message, body: self.frames.append((message, bytes(body))),
            lambda _: None,
            lambda _: None,
        )

    def feed(self, data: bytes) -> None:
        """As an event loop would: as much at a time as the protocol's buffer takes."""
        while data:
            buffer = self.protocol.get_buffer(-1)
            taken = data[: len(buffer)]
            buffer[: len(taken)] = taken
            self.protocol.buffer_updated(len(taken))
            data = data[len(taken) :]


loaded = st.builds(Loaded, st.text(), st.integers(1, 9), st.text(), st.binary())
messages = st.one_of(
    st.builds(
        Announce,
        st.lists(loaded),
        st.lists(
            st.builds(
                Candidacy,
                st.text(),
                st.none() | st.integers(1, 9),
                st.floats(0, 100),
                st.none() | loaded,
                st.text(),
            ),
            max_size=2,
        ),
        st.just("cpu"),
        st.integers(1, 8),
        st.dictionaries(st.text(), st.text(), max_size=2),
        st.booleans(),
    ),
    st.builds(Parked, st.integers(0, 2**31)),
    st.builds(Refreshed, st.integers(0, 2**31), st.text()),
    st.just(Beat()),
    st.builds(Failed, st.integers(0, 2**31), st.text()),
    st.builds(
        Made,
        st.integers(0, 2**31),
        st.tuples(*[st.integers(1, 4)] * 4),
        st.floats(allow_nan=False),
    ),
)


@given(
    st.lists(st.tuples(messages, st.binary(max_size=600_000)), max_size=5),
    st.lists(st.integers(1, 400_000), max_size=20),
)
def test_frames_survive_any_cut(sent: list[tuple[Message, bytes]], cuts: list[int]) -> None:
    stream = b"".join(
        b"".join(bytes(part) for part in pack(message, [np.frombuffer(body, np.uint8)]))
        for message, body in sent
    )
    received = Received()
    for cut in cuts:
        received.feed(stream[:cut])
        stream = stream[cut:]
    received.feed(stream)
    assert received.frames == sent


@given(st.integers(1, 70), st.integers(1, 40), st.booleans(), st.booleans(), st.data())
def test_a_run_carries_its_arrays_aligned(
    num_rows: int, z_dim: int, has_label: bool, has_psi: bool, data: Any
) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    z = rng.standard_normal((num_rows, z_dim)).astype(np.float32)
    label = rng.integers(0, 9, num_rows) if has_label else None
    psi = rng.random(num_rows).astype(np.float32) if has_psi else None
    run = Run(1, data.draw(st.text(max_size=9)), 3, "d", num_rows, z_dim, has_label, has_psi)
    received: list[Any] = []
    protocol = FrameProtocol(
        lambda _, message, body: received.append(run_arrays(message, body)),  # type: ignore[arg-type]
        lambda _: None,
        lambda _: None,
    )
    frame = b"".join(
        bytes(part) for part in pack(run, [a for a in (label, z, psi) if a is not None])
    )
    protocol.get_buffer(-1)[: len(frame)] = frame
    protocol.buffer_updated(len(frame))
    (arrays,) = received
    for found, expected in zip(arrays, (z, label, psi), strict=True):
        assert (found is None) == (expected is None)
        if expected is not None:
            assert found.dtype == expected.dtype
            assert (found == expected).all()
            assert found.flags.aligned
