"""FastAPI with ONNX Runtime in the handler, no batching: `uvicorn --workers 2`."""

import os

import uvicorn
from _work import Work
from fastapi import FastAPI, Response
from pydantic import BaseModel

app = FastAPI()
work = Work()


class Asked(BaseModel):
    seeds: list[int]


@app.get("/ready")
async def ready() -> str:
    return "ok"


@app.post("/predict")
async def predict(asked: Asked) -> Response:
    return Response(work.pngs(asked.seeds)[0], media_type="image/png")


if __name__ == "__main__":
    port = int(os.environ["PORT"])
    uvicorn.run("fastapi_app:app", port=port, workers=2, access_log=False, log_level="warning")
