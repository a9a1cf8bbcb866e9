"""What a real image costs: ms of each route that takes one, and of /v1/generate before and after.

    python -m training.run digits && python -m training.inversion encoder digits
    python benchmarks/serving/real_images.py [NAME] [--repository DIR] [--quick]

Protocol: one server, one connection, one image a request: one that the model made, as a PNG in
base64. /v1/edit needs a model with directions. Medians of 200 requests (--quick: 20), after 5 that
don't count.
"""

import base64
import http.client
import json
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
from _harness import Running, figure, parser, saddlepoint, scratch_folder

from models.bundle import Bundle
from models.bundle.generator import CpuGenerator, Images
from models.latents import latents
from models.repository import Repository
from models.restoration import shrunk
from serving.encoding.png import encode_png

WARM = 5


def bodies(bundle: Bundle) -> dict[str, dict[str, Any]]:
    """A request for each route; its image is the model's own, of seed 0."""
    manifest = bundle.manifest
    label = np.zeros(1, np.int64) if manifest.conditional else None
    image = CpuGenerator(bundle.model_path)(latents(np.zeros(1, np.uint64), manifest.z_dim), label)
    hole = np.zeros((manifest.image.height, manifest.image.width, 1), np.uint8)
    hole[hole.shape[0] // 2 :] = 255
    small = shrunk(image, 2)[0].round().astype(np.uint8)
    sent = _text(image[0])
    return {
        "encode": {"images": [sent]},
        "edit": {"image": sent, "directions": {"0": 1}},
        "inpaint": {"image": sent, "mask": _text(hole)},
        "upscale": {"image": _text(small)},
        "score": {"images": [sent]},
    }


def median_ms(server: Running, route: str, body: dict[str, Any], num: int) -> float:
    """Median time of a request over one connection that stays open."""
    connection = http.client.HTTPConnection(server.url.removeprefix("http://"))
    data, times = json.dumps(body).encode(), []
    for _ in range(WARM + num):
        began = time.perf_counter()
        connection.request("POST", f"/v1/{route}", data, {"content-type": "application/json"})
        reply = connection.getresponse()
        answer = reply.read()
        times.append(time.perf_counter() - began)
        if reply.status != 200:
            raise SystemExit(f"/v1/{route} answered {reply.status}: {answer.decode()}")
    connection.close()
    return statistics.median(times[WARM:]) * 1000


def main() -> None:
    options = parser(__doc__)
    options.add_argument("name", nargs="?", default="digits")
    options.add_argument("--repository", type=Path, default=Path("model-repository"))
    asked = options.parse_args()
    repository, num = Repository(asked.repository), 20 if asked.quick else 200
    bundle = repository.bundle(asked.name)
    generate = {"model": asked.name, "seeds": [1], "format": "png"}
    if bundle.manifest.conditional:
        generate["labels"] = 0
    with scratch_folder() as folder, saddlepoint(repository, folder) as server:
        figure("generate_before", median_ms(server, "generate", generate, num), "ms")
        for route, body in bodies(bundle).items():
            figure(route, median_ms(server, route, {"model": asked.name} | body, num), "ms")
        figure("generate_after", median_ms(server, "generate", generate, num), "ms")


def _text(image: Images) -> str:
    return base64.b64encode(encode_png(np.ascontiguousarray(image))).decode()


if __name__ == "__main__":
    main()
