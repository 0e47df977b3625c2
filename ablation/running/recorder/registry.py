"""Which run in the store is whose: found again by its identity, or created, once, however often a command is given and by how many."""

import contextlib
import json
import platform
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from filelock import FileLock

from ablation.planning.plan import Run
from ablation.planning.states import LOST
from ablation.system.files import to_disk
from ablation.tracking import texts
from ablation.tracking.recorded import Point
from ablation.tracking.rows import NewRun
from ablation.tracking.store import Store

PLACE, TOKEN = "ablation.place", "ablation.token"  # where a run was begun, and by which call
KEY, SETTINGS = "ablation.key", "ablation.settings"  # what a run, or an arm's summary, stands for
UNDER_WAY = ("RUNNING", "SCHEDULED")
IDENTITY = ("ablation.kind", "ablation.arm", "ablation.seed", KEY, SETTINGS)  # two runs with these alike are one


def place(root: Path) -> str:
    """The id of this folder, by which a command knows what was begun here, on whichever machine or in whichever container.

    It is that of the file that holds it, by its inode: a folder that is moved keeps it, a copy gets another one. The device's number is
    none of it, which a restart may change, and which differs between nodes that share the folder.
    """
    path = root / "place.json"
    with FileLock(root / "store.lock"):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            known = json.loads(path.read_text(encoding="utf-8"))
            if known["inode"] == path.stat().st_ino:
                return str(known["id"])
        identifier = uuid.uuid4().hex
        path.touch()
        path.write_text(json.dumps({"id": identifier, "inode": path.stat().st_ino}), encoding="utf-8")
        to_disk(path)
        return identifier


def earlier_place(root: Path) -> str:
    """How earlier versions named this machine and folder."""
    return f"{platform.node()}:{root.resolve()}"


def identity(run: Run) -> dict[str, str]:
    """The tags by which a run is found again."""
    return {"ablation.kind": "run", "ablation.arm": run.arm, "ablation.seed": str(run.seed), KEY: run.key}


def run_name(run: Run) -> tuple[str, ...]:
    """What `Registry.ids` calls a run."""
    return "run", run.arm, str(run.seed), run.used_key


