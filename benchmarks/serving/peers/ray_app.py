"""Ray Serve with its request batching."""

import os
import time

import ray
from _work import Work
from ray import serve
from starlette.requests import Request
from starlette.responses import Response


@serve.deployment(max_ongoing_requests=256)
class Generator:
    def __init__(self) -> None:
        self.work = Work()

    @serve.batch(max_batch_size=64, batch_wait_timeout_s=0.002)
    async def pngs(self, seeds: list[int]) -> list[bytes]:
        return self.work.pngs(seeds)

    async def __call__(self, request: Request) -> Response:
        if request.method == "GET":
            return Response("ok")
        seed = (await request.json())["seeds"][0]
        return Response(await self.pngs(seed), media_type="image/png")


if __name__ == "__main__":
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    serve.start(http_options={"host": "127.0.0.1", "port": int(os.environ["PORT"])})
    serve.run(Generator.bind(), route_prefix="/predict")
    while True:
        time.sleep(60)
