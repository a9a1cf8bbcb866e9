"""What a finished run leaves beside its shards: the manifest and a dataset card.

Neither names a time, a machine or a worker, so two runs of one plan leave the same bytes.
"""

from collections.abc import Iterator, Sequence

import msgspec

from models.bundle import Bundle
from serving.bulk.errors import PlanError
from serving.bulk.formats import DATA, FORMATS
from serving.bulk.plan import Plan
from serving.bulk.plan import encode as encode_plan
from serving.bulk.receipts import FOLDER, Receipt
from serving.bulk.storage.store import Store, write_file
from serving.errors import quoted

PLAN = "plan.json"
MANIFEST = "manifest.json"
CARD = "README.md"


class Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The content of manifest.json."""

    plan: Plan
    plan_digest: str
    num_images: int
    num_bytes: int
    """Of the listed files."""
    shards: tuple[Receipt, ...]


def claim(plan: Plan, store: Store) -> None:
    """Takes a place for a plan, or finds that it has been taken for this one.

    Raises:
        PlanError: the place holds another plan's images, or anything else.
        TargetError: it can't be written.
    """
    check_place(plan, store)
    store.prepare()
    store.lock()
    store.sweep()  # what a killed run left half-written
    if store.read(PLAN) is None:
        write_file(store, PLAN, encode_plan(plan))


def check_place(plan: Plan, store: Store) -> None:
    """Raises PlanError where the place holds another plan's images, or anything else."""
    found = store.read(PLAN)
    if found is None:
        if store.holds_others():
            raise PlanError(
                f"--out is {store.address}: it holds files that are of no plan; name an empty place"
            )
    elif found != encode_plan(plan):
        raise PlanError(
            f"--out is {store.address}: it holds images of another plan{_difference(plan, found)}; "
            "name another place, or give the options that it was begun with"
        )


def _difference(plan: Plan, found: bytes) -> str:
    """Names the fields that differ."""
    try:
        theirs = msgspec.json.decode(found, type=dict[str, object])
    except (msgspec.DecodeError, UnicodeDecodeError):
        return ""
    ours = msgspec.json.decode(encode_plan(plan), type=dict[str, object])  # lists, as theirs
    names = [name for name in ours if theirs.get(name) != ours[name]]
    told = [f"{name} {quoted(theirs.get(name))}, not {quoted(ours[name])}" for name in names[:4]]
    return f" ({'; '.join(told)})" if told else ""


def finish(plan: Plan, bundle: Bundle, receipts: Sequence[Receipt], store: Store) -> Manifest:
    """Writes card and manifest, and removes the receipts that the manifest holds."""
    ordered = tuple(sorted(receipts, key=lambda receipt: receipt.index))
    assert [receipt.index for receipt in ordered] == list(range(plan.num_shards))
    manifest = Manifest(
        plan=plan,
        plan_digest=plan.digest,
        num_images=plan.num_images,
        num_bytes=sum(receipt.num_bytes for receipt in ordered),
        shards=ordered,
    )
    write_file(store, CARD, card(plan, bundle).encode())
    write_file(store, MANIFEST, _encode(manifest))
    store.remove(FOLDER)
    return manifest


def _encode(manifest: Manifest) -> bytes:
    """JSON with a line a shard: a million lines of indented digests would be for nobody."""
    shards = b",\n".join(msgspec.json.encode(shard) for shard in manifest.shards)
    head = msgspec.structs.replace(manifest, shards=())
    text = msgspec.json.format(msgspec.json.encode(head), indent=2)
    end = b'"shards": []\n}'
    assert text.endswith(end)
    return text.removesuffix(end) + b'"shards": [\n' + shards + b"\n]\n}\n"


def read_manifest(plan: Plan, store: Store) -> dict[int, Receipt]:
    """Receipts of an earlier run that ended, by shard; empty where there was none."""
    data = store.read(MANIFEST)
    if data is None:
        return {}
    try:
        manifest = msgspec.json.decode(data, type=Manifest)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return {}
    if manifest.plan_digest != plan.digest:
        return {}
    return {receipt.index: receipt for receipt in manifest.shards}


def card(plan: Plan, bundle: Bundle) -> str:
    """A dataset card as dataset hubs read it: what it is, how it was made, its limits."""
    return "\n".join([*_card_header(plan), *_card_text(plan, bundle), ""])


def _card_header(plan: Plan) -> Iterator[str]:
    yield from ("---", "tags:", "- synthetic", "- gan", "- saddlepoint")
    yield from ("task_categories:", "- unconditional-image-generation")
    if end := FORMATS[plan.format].hub_suffix:
        yield from ("configs:", "- config_name: default", f'  data_files: "{DATA}/*.{end}"')
    yield from ("---", "")


def _card_text(plan: Plan, bundle: Bundle) -> Iterator[str]:
    manifest, image = bundle.manifest, plan.image
    yield f"# {plan.num_images:,} images of {plan.model}, version {plan.version}"
    yield ""
    yield (
        f"Generated images, {image.width}x{image.height}, {image.channels} channel"
        f"{'s' * (image.channels > 1)}; none is a photograph. A generative adversarial network, "
        f"trained by the recipe `{manifest.recipe}` on the dataset `{manifest.dataset.name}` "
        f"({manifest.dataset.num_images:,} images), made them. They show what that dataset shows, "
        "with its gaps and biases, and mistakes of the network beside them."
    )
    yield ""
    yield "| | |"
    yield "|---|---|"
    yield f"| model | {plan.model}, version {plan.version}, sha256 {plan.bundle_digest} |"
    yield f"| seeds | {_short_seeds(plan)} |"
    yield f"| labels | {_labels_text(plan)} |"
    yield f"| truncation | {plan.truncation:g} |"
    yield f"| files | {_files_text(plan)} |"
    for metric in manifest.metrics:
        yield f"| {metric.name} of the model | {metric.value:.4g} |"
    yield ""
    yield (
        f"`{MANIFEST}` has the plan and the SHA-256 of every shard. The same plan with the same "
        "model gives the same bytes again: `python -m serving.bulk`."
    )


def _short_seeds(plan: Plan) -> str:
    few = ", ".join(plan.seeds[:8]) + (", ..." if len(plan.seeds) > 8 else "")
    return f"{few or 'listed in a file'} (sha256 of the list {plan.seeds_sha256})"


def _labels_text(plan: Plan) -> str:
    rule = plan.labels
    if rule is None:
        return "none"
    names = ", ".join(f"{label} {plan.class_names[label]}" for label in rule.classes[:100])
    weights = ", ".join(f"{weight:g}" for weight in rule.weights)
    how = {
        "cycle": "in turn, by the seed",
        "weights": f"drawn by the seed with the weights {weights}",
        "listed": f"given for each seed (sha256 {rule.sha256})",
    }
    return f"{how[rule.kind]}: {names}"


def _files_text(plan: Plan) -> str:
    per = f"{plan.num_shards:,} shards of {plan.shard_images:,} images"
    return f"{FORMATS[plan.format].layout(plan)}; {per}"
