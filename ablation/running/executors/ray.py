"""Workers of a Ray cluster: an actor for each slot of each node. Ray places and watches them; what begins and is tried again, we decide."""

import contextlib
import json
import logging
import math
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from functools import cached_property
from pathlib import Path
from typing import Any

from ablation.errors import AblateError, ClusterError, ConfigError
from ablation.running.executors.node_facts import difference, node_facts
from ablation.running.executors.remote import HEARTBEAT_TIMEOUT, Broken, Gone, Node, RemoteExecutor
from ablation.running.executors.remote_worker import RemoteWorker
from ablation.system import signals

# Read where Ray is imported. Under `uv run` Ray would build a new environment for each worker.
os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
with signals.kept():  # Ray takes SIGTERM for itself
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

ADDRESS = "--ray-address"
LOOK = 5.0  # seconds between two looks at the cluster's nodes
PATIENCE = 60.0  # seconds that a node has to answer at the start
SILENCE = 30.0  # seconds after which a head that does not answer is given up; after 60, Ray would end this process wherever it is
OWN_COPIES = str(Path(ray.__file__).parent / "thirdparty_files")  # of packages, which jobs are not to take for the installed ones
FINEST = 10_000  # Ray counts resources in parts of this size


class RayExecutor(RemoteExecutor):
    """Runs jobs of one kind of work in a Ray cluster: as many at once as it has CPUs or GPUs to give.

    With `num_jobs`, so many on each GPU, each with its fraction of it, or on each node where there are no GPUs.
    """

    def __init__(
        self,
        devices: list[str],
        num_jobs: int,
        task: str,
        *,
        address: str = "",
        study: str,
        folders: Sequence[str],
        code: Sequence[str] = (),
        heartbeat: float = HEARTBEAT_TIMEOUT,
    ) -> None:
        """Connect; every node must see the `folders`, the first of which is `mlruns`, and workers import the user's code from `code`."""
        kind = _kind(devices)
        is_own = _connect(address, devices if kind == "cuda" else ())
        cluster = _Cluster(task, kind, num_jobs, folders, code, is_own=is_own)
        super().__init__(cluster, f"ray/{study}", Path(folders[0]) / "stages", heartbeat)
        try:
            self.add(cluster.first_nodes())
        except BaseException:
            self.close()
            raise


