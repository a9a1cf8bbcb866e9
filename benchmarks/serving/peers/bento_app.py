"""BentoML: a service with adaptive batching, as its documentation has it."""

import bentoml
from _work import Work


@bentoml.service(workers=2, traffic={"timeout": 60})
class Generator:
    def __init__(self) -> None:
        self.work = Work()

    @bentoml.api(route="/predict")
    def predict(self, seeds: list[int]) -> bytes:
        return self.work.pngs(seeds)[0]
