"""mosec: one stage that batches, computes and encodes, as in its own examples."""

import json
import os

from _work import Work
from mosec import Server, Worker


class Generator(Worker):
    resp_mime_type = "image/png"

    def __init__(self):
        self.work = Work()

    def deserialize(self, data: bytes) -> int:
        return json.loads(data)["seeds"][0]

    def serialize(self, data: bytes) -> bytes:
        return data

    def forward(self, data: list[int]) -> list[bytes]:
        return self.work.pngs(data)


if __name__ == "__main__":
    server = Server()
    num = int(os.environ.get("WORKERS", "1"))
    server.append_worker(Generator, num=num, max_batch_size=64, max_wait_time=2)
    server.run()