class _Cluster:
    """A Ray cluster, as `remote.Cluster` asks for it: its nodes, and actors there."""

    def __init__(self, task: str, kind: str, num_jobs: int, folders: Sequence[str], code: Sequence[str], *, is_own: bool) -> None:
        self.task, self.kind, self.num_jobs, self.folders, self.code = task, kind, num_jobs, folders, code
        self.is_own = is_own  # begun here, on this machine alone
        self.checks: dict[Any, dict[str, Any]] = {}  # the facts that a new node owes -> the node, as Ray tells of it
        self._known: dict[str, str] = {}  # node -> name
        self._looked = -math.inf
        self._marker = Path(folders[0]) / f"seen-by-ray-{ray.get_runtime_context().get_job_id()}"
        self._marker.touch()  # a node that sees it sees the folder

    # --- nodes -------------------------------------------------------------------------------------------------------------------

    def new_nodes(self) -> tuple[list[Node], list[str]]:
        """The nodes that have come and whose facts are those of this machine, and a sentence for each that differs."""
        new = self._look()
        if self.is_own:
            return [self._node(node) for node in new], []
        self.checks |= {self._ask_for_facts(node): node for node in new}
        nodes, sentences = list[Node](), list[str]()
        for answer in self.answered(list(self.checks), 0):
            node, problem = self._node(self.checks.pop(answer)), self._problem(answer)
            if problem:
                sentences.append(f"the node {node.name} of the Ray cluster {problem}")
            else:
                nodes.append(node)
        return nodes, sentences

    def first_nodes(self) -> list[Node]:
        """The nodes at the start; raises AblateError for a cluster that has none, or nodes that would compute something else."""
        nodes, until = list[Node](), time.monotonic() + PATIENCE
        while not nodes or self.checks:
            more, problems = self.new_nodes()
            if problems:
                raise AblateError(f"{problems[0]}; nothing was started")
            nodes += more
            if not nodes and not self.checks:
                wanted = "GPUs" if self.kind == "cuda" else "CPUs"
                raise ConfigError(ADDRESS, f"found a cluster without {wanted}; expected some (ray status shows them)")
            if time.monotonic() > until:
                silent = ", ".join(node["NodeManagerHostname"] for node in self.checks.values())
                raise AblateError(f"{silent} of the Ray cluster gave no answer for {PATIENCE:.0f} s; nothing was started")
            self.answered(list(self.checks), 1.0)
        return nodes

    def _look(self) -> list[dict[str, Any]]:
        """The nodes that have come since the last look, and have what a slot takes."""
        if time.monotonic() - self._looked < LOOK:
            return []
        self._looked, resource = time.monotonic(), "GPU" if self.kind == "cuda" else "CPU"
        known = {*self._known, *(node["NodeID"] for node in self.checks.values())}
        return [node for node in _living() if node["NodeID"] not in known and node["Resources"].get(resource, 0) >= 1]

    def _node(self, node: Mapping[str, Any]) -> Node:
        resources, name, ray_id = node["Resources"], node["NodeManagerHostname"], node["NodeID"]
        name = f"{name}-{ray_id[:6]}" if name in self._known.values() else name
        self._known[ray_id] = name
        cpus, gpus = resources.get("CPU", 0.0), int(resources.get("GPU", 0)) if self.kind == "cuda" else 0
        num_slots = gpus * (self.num_jobs or 1) if gpus else self.num_jobs or int(cpus)
        return Node(ray_id, name, num_slots, {"num_cpus": _part(min(1.0, cpus / num_slots)), "num_gpus": _part(gpus / num_slots)})

    def is_alive(self, node: Node) -> bool:
        """Whether Ray holds the node for alive, which it may do for half a minute too long."""
        return any(living["NodeID"] == node.id for living in _living())

    # --- whether a node computes the same ------------------------------------------------------------------------------------------

    @property
    def _asked(self) -> dict[str, Any]:
        return {"task": self.task, "devices": [self._device], "folders": list(self.folders), "marker": self._marker.name}

    @property
    def _device(self) -> str:
        """The device of a worker, which sees no other."""
        return "cuda:0" if self.kind == "cuda" else "cpu"

    def _ask_for_facts(self, node: Mapping[str, Any]) -> Any:
        asked = self._asked
        if self.kind == "cuda":
            asked |= {"devices": [f"cuda:{number}" for number in range(int(node["Resources"]["GPU"]))]}
        return _facts.options(scheduling_strategy=_on(node["NodeID"])).remote(json.dumps(asked))

    @cached_property
    def _here(self) -> dict[str, Any]:
        return node_facts(self._asked)

    def _problem(self, answer: Any) -> str:
        try:
            return difference(self._here, json.loads(self.take(answer)))
        except (Gone, Broken) as error:
            return f"cannot run ablate ({str(error).splitlines()[-1]}); expected it to be installed there as here"

    # --- actors --------------------------------------------------------------------------------------------------------------------

    def start(self, node: Node) -> Any:
        """An actor with the node's share."""
        place = {"folder": str(Path.cwd()), "code": list(self.code), "device": self._device, "task": self.task}
        with _reached():
            return _Worker.options(**node.share, scheduling_strategy=_on(node.id)).remote(json.dumps(place))

    def ask(self, worker: Any, method: str, *words: Any) -> Any:
        """Call a method of an actor; the reference to what it will return."""
        with _reached():
            return getattr(worker, method).remote(*words)

    def answered(self, answers: Sequence[Any], timeout: float) -> list[Any]:
        """Those of the references whose values are there, after at most `timeout` seconds."""
        if not answers:
            time.sleep(timeout)
            return []
        ray.wait(list(answers), timeout=timeout)
        there: list[Any] = ray.wait(list(answers), num_returns=len(answers), timeout=0)[0]
        return there

    def take(self, answer: Any) -> str:
        """The value of a reference; raises Gone for an actor or a node that was lost, Broken for an exception in it."""
        try:
            return str(ray.get(answer, timeout=PATIENCE))
        except ray.exceptions.RayTaskError as error:
            raise Broken(str(error)) from None
        except ray.exceptions.OutOfMemoryError:
            raise Gone("Ray ended its worker, since the memory of its node was almost full", for_memory=True) from None
        except (ray.exceptions.RayError, TimeoutError) as error:
            raise Gone(_said(error)) from None

    def end(self, worker: Any) -> None:
        """Kill an actor."""
        with contextlib.suppress(Exception):  # it is gone already, or the cluster
            ray.kill(worker)

    def close(self) -> None:
        """Disconnect, and end the cluster if it was begun here."""
        self._marker.unlink(missing_ok=True)
        ray.shutdown()


class _Actor(RemoteWorker):
    """A worker in a process of Ray's."""

    def __init__(self, place: str) -> None:
        vars(sys.modules["__main__"]).pop("__file__", None)  # Ray's own program, which a process that is spawned here would run again
        sys.path[:] = [path for path in sys.path if path != OWN_COPIES]
        if gpus := ray.get_runtime_context().get_accelerator_ids().get("GPU"):
            os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(gpus)  # also where RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES leaves it out
        super().__init__(place)


_Worker = ray.remote(max_restarts=0, max_task_retries=0)(_Actor)


