"""Import MLflow's public names, with its settings made first: short retries, and nothing on the terminal.

Import these names from here: a module that imports mlflow itself may do so before the settings are made.
"""

from __future__ import annotations

import logging
import os

from bench.tracking.mlflow_internals import quiet_store

__all__ = ["Metric", "MlflowClient", "MlflowException", "Param", "RunTag"]

# MLflow reads these at import or at each request; values that the user has set stay. With MLflow's default retries, one
# call to a server that refuses connections takes four minutes.
for _name, _value in {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}.items():
    os.environ.setdefault(_name, _value)

from mlflow import MlflowClient  # noqa: E402
from mlflow.entities import Metric, Param, RunTag  # noqa: E402
from mlflow.exceptions import MlflowException  # noqa: E402

# Set the level again for a program that imported MLflow before. Hydra also enables INFO for every logger, so alembic
# would report each migration and urllib3 each retry.
logging.getLogger("mlflow").setLevel(os.environ["MLFLOW_LOGGING_LEVEL"].upper())
logging.getLogger("alembic").setLevel(logging.WARNING)
logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)
quiet_store()
