"""Refuses systems on which nothing would run; pyproject.toml has all the rest.

pip runs it before it installs what Saddlepoint depends on.
"""

import sys

from setuptools import setup

if sys.platform == "win32":
    raise SystemExit(
        "Saddlepoint runs on Linux: files are locked and replaced as POSIX systems "
        "do; on Windows install it in WSL 2"
    )

setup()