def _facts_of_node(asked: str) -> str:
    """The facts of the node where this runs, all of whose GPUs are seen here though none is taken."""
    if not os.environ.get("CUDA_VISIBLE_DEVICES", "all"):
        del os.environ["CUDA_VISIBLE_DEVICES"]  # set so by RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO, and by earlier versions of Ray
    return json.dumps(node_facts(json.loads(asked)))


_facts = ray.remote(num_cpus=0, max_calls=1, max_retries=0)(_facts_of_node)  # its process has torch in it, and ends with it


def _living() -> list[dict[str, Any]]:
    """The nodes, as Ray tells of them; asked by a thread, since Ray itself waits for a head that is gone until it ends the process."""
    answer: Future[list[dict[str, Any]]] = Future()
    threading.Thread(target=_answer, args=(answer,), daemon=True).start()
    with _reached():
        try:
            return [node for node in answer.result(SILENCE) if node["Alive"]]
        except TimeoutError:
            raise ConnectionError(f"its head has said nothing for {SILENCE:.0f} s") from None


def _answer(nodes: "Future[list[dict[str, Any]]]") -> None:
    try:
        nodes.set_result(ray.nodes())
    except Exception as error:  # raised where it is waited for
        nodes.set_exception(error)


@contextlib.contextmanager
def _reached() -> Iterator[None]:
    """Raise ClusterError where the cluster itself does not answer: nothing can go on without it."""
    try:
        yield
    except (ray.exceptions.RayError, ConnectionError) as error:
        raise ClusterError(f"the Ray cluster does not answer any more ({_said(error)}); the same command goes on once it is back") from None


# --- the connection --------------------------------------------------------------------------------------------------------------


def _connect(address: str, gpus: Sequence[str]) -> bool:
    """Connect to the cluster at this address or RAY_ADDRESS's, else begin one of this machine; whether it was begun."""
    where = address or os.environ.get("RAY_ADDRESS", "")
    os.environ.setdefault("RAY_worker_niceness", "0")  # of a cluster that is begun here; 15 would let any other program go first
    begun = {"num_cpus": len(os.sched_getaffinity(0)), "num_gpus": len(gpus), "include_dashboard": False}
    if where:
        _check_address(where)
    try:
        with signals.kept(), contextlib.redirect_stdout(sys.stderr):
            ray.init(where or "local", log_to_driver=False, logging_level=logging.ERROR, **({} if where else begun))
    except Exception as error:  # Ray raises any, and a bare one where a node is slow to begin
        token = "" if "RAY_AUTH_MODE" in os.environ else "; one that asks for Ray's token needs RAY_AUTH_MODE=token here too"
        raise ConfigError(ADDRESS, f"no Ray cluster could be used at {where or 'this machine'}: {_said(error)}{token}") from None
    vars(ray._private.worker)["_worker_logs_enabled"] = False  # or it prints what happens to workers into our table
    return not where


def _check_address(where: str) -> None:
    """Raise ConfigError for an address of another kind, or where nobody answers: Ray itself would try for a minute."""
    expected = "expected HOST:PORT of a cluster that `ray start --head` began, or auto"
    if where == "local":
        return
    if where == "auto":  # which a cluster that was killed may have left behind
        try:
            where = ray._private.services.canonicalize_bootstrap_address(where)
        except ConnectionError:
            raise ConfigError(ADDRESS, f"found auto, and no Ray cluster on this machine; {expected}") from None
    host, colon, port = where.rpartition(":")
    if not colon or not port.isdecimal() or "/" in host:
        raise ConfigError(ADDRESS, f"found {where!r}; {expected}; `ray job submit` sends a command from elsewhere (docs/ray.md)")
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except (OSError, OverflowError) as error:
        raise ConfigError(ADDRESS, f"nobody answers at {where} ({error}); {expected}") from None


def _kind(devices: Sequence[str]) -> str:
    """`cpu`, or `cuda`: which GPU a worker has, Ray says."""
    kinds = {device.partition(":")[0] for device in devices}
    if len(kinds) != 1 or not kinds <= {"cpu", "cuda"}:
        raise ConfigError("--device", f"found {', '.join(devices)} with --executor ray; expected cpu or cuda")
    return kinds.pop()


def _part(share: float) -> float:
    """A share of a resource as Ray counts it, never more."""
    return math.floor(share * FINEST) / FINEST


def _on(node: str) -> NodeAffinitySchedulingStrategy:
    return NodeAffinitySchedulingStrategy(node, soft=False)


def _said(error: BaseException) -> str:
    """What an error says, without the traceback that Ray puts before it; a line that ends in a colon goes on in the next ones."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    if any(line.startswith("Traceback") or "ray::" in line for line in lines):
        return lines[-1]
    return " ".join(lines) if lines[0].endswith(":") else lines[0]
