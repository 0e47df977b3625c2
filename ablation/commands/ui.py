"""`ablate ui`: MLflow's own UI on the store."""

import importlib.util
import os
import signal
import subprocess
import sys

from rich.console import Console

from ablation.commands.exit_codes import DONE
from ablation.errors import AblateError
from ablation.tracking.addresses import folder_address
from ablation.tracking.messages import without_secrets
from ablation.tracking.store import Store

ARMS_VIEW = "&viewStateShareKey=arms"  # the view that the recorder prepares: one row per arm


def _reach(host: str) -> str:
    """Who can open a page that is served on this host, in words."""
    if host == "localhost" or host.startswith("127.") or host == "::1":
        return f"on {host}, for this machine only"
    return f"on {host}: whoever reaches that address can read and change the store, since no password is asked for"


def ui(host: str, port: int) -> int:
    """Serve MLflow's UI on the store."""
    store = Store.open()
    if store.is_remote:
        print(f"the store is a server; its UI is at {without_secrets(store.uri)}")
        return DONE
    if importlib.util.find_spec("mlflow.server") is None or importlib.util.find_spec("flask") is None:
        raise AblateError("MLflow's server is not installed here (only its client is); install mlflow, or copy mlruns/ to where it is")
    console = Console(stderr=True)
    console.print(f"MLflow's UI, {_reach(host)}; Ctrl-C ends it. Studies:", highlight=False, soft_wrap=True)
    server_url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"  # the brackets are IPv6's
    for name, _ in store.studies():
        experiment_url = f"{server_url}/#/experiments/{store.experiment(name)}/runs?workflowType=machine_learning"
        for view, url in (
            ("every run", experiment_url),
            ("arms", f"{experiment_url}{ARMS_VIEW}"),
            ("charts", f"{experiment_url}{ARMS_VIEW}&compareRunsMode=CHART"),
        ):
            console.print(f"  {name}: {view:<9} {url}", highlight=False, soft_wrap=True)
    environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", store.uri, "--workers", "1"]
    command += ["--host", host, "--port", str(port), "--default-artifact-root", folder_address(store.root / "artifacts")]
    with subprocess.Popen(command, env=environment) as server:
        previous_handler = signal.signal(signal.SIGTERM, lambda *_: server.terminate())
        try:
            return server.wait()
        except KeyboardInterrupt:
            server.terminate()
            return DONE
        finally:
            signal.signal(signal.SIGTERM, previous_handler)
