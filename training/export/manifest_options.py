"""The options as a manifest has them, which strangers read."""

from pathlib import Path
from typing import Any

from training.data.file_names import printable


def public_options(options: dict[str, Any]) -> dict[str, Any]:
    """The options for a manifest: of each path on this machine only the last part."""
    data = dict(options["data"])
    if words := data.get("weights"):
        data["weights"] = [word if "=" in word else Path(word).name for word in words]
    if data.get("labels") not in (None, "auto", "none"):
        data["labels"] = printable(Path(data["labels"]).name)
    if data.get("path") is not None:
        data["path"] = printable(Path(data["path"]).name)
    return {**options, "data": data}