class Registry:
    """The runs of one study in the store that this command goes on with.

    `ids` has the id of each, by ("plan", ""), ("summary", arm) or ("run", arm, seed, key); `unfinished` those that lack something still,
    with the params that they have already.
    """

    def __init__(self, store: Store, root: Path) -> None:
        self.store = store
        self.experiment = ""
        self.ids: dict[tuple[str, ...], str] = {}
        self.unfinished: dict[str, Mapping[str, str]] = {}
        self.before: set[str] = set()  # the ids of the runs that were finished when this command began
        self.begun: dict[str, Mapping[str, Any]] = {}  # the runs by id, as they were then, that were not finished, or lost their files
        self._looks_first = store.is_shared  # whether a run may be there already that is to be created
        self._absent: list[Mapping[str, str]] = []  # the identities of which no run was there just now
        self._is_atomic = False  # whether a transaction is under way
        self._is_careful = False  # whether the last one failed
        self._completed: dict[str, Mapping[str, str]] = {}  # in it: the params that runs had which then lacked nothing any more
        root.mkdir(parents=True, exist_ok=True)
        self._place, self._earlier_place = place(root), earlier_place(root)

    def is_ours(self, run: Mapping[str, Any]) -> bool:
        """Whether no other machine can be at the run: in a store of our own the lock says so, elsewhere it was begun here."""
        return not self.store.is_shared or run["tags"].get(PLACE, self._place) in (self._place, self._earlier_place)

    def drop_double(self, run: Mapping[str, Any]) -> None:
        """Delete a second record of a plan or an arm, as it is there after one was restored in MLflow; not in a store of others."""
        if not self.store.is_shared:
            self.store.delete(run["run_id"])

    @contextlib.contextmanager
    def transaction(self, *, is_new: bool = True) -> Iterator[None]:
        """Have all that is written meanwhile be there in the end or, where the store can, nothing of it, and nothing noted here.

        With `is_new`, or where `Store.missing` tells, nothing of it is there already; if it is, it fails, and the next one is careful.
        """
        before, self._completed = dict(self.ids), {}
        is_careful = self._is_careful or not (is_new or self.store.knows_points)
        try:
            with self.store.transaction(is_careful=is_careful) as self._is_atomic:
                yield
            self._is_careful = False
        except Exception:
            self._is_careful = True
            if self._is_atomic:
                self._forget(before)
            raise
        finally:
            self._is_atomic = False

    def _forget(self, before: dict[tuple[str, ...], str]) -> None:
        """Take back what was noted in the transaction, which may have come through all the same: `ids` are those from before it."""
        self._looks_first, self._absent = True, []
        made = set(self.ids.values()) - set(before.values())
        unfinished = self.unfinished | self._completed
        self.ids, self.unfinished = before, {run_id: has for run_id, has in unfinished.items() if run_id not in made}

    def complete(self, run_id: str) -> None:
        """Take note that the run lacks nothing any more of what is written at its beginning."""
        if run_id in self.unfinished:
            self._completed[run_id] = self.unfinished.pop(run_id)

    def run_id(self, name: tuple[str, ...], title: str, tags: Mapping[str, str], start: int) -> str:
        """The id of the run of that name in `ids`, which is created unless it is there."""
        if name not in self.ids:
            self.ids[name] = self._create(title, tags, start)
        return self.ids[name]

    def _create(self, title: str, tags: Mapping[str, str], start: int) -> str:
        """The id of a run with these tags: a new one, unless another machine, or a call whose answer was lost, has made it."""
        if self._looks_first and _identity(tags) not in self._absent and (known := self._same(tags)):
            self._drop_sent_twice(known[0], known)
            self.unfinished[known[0]["run_id"]] = known[0]["params"]
            return str(known[0]["run_id"])
        token = uuid.uuid4().hex
        try:
            run_id = self.store.create(self.experiment, title, {**tags, TOKEN: token, PLACE: self._place}, start)
        except Exception:
            self._looks_first = True  # it may be there all the same
            raise
        self.unfinished[run_id] = {}
        self._drop_sent_twice({"run_id": run_id, "tags": {TOKEN: token}}, self._same(tags) if self._is_alone else [])
        return run_id

    @property
    def _is_alone(self) -> bool:
        """Whether a run is made by a request of its own, which MLflow's client sends again if a server's answer is lost."""
        return self.store.is_shared and not self._is_atomic

    def _drop_sent_twice(self, kept: Mapping[str, Any], known: Sequence[Mapping[str, Any]]) -> None:
        """Delete those of the known runs that were made by the same request as the one that is kept."""
        for run in known:
            if run["tags"].get(TOKEN, "") == kept["tags"].get(TOKEN) and run["run_id"] != kept["run_id"]:
                self.store.delete(run["run_id"])

    def lacking(self, run_id: str, params: Mapping[str, str]) -> dict[str, str]:
        """The params that an unfinished run lacks: MLflow lets none be changed, and a folder of data may have moved since."""
        return {name: value for name, value in params.items() if name not in self.unfinished[run_id]}

    def is_of_another_attempt(self, run: Run, points: Sequence[Point], params: Mapping[str, str], began: int) -> bool:
        """Whether the run's record has something of an attempt that failed or was given up: no other points and params may stay in it.

        The points, and the params under `own/`, are those of the result; `began` is when that was begun, in milliseconds.
        """
        run_id = self.ids.get(run_name(run), "")
        before = self.begun.get(run_id, {"status": "", "tags": {}, "params": {}})
        if not run_id or (before["status"] in UNDER_WAY and not self.is_ours(before)):
            return False
        logged = {name: value for name, value in before["params"].items() if name.startswith("own/")}
        is_other = before["status"] == "FAILED" or not logged.items() <= texts.params(params).items()
        return is_other or self.store.has_points_beside(run_id, points, began)

    def give_up(self, run: Run) -> None:
        """Delete the run's record, so that a new one is begun."""
        run_id = self.ids[run_name(run)]
        self.store.delete(run_id)
        self.complete(run_id)
        del self.ids[run_name(run)]

    def is_known(self, run: Run) -> bool:
        """Whether there is a record of the run, which goes on."""
        return run_name(run) in self.ids

    def is_new(self, name: tuple[str, ...], tags: Mapping[str, str]) -> bool:
        """Whether it is known that nobody has begun a record of that name with these tags."""
        return name not in self.ids and (not self._looks_first or _identity(tags) in self._absent)

    def insert(self, runs: Mapping[tuple[str, ...], NewRun]) -> dict[tuple[str, ...], str]:
        """Create runs that are new, with all that is written at their beginning; the id of each, of none where the store cannot."""
        ours = [replace(run, tags={**run.tags, TOKEN: uuid.uuid4().hex, PLACE: self._place}) for run in runs.values()]
        ids = self.store.insert(self.experiment, ours) if ours else None
        made = dict(zip(runs, ids, strict=True)) if ids else {}
        self.ids |= made
        return made

    def look_for(self, tag: str, records: Sequence[Mapping[str, str]]) -> None:
        """Take note of those records, by their tags, which nobody has begun; `tag` is one of them, by which one question tells of all."""
        wanted = [_identity(tags) for tags in records]
        there = self.store.tag_values(self.experiment, tag, [tags[tag] for tags in wanted]) if self._looks_first else None
        self._absent = [] if there is None else [tags for tags in wanted if tags[tag] not in there]

    def done_elsewhere(self, run: Run) -> Mapping[str, Any] | None:
        """The record of the run where another machine has finished it meanwhile; one of our own is given up for it."""
        if not self.store.is_shared or identity(run) in self._absent:
            return None
        known = [one for one in self._same(identity(run)) if self.begun.get(one["run_id"], {}).get("status") != LOST]
        self._absent += [] if known else [identity(run)]
        if not known or known[0]["status"] != "FINISHED":
            return None
        own = self.ids.get(run_name(run), known[0]["run_id"])
        if own != known[0]["run_id"]:
            self.store.delete(own)
            self.ids[run_name(run)] = known[0]["run_id"]
        return known[0]

    def finished_before(self, run: Run) -> list[dict[str, Any]]:
        """The records of the run that were finished when this command began, without those of other machines."""
        known = self.store.find(self.experiment, identity(run)) if self.before else []
        return [one for one in known if one["run_id"] in self.before and self.is_ours(one)]

    def _same(self, tags: Mapping[str, str]) -> list[dict[str, Any]]:
        """The runs of the same identity that were not finished when this command began, finished ones first."""
        known = self.store.find(self.experiment, _identity(tags))
        return sorted((run for run in known if run["run_id"] not in self.before), key=lambda run: run["status"] != "FINISHED")


def _identity(tags: Mapping[str, str]) -> dict[str, str]:
    return {name: tags[name] for name in IDENTITY if name in tags}
