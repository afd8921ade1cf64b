"""Run by the interpreter of a model's own environment: reads rows, writes scores. It knows nothing of boucle."""

import os
import sys
import time
from typing import Any, BinaryIO

__all__: list[str] = []


def _answers(predict: Any, body: bytes) -> bytes:
    import numpy as np
    import pyarrow as pa

    rows = pa.ipc.open_stream(body).read_all().to_pandas()
    begun = time.process_time_ns()
    found = np.asarray(predict(rows), dtype=np.float64).reshape(len(rows), -1)
    told = {"cpu_ns": str(time.process_time_ns() - begun)}
    answer = pa.table({f"c{index}": found[:, index] for index in range(found.shape[1])}, metadata=told)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, answer.schema) as writer:
        writer.write_table(answer)
    return bytes(sink.getvalue().to_pybytes())


def _serve(folder: str, rows: BinaryIO, scores: BinaryIO) -> None:
    import mlflow.pyfunc

    predict = mlflow.pyfunc.load_model(folder).predict
    scores.write(b"ok")
    scores.flush()
    while len(head := rows.read(8)) == 8:
        body = rows.read(int.from_bytes(head, "big"))
        try:
            answer = _answers(predict, body)
        except (ValueError, TypeError, KeyError, ArithmeticError, RuntimeError) as error:
            answer = b"!" + f"{type(error).__name__}: {error}"[:2000].encode()
        except mlflow.exceptions.MlflowException as error:
            answer = b"!" + str(error)[:2000].encode()
        scores.write(len(answer).to_bytes(8, "big") + answer)
        scores.flush()


if __name__ == "__main__":
    # This file's folder stands first on the path, and a file of it is called as the package that is wanted.
    sys.path.pop(0)
    # Models print; what they print must not come between the scores.
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    _serve(sys.argv[1], sys.stdin.buffer, out)
