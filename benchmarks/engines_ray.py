"""A study on a real Ray cluster of this machine, with what clusters do to workers, held against the same study run by this machine.

    python benchmarks/engines_ray.py                     (the quick matrix's ladder, three seeds, on two nodes of one CPU)
    python benchmarks/engines_ray.py --epochs 160        (on a machine twice as fast)

Needs the extra "ray", and for the record of the disturbed study PostgreSQL and the group "engines" of pyproject.toml. One after
another: PostgreSQL and MLflow's server are killed for a while; a node is killed with all its processes; of another only the raylet, so that
its worker goes on as an orphan; a worker is frozen; a whole node is, and let go beside the successors; Ctrl-C once; the command is begun on
another host (`unshare`), killed, and begun again on the first. Then params, metrics, curves and the bytes of predictions must be those of
the study run here, each run once, none RUNNING. Exit status 1 on any difference.
"""

import argparse
import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import psutil

from ablation.system.fencing import Token
from benchmarks.campaign import (
    ELSEWHERE,
    Campaign,
    Servers,
    arguments,
    carried_out,
    keep,
    let_go,
    lives,
    signalled,
    store_killed,
    workplace,
)

NUM_NODES = 2
BESIDE = 20.0  # seconds, enough for an epoch, for which an orphan goes on before Ray ends it
LOST = "was lost: its job goes on"  # in what is printed of a worker that is gone


class RayCampaign(Campaign):
    """The study, and the Ray cluster that carries it out."""

    def __init__(self, folder: Path, args: argparse.Namespace, cluster: Any, servers: Servers | None = None) -> None:
        super().__init__(folder, args, ("--executor", "ray", "--ray-address", cluster.address), servers)
        self.cluster = cluster

    def while_it_runs(self, what: Callable[[], Any]) -> Any:
        """What it gives once that is true; the campaign ends where the last command does before: nothing is left to disturb."""

        def found() -> Any:
            ended = self.started[-1].poll() is not None
            if not (value := what()) and ended:
                raise SystemExit("the study ended before all of it was done; give more --seeds or --epochs")
            return value

        return self.until(found)

    def stages(self, processes: Sequence[psutil.Process]) -> dict[Path, Token]:
        """The folders of the stages that these processes train, an epoch of which is saved and not yet all, and their claims to them."""
        pids = {process.pid for process in processes}
        saved = [path.parent for path in self.folder.glob("mlruns/stages/*/checkpoint.safetensors")]
        claims = {folder: Token.read(folder) for folder in saved if not (folder / "final.safetensors").exists()}
        return {folder: token for folder, token in claims.items() if token and token.pid in pids and not token.is_released}

    def all_train(self) -> bool:
        """Whether there is something under way on each node."""
        return all(self.stages(workers_of(node)) for node in self.cluster.worker_nodes)

    def caught(self) -> "Caught":
        """A node on which something trains, once there is one, with its workers frozen."""

        def catch() -> "Caught | None":
            for node in self.cluster.worker_nodes:
                workers = workers_of(node)
                signalled(workers, signal.SIGSTOP)
                if claims := self.stages(workers):
                    return Caught(node, workers, claims, self.printed.count(LOST))
                signalled(workers, signal.SIGCONT)
            return None

        found: Caught = self.while_it_runs(catch)
        return found


class Caught(NamedTuple):
    """A node, its frozen workers, what they were training, and how many workers were lost before."""

    node: Any
    workers: Sequence[psutil.Process]
    claims: Mapping[Path, Token]
    num_lost: int


def raylet_of(node: Any) -> psutil.Process:
    """The process that is the node."""
    return psutil.Process(node.all_processes["raylet"][0].process.pid)


def workers_of(node: Any) -> list[psutil.Process]:
    """The actors of a node, and what trains for them."""
    found = []
    for process in raylet_of(node).children():
        with contextlib.suppress(psutil.Error):  # it has just ended
            if "".join(process.cmdline()[:1]).startswith("ray::_Actor"):
                found += [process, *process.children(recursive=True)]
    return found


def parent_of(process: psutil.Process) -> int:
    """The number of the process that it belongs to; 0 if it has ended."""
    with contextlib.suppress(psutil.Error):
        return process.ppid()
    return 0


# --- what clusters do; each waits for what comes of it -----------------------------------------------------------------------------


def node_killed(campaign: RayCampaign) -> None:
    """Kill a node with all its processes; another node comes once that is noticed."""
    caught = campaign.caught()
    raylet = raylet_of(caught.node)
    signalled([raylet, *raylet.children(recursive=True)], signal.SIGKILL)
    goes_on(campaign, caught, "all processes of its node were killed", is_node_lost=True)


