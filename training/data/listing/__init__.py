"""People's own images: which a folder or an archive holds, in which split, and of which class.

`find` lists them. Nothing is extracted or decoded, and nothing that a training of this project
wrote is listed. What a stranger's archive can cost is bounded by its own size.
"""

from training.data.listing.find import Found, find
from training.data.listing.member import Listing, Member

__all__ = ["Found", "Listing", "Member", "find"]
