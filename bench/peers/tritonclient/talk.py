"""Triton's client asks a model server everything it can: `talk.py HTTP GRPC` prints one JSON object for each wire."""

import json
import sys

import numpy as np
import tritonclient.grpc
import tritonclient.http
from tritonclient.utils import InferenceServerException

ROWS = np.array([[1.0, 10.0], [2.0, 20.0], [3.0, 30.0]], np.float32)


def talk(module, address: str) -> dict:
    rest = module is tritonclient.http
    with module.InferenceServerClient(address) as client:
        told = {
            "live": client.is_server_live(),
            "ready": client.is_server_ready(),
            "model_ready": client.is_model_ready("tiny"),
        }
        asked = {} if rest else {"as_json": True}
        told["server"] = client.get_server_metadata(**asked)["name"]
        told["inputs"] = [one["name"] for one in client.get_model_metadata("tiny", **asked)["inputs"]]
        index = client.get_model_repository_index(**asked)
        told["index"] = [one["name"] for one in (index if rest else index["models"])]
        for how in ({"binary_data": True}, {"binary_data": False}) if rest else ({},):
            whole = module.InferInput("features", list(ROWS.shape), "FP32")
            whole.set_data_from_numpy(ROWS, **how)
            wanted = [module.InferRequestedOutput(name, **how) for name in ("rul_h", "health")]
            result = client.infer("tiny", [whole], outputs=wanted, request_id="t1")
            told[f"whole{how.get('binary_data', '')}"] = {
                name: result.as_numpy(name).tolist() for name in ("health", "rul_h")
            }
            response = result.get_response()
            told["id"] = response["id"] if rest else response.id
        columns = [
            module.InferInput("a", [3], "FP64").set_data_from_numpy(ROWS[:, 0].astype(np.float64)),
            module.InferInput("b", [3], "INT64").set_data_from_numpy(ROWS[:, 1].astype(np.int64)),
        ]
        told["columns"] = client.infer("tiny", columns).as_numpy("rul_h").tolist()
        if rest:
            packed = {"request_compression_algorithm": "gzip", "response_compression_algorithm": "gzip"}
            many = np.ones((500, 2), np.float32)
            whole = module.InferInput("features", [500, 2], "FP32").set_data_from_numpy(many)
            told["packed"] = len(client.infer("tiny", [whole], **packed).as_numpy("health"))
        for name, given in (("none", columns), ("tiny", columns[:1])):
            try:
                client.infer(name, given)
            except InferenceServerException as error:
                told[f"refused_{name}"] = [type(error).__name__, error.status(), error.message()]
    return told


print(json.dumps([talk(tritonclient.http, sys.argv[1]), talk(tritonclient.grpc, sys.argv[2])]))