def orphaned(campaign: RayCampaign) -> None:
    """Kill the raylet of a node alone; its workers hang until a successor trains, and then go on beside it."""
    caught = campaign.caught()
    raylet = raylet_of(caught.node)
    signalled(caught.workers, signal.SIGCONT)  # the system ends processes that are stopped when they lose their parent
    signalled([raylet], signal.SIGKILL)
    campaign.until(lambda: raylet.pid not in [parent_of(one) for one in caught.workers])
    signalled(caught.workers, signal.SIGSTOP)
    goes_on(campaign, caught, "the raylet of its node was killed", is_node_lost=True)
    signalled(caught.workers, signal.SIGCONT)
    time.sleep(BESIDE)
    campaign.tell(f"{len([one for one in caught.workers if lives(one)])} orphans went on beside it for {BESIDE:.0f} s")
    caught.node.all_processes["raylet"][0].process.wait()  # its own end; until then a worker takes it for one that lives
    let_go(campaign, caught.workers)


def frozen(campaign: RayCampaign) -> None:
    """Freeze a worker until its successor trains; Ray ends it."""
    caught = campaign.caught()
    goes_on(campaign, caught, "its worker was frozen", is_node_lost=False)
    let_go(campaign, caught.workers)


def node_frozen(campaign: RayCampaign) -> None:
    """Freeze all processes of a node, so that nothing can end them, and let its workers go beside their successors."""
    caught = campaign.caught()
    raylet = raylet_of(caught.node)
    processes = [raylet, *raylet.children(recursive=True)]
    signalled(processes, signal.SIGSTOP)
    goes_on(campaign, caught, "all processes of its node were frozen", is_node_lost=True)
    signalled([one for one in processes if one not in caught.workers], signal.SIGCONT)
    let_go(campaign, caught.workers)
    if lives(raylet):  # Ray had not given it up yet
        campaign.tell("the node itself came back, and was ended")
        signalled([raylet, *raylet.children(recursive=True)], signal.SIGKILL)


def goes_on(campaign: RayCampaign, caught: Caught, why: str, *, is_node_lost: bool) -> None:
    """Wait until the loss is noticed, have another node come if need be, and wait until successors train; tell how long it took."""
    began, struck = time.monotonic(), time.time()
    campaign.while_it_runs(lambda: campaign.printed.count(LOST) > caught.num_lost)
    noticed = time.monotonic() - began
    if is_node_lost:
        campaign.cluster.worker_nodes.discard(caught.node)
        join(campaign.cluster)

    def trains(folder: Path, claim: Token) -> bool:
        """Whether a later attempt at a stage has saved an epoch, or the end."""
        found, saved = Token.read(folder), [path.stat().st_mtime for path in folder.glob("*.safetensors")]
        return found is not None and found.attempt > claim.attempt and max(saved, default=0.0) > struck

    campaign.while_it_runs(lambda: all(trains(*item) for item in caught.claims.items()))
    campaign.tell(f"a stage trained again {time.monotonic() - began:.0f} s after {why}, which was noticed after {noticed:.0f} s")


def disturbed(campaign: RayCampaign) -> dict[str, Any]:
    """The study with all of this."""
    command = campaign.start()
    campaign.while_it_runs(campaign.all_train)
    store_killed(campaign)()
    for strike in (node_killed, orphaned, frozen, node_frozen):
        strike(campaign)
    campaign.while_it_runs(campaign.all_train)
    command.send_signal(signal.SIGINT)
    began = time.monotonic()
    campaign.ends(command, 130)
    campaign.tell(f"Ctrl-C once: ended with status 130 after {time.monotonic() - began:.0f} s")
    elsewhere = campaign.start(before=ELSEWHERE)
    campaign.while_it_runs(campaign.all_train)
    elsewhere.kill()
    elsewhere.wait()
    campaign.tell("begun again on another host, and killed there while it trained")
    campaign.collect()
    return {}


@contextlib.contextmanager
def ray() -> Iterator[Any]:
    """A cluster of our own, while this lasts: a head without CPUs, and nodes of one CPU."""
    os.environ |= {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_worker_niceness": "0"}  # 127.0.0.1 is meant; and none goes last
    with contextlib.redirect_stdout(sys.stderr):
        import_module("ablation.running.executors.ray")  # sets what Ray reads where it is imported
        from ray.cluster_utils import Cluster

        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
        try:
            for _ in range(NUM_NODES):
                join(cluster)
            yield cluster
        finally:
            cluster.shutdown()


def join(cluster: Any) -> None:
    """Have another node come; where a machine has much to do, Ray gives up the first ones."""
    for is_last in (False, False, True):
        try:
            cluster.add_node(num_cpus=1, wait=False)
        except Exception:  # Ray's is no other
            if is_last:
                raise
        else:
            return


def main(argv: Sequence[str] | None = None) -> int:
    """Carry it out twice, print what was done and found, and keep the figures; 1 where anything differs."""
    args = arguments(__doc__ or "", argv, epochs=80)
    with workplace(args.port) as (folder, servers), ray() as cluster:
        local, wild = Campaign(folder / "local", args), RayCampaign(folder / "disturbed", args, cluster, servers)
        result = carried_out("Ray", args, local, wild, lambda: disturbed(wild))
    return keep("engines-ray", args, result)


if __name__ == "__main__":
    sys.exit(main())
