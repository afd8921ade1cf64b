"""KServe's Python client asks a model server: `talk.py HTTP GRPC` prints one JSON object for each wire."""

import asyncio
import json
import sys

import numpy as np
from httpx import HTTPStatusError
from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferRequest
from kserve.inference_client import RESTConfig

ROWS = np.array([[1.0, 10.0], [2.0, 20.0], [3.0, 30.0]], np.float32)


def request(binary: bool) -> InferRequest:
    whole = InferInput("features", list(ROWS.shape), "FP32")
    whole.set_data_from_numpy(ROWS, binary_data=binary)
    return InferRequest(model_name="tiny", infer_inputs=[whole], request_id="k1")


def scores(response) -> dict:
    told = {one.name: one.as_numpy().tolist() for one in response.outputs}
    return {"id": response.id, **told}


async def rest(address: str) -> dict:
    client = InferenceRESTClient(RESTConfig(protocol="v2"))
    url = f"http://{address}"
    told = {
        "live": await client.is_server_live(url),
        "ready": await client.is_server_ready(url),
        "model_ready": await client.is_model_ready(url, "tiny"),
    }
    for binary in (True, False):
        told[f"whole{binary}"] = scores(await client.infer(url, request(binary), model_name="tiny"))
    try:
        await client.infer(url, request(False), model_name="none")
    except HTTPStatusError as error:
        told["refused"] = str(error)
    await client.close()
    return told


async def rpc(address: str) -> dict:
    client = InferenceGRPCClient(address)
    told = {
        "live": await client.is_server_live(),
        "ready": await client.is_server_ready(),
        "model_ready": await client.is_model_ready("tiny"),
        "whole": scores(await client.infer(request(True))),
        "typed": scores(await client.infer(request(False))),
    }
    await client.close()
    return told


async def main() -> None:
    print(json.dumps([await rest(sys.argv[1]), await rpc(sys.argv[2])]))


asyncio.run(main())
