"""The model card of a bundle, generated from its manifest."""

from collections.abc import Sequence

from models.bundle.manifest import Manifest, Metric
from training.finite_json import as_json


def model_card(
    manifest: Manifest, *, has_encoder: bool = False, sections: Sequence[str] = ()
) -> str:
    """The text of card.md: what the model makes, how to call it, its figures and its origin.

    has_encoder: True where the bundle has an encoder.onnx. sections: of other optional parts.
    """
    image = manifest.image
    classes = f" of {len(manifest.labels)} classes" if manifest.labels else ""
    whole = [
        f"# {manifest.name}",
        f"Makes {image.width}x{image.height} {image.colours} images{classes} from seeds. A seed "
        "gives the same image for ever.",
        "![samples](samples.png)",
        f"Tile i is seed i{', label i % ' + str(len(manifest.labels)) if manifest.labels else ''}.",
        "## How to call it",
        _call(manifest),
        *_classes(manifest),
        *(_encoder(manifest) if has_encoder else []),
        *sections,
        "## Figures",
        _figures(manifest),
        "## Where it comes from",
        f"- data: {manifest.dataset.name}, {manifest.dataset.num_images} images, "
        f"sha256 {manifest.dataset.fingerprint}\n"
        f"- recipe: {manifest.recipe}\n"
        f"- source commit: {manifest.source_commit or 'unknown'}\n"
        f"- exported: {manifest.created}\n"
        f"- options: `{as_json(manifest.options, indent=None, sort_keys=True)}`",
    ]
    return "\n\n".join(whole) + "\n"


def _call(manifest: Manifest) -> str:
    labels = {"labels": [len(manifest.labels) - 1]} if manifest.labels else {}
    body = {"model": manifest.name, "seeds": [42], **labels, "format": "png"}
    return (
        "```sh\ncurl -s http://localhost:8000/v1/generate -H 'Content-Type: application/json' \\\n"
        f"  -d '{as_json(body, indent=None)}' -o image.png\n```"
    )


def _classes(manifest: Manifest) -> list[str]:
    if not manifest.labels:
        return []
    lines = [f"| {label} | {_cell(name)} |" for label, name in enumerate(manifest.labels)]
    return ["\n".join(["| label | class |", "|---|---|", *lines])]


def _encoder(manifest: Manifest) -> list[str]:
    label = ", label: int64 [N]" if manifest.labels else ""
    return [
        "## From images to latents",
        f"`encoder.onnx` takes image: uint8 [N, {manifest.image.height}, {manifest.image.width}, "
        f"{manifest.image.channels}]{label} and gives z: float32 [N, {manifest.z_dim}], of which "
        'this model makes such images again: send it as `"latents"` instead of `"seeds"`.',
    ]


def _figures(manifest: Manifest) -> str:
    parity = Metric(
        name="parity with torch (max difference, 8-bit steps)",
        value=manifest.parity.max_abs_diff,
        protocol={"seeds": manifest.parity.num_seeds},
    )
    lines = [
        f"| {_cell(metric.name)} | {metric.value:.4g} | {_cell(_protocol(metric))} |"
        for metric in (*manifest.metrics, parity)
    ]
    return "\n".join(["| figure | value | measured how |", "|---|---|---|", *lines])


def _protocol(metric: Metric) -> str:
    return "; ".join(f"{key}: {value}" for key, value in metric.protocol.items())


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
