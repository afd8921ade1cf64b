"""Run in the environment of the MLflow server: loads a model as anybody would, and says what it gives and what is told.

`mlflow_load.py SERVER REFERENCE ROWS`: ROWS is a Parquet file; one JSON object comes out.
"""

import json
import sys

import mlflow
import pandas as pd

server, reference, rows = sys.argv[1:]
mlflow.set_tracking_uri(server)
model = mlflow.pyfunc.load_model(reference)
scored = model.predict(pd.read_parquet(rows))
client = mlflow.MlflowClient()
name, alias = reference.removeprefix("models:/").split("@")
version = client.get_model_version_by_alias(name, alias)
run = client.get_run(version.run_id)
metric = next(one for one in run.data.metrics if one.startswith("search_"))
print(
    json.dumps(
        {
            "scores": pd.DataFrame(scored).iloc[:, 0].astype(float).tolist(),
            "inputs": [one.name for one in model.metadata.signature.inputs],
            "params": run.data.params,
            "metrics": run.data.metrics,
            "tags": run.data.tags,
            "status": run.info.status,
            "steps": [one.step for one in client.get_metric_history(version.run_id, metric)],
            "datasets": [one.dataset.name for one in run.inputs.dataset_inputs],
            "artifacts": sorted(one.path for one in client.list_artifacts(version.run_id, "model")),
        }
    )
)
