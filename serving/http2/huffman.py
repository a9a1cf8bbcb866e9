"""The Huffman code of HTTP/2's header fields (RFC 7541, appendix B).

The code is canonical: among symbols of one length, and from length to length, codes rise with the
symbol. So the lengths alone give it.
"""

import functools

_EOS = 256
_LENGTHS = bytes.fromhex(
    "0d171c1c1c1c1c1c1c181e1c1c1e1c1c1c1c1c1c1c1c1e1c1c1c1c1c1c1c1c1c"
    "060a0a0c0d06080b0a0a080b080606060505050606060606060607080f060c0a"
    "0d06070707070707070707070707070707070707070707070807080d130d0e06"
    "0f05060506050606060507070606060506070605050607070707070f0b0e0d1c"
    "1416141416161617161717171717181718181617181717171715161716171718"
    "1615141616171715171616181516171715151615171617171416161617161617"
    "1a1a1413161716191a1a1a1b1b1a181913151a1b1b1a1b1815151a1a1c1b1b1b"
    "14181415161515171616191918181a171a1b1a1a1b1b1b1b1b1c1b1b1b1b1b1a"
    "1e"
)
"""Bits of the code of each octet, and of the end of a string."""


@functools.cache
def _tree() -> list[list[int]]:
    """Nodes with their two children: another node, or ~symbol; the first node is the root."""
    children: list[list[int]] = [[0, 0]]
    code = last = 0
    for symbol in sorted(range(_EOS + 1), key=lambda symbol: (_LENGTHS[symbol], symbol)):
        length = _LENGTHS[symbol]
        code <<= length - last
        node = 0
        for shift in range(length - 1, 0, -1):
            bit = code >> shift & 1
            if not children[node][bit]:
                children.append([0, 0])
                children[node][bit] = len(children) - 1
            node = children[node][bit]
        children[node][code & 1] = ~symbol
        code, last = code + 1, length
    return children


@functools.cache
def _ends() -> frozenset[int]:
    """Nodes at which a string may end: padding begins the code of the end, which is all ones."""
    nodes = [0]
    for _ in range(7):
        nodes.append(_tree()[nodes[-1]][1])
    return frozenset(nodes)


@functools.cache  # at most one entry for each of 256 nodes and 256 octets
def _step(node: int, octet: int) -> tuple[int, bytes]:
    """The node after an octet, and what was decoded; node -1 after the code of the end."""
    children = _tree()
    found = bytearray()
    for shift in range(7, -1, -1):
        node = children[node][octet >> shift & 1]
        if node < 0:
            if ~node == _EOS:
                return -1, b""
            found.append(~node)
            node = 0
    return node, bytes(found)


def decode(data: bytes) -> bytes:
    """Decodes a string.

    Raises:
        ValueError: it holds the code of the end, or is padded with something else than ones.
    """
    node, parts = 0, []
    for octet in data:
        node, decoded = _step(node, octet)
        if node < 0:
            raise ValueError("a Huffman code holds the end of the string")
        parts.append(decoded)
    if node not in _ends():
        raise ValueError("a Huffman code is cut off")
    return b"".join(parts)
