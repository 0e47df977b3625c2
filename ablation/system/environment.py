"""What other programs leave in the environment, and what of it this tool and the processes that it starts do without."""

import os
import sys
import warnings

Names = tuple[str, ...]

# Each would change the bits of a result and is in no key. What a process needs is set in `training.devices`.
NUMERIC: Names = ("NVIDIA_TF32_OVERRIDE", "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE", "CUBLAS_WORKSPACE_CONFIG", "MKL_CBWR")
NUMERIC += ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "ONEDNN_DEFAULT_FPMATH_MODE", "DNNL_DEFAULT_FPMATH_MODE")
NUMERIC += ("MKL_ENABLE_INSTRUCTIONS", "OPENBLAS_CORETYPE", "NPY_DISABLE_CPU_FEATURES", "NPY_ENABLE_CPU_FEATURES")
OURS = {"CUBLAS_WORKSPACE_CONFIG": ":4096:8"}  # as `training.devices` sets it, which a process that we start inherits
# Which run, experiment or server others are at, and how they write to it.
OF_MLFLOW: Names = ("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_ENABLE_ASYNC_LOGGING")
OF_MLFLOW += ("MLFLOW_BACKEND_STORE_URI", "MLFLOW_DEFAULT_ARTIFACT_ROOT", "MLFLOW_ARTIFACTS_DESTINATION", "MLFLOW_STATIC_PREFIX")
OF_MLFLOW += ("MLFLOW_ARTIFACTS_ONLY", "MLFLOW_SERVE_ARTIFACTS", "MLFLOW_REGISTRY_STORE_URI", "MLFLOW_REGISTRY_URI")
OF_MLFLOW += ("_MLFLOW_SERVER_ARTIFACT_ROOT", "_MLFLOW_SERVER_FILE_STORE", "MLFLOW_SQLALCHEMYSTORE_ECHO")
OF_DATABASES: Names = ("MLFLOW_SQLALCHEMYSTORE_", "MLFLOW_ENABLE_WORKSPACES", "MLFLOW_WORKSPACE", "MLFLOW_ARTIFACT_LOCATION_MAX_LENGTH")
OF_PYTHON: Names = ("PYTHONWARNINGS", "PYTHONSTARTUP", "PYTHONINSPECT", "MPLBACKEND")
OF_GIT: Names = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR", "GIT_NAMESPACE", "GIT_OBJECT_DIRECTORY")
COUNTS = ("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "MLFLOW_HTTP_REQUEST_TIMEOUT", "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR")
BOOLEANS = ("true", "false", "1", "0")
# What MLflow says of each run that it ends in a server, and of each file that it fetches from one, stays out of our output.
QUIET = {"MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true", "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false"}
LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL", "NOTSET")


def settle() -> None:
    """Do without what other programs left for themselves; what would have changed results is told."""
    foreign = [name for name in NUMERIC if os.environ.get(name, "") != OURS.get(name)]
    dropped = [name for name in foreign if os.environ.pop(name, "")]
    for name in (*OF_MLFLOW, *OF_PYTHON, *OF_GIT):
        os.environ.pop(name, None)
    if not os.environ.get("MLFLOW_TRACKING_URI", "").strip():  # a store of our own, which needs none of the settings of others'
        for name in [name for name in os.environ if name.startswith(OF_DATABASES)]:
            del os.environ[name]
    _drop_nonsense()
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    _forget_warnings()
    os.environ["PYTHONSAFEPATH"] = "1"  # no process imports a file of the current folder that is called like a library
    if dropped:
        print(f"ignored in the environment, since it would change results: {', '.join(dropped)}", file=sys.stderr)


def _drop_nonsense() -> None:
    """Drop settings that are none, over which a library would end with a traceback."""
    for name in COUNTS:
        if not os.environ.get(name, "0").strip().isdecimal():
            del os.environ[name]
    for name in QUIET:
        if os.environ.get(name, "0").lower() not in BOOLEANS:
            del os.environ[name]
    if os.environ.get("MLFLOW_LOGGING_LEVEL", "INFO").strip().upper() not in LEVELS:
        del os.environ["MLFLOW_LOGGING_LEVEL"]


def _forget_warnings() -> None:
    """Let no warning end the work: filters that come from outside are taken back, also for the processes that are started."""
    if sys.warnoptions:
        sys.warnoptions.clear()
        warnings.resetwarnings()
        for category in (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning):
            warnings.simplefilter("ignore", category)
