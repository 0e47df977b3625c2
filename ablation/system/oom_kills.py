"""How often the system has killed for lack of memory: what tells such an end from a process that was killed from outside."""

from pathlib import Path
from typing import Any

PROC, CGROUP = Path("/proc"), Path("/sys/fs/cgroup")


def num_oom_kills(proc: Path = PROC, cgroup: Path = CGROUP) -> int | None:
    """How many processes were killed so far for lack of memory in this control group, or else on the machine; None if unknown."""
    for path in _counters(proc, cgroup):
        try:
            numbers = dict(line.split() for line in path.read_text(encoding="utf-8").splitlines())
            return int(numbers["oom_kill"])
        except (OSError, ValueError, KeyError):
            continue
    return None


def why_killed(kills_before: int | None, kills: int | None) -> dict[str, Any]:
    """The failure of a process that was killed, by how often the system had killed for lack of memory before it began, and has by now."""
    if kills is None or kills_before is None:
        either = "for lack of memory or from outside, which this system does not tell"
        return {"failure": "killed", "may_lack_memory": True, "message": f"its process was killed (SIGKILL), {either}"}
    if kills > kills_before:
        return {"failure": "memory", "message": "its process was killed by the system for lack of memory"}
    why = "killed from outside (SIGKILL); the kernel's counter says it was not for lack of memory"  # systemd-oomd's kills are not in it
    return {"failure": "killed", "may_lack_memory": False, "message": f"its process was {why}"}


def _counters(proc: Path, cgroup: Path) -> list[Path]:
    """The files that may have the counter, the nearest first: of the group as this process sees it, of a container's root, of all."""
    try:
        lines = (proc / "self" / "cgroup").read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        lines = []
    files = []
    for _, controllers, path in (line.split(":", 2) for line in lines if line.count(":") >= 2):
        if not controllers:  # version 2
            files += [cgroup / path.lstrip("/") / "memory.events", cgroup / "memory.events"]
        elif "memory" in controllers.split(","):
            root = cgroup / "memory"
            files += [root / path.lstrip("/") / "memory.oom_control", root / "memory.oom_control"]
    return [*files, proc / "vmstat"]
