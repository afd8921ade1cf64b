"""Run in the environment of the MLflow server: logs models there as somebody else would."""

import sys

import mlflow
import mlflow.onnx
import mlflow.sklearn
import numpy as np
import onnx
import pandas as pd
from mlflow.models import infer_signature
from onnx import TensorProto, helper, numpy_helper
from sklearn.linear_model import LinearRegression

mlflow.set_tracking_uri(sys.argv[1])
mlflow.set_experiment("elsewhere")
graph = helper.make_graph(
    [helper.make_node("Gemm", ["x", "w"], ["score"])],
    "theirs",
    [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 2])],
    [helper.make_tensor_value_info("score", TensorProto.FLOAT, [None, 1])],
    [numpy_helper.from_array(np.array([[2.0], [3.0]], np.float32), "w")],
)
made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
rows = pd.DataFrame({"a": [0.0, 1.0, 0.0], "b": [0.0, 0.0, 1.0]})
with mlflow.start_run():
    mlflow.onnx.log_model(made, name="model", pip_requirements=[], registered_model_name="theirs_onnx")
    fitted = LinearRegression().fit(rows, [1.0, 3.0, 4.0])
    told = infer_signature(rows, fitted.predict(rows))
    mlflow.sklearn.log_model(
        fitted, name="sk", signature=told, pip_requirements=[], registered_model_name="theirs_pyfunc"
    )
client = mlflow.MlflowClient()
for name in ("theirs_onnx", "theirs_pyfunc"):
    client.set_registered_model_alias(name, "champion", 1)
print(onnx.__version__)
