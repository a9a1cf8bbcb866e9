"""LitServe as its documentation has it: a LitAPI with batching."""

import os

import litserve
from _work import Work
from fastapi import Response


class Generator(litserve.LitAPI):
    def setup(self, device):
        self.work = Work()

    def decode_request(self, request):
        return request["seeds"][0]

    def batch(self, inputs):
        return inputs

    def predict(self, seeds):
        return self.work.pngs(seeds)

    def unbatch(self, outputs):
        return outputs

    def encode_response(self, output) -> Response:
        return Response(output, media_type="image/png")


if __name__ == "__main__":
    api = Generator(max_batch_size=64, batch_timeout=0.002)
    server = litserve.LitServer(api, accelerator="cpu")
    server.run(port=int(os.environ["PORT"]), host="127.0.0.1", generate_client_file=False)
