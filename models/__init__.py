"""Models: latent vectors, exported bundles, repositories of versions, and networks.

This package imports neither training nor serving.
"""

import sys

if sys.platform == "win32":
    raise ImportError(
        "Saddlepoint runs on Linux: files are locked and replaced as POSIX systems "
        "do; on Windows use WSL 2"
    )
