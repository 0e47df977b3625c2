"""`ablate data`: what was found in a study's data, without training."""

import json
from collections.abc import Mapping
from typing import Any

from rich.console import Console

from ablation.commands.exit_codes import DONE
from ablation.commands.options import Options
from ablation.commands.session import Session
from ablation.formatting import listed, size, table
from ablation.tasks.own.definition import DataPath
from ablation.tasks.own.task import OwnTraining

KNOWN_BY = {"content": "the content of each file", "listing": "the names, sizes and times of its files"}
NOTHING_ODD = (
    "nothing odd: no two images with equal pixels (a JPEG is compared with other JPEGs alone), "
    "no odd values or sizes, every class in every split"
)


def data(options: Options, *, as_json: bool) -> int:
    """Print the account of each data set that the study's arms use, decoded first if need be."""
    session = Session(options, Console(stderr=True))
    if isinstance(session.task, OwnTraining):
        return _declared(session.task, session.study.name, as_json=as_json)
    accounts = session.preparation.planner.data(session.arms, session.seeds[0])
    if as_json:
        print(json.dumps({"study": session.study.name, "data": accounts}, indent=1))
    else:
        print("\n\n".join(_text(account, len(accounts)) for account in accounts))
    return DONE


def _declared(task: OwnTraining, study: str, *, as_json: bool) -> int:
    """Print the data that one's own training code declares, and by what they are known again."""
    items = task.definition.data if task.definition else ()
    if as_json:
        print(json.dumps({"study": study, "data": [{"path": str(item.path), "by": item.by} for item in items]}, indent=1))
    elif items:
        print(table(["declared data", "known again by", "files", "size"], [_declared_row(item) for item in items], left=2))
    else:
        print("no data are declared, so a change of them is not seen; task: {..., data: [PATH]} declares them")
    return DONE


def _declared_row(item: DataPath) -> list[str]:
    files = [path for path in item.path.rglob("*") if path.is_file()] if item.path.is_dir() else [item.path]
    if not item.path.exists():
        return [str(item.path), KNOWN_BY[item.by], "missing", ""]
    return [str(item.path), KNOWN_BY[item.by], f"{len(files):,}", size(sum(path.stat().st_size for path in files))]


def _text(account: Mapping[str, Any], num_accounts: int) -> str:
    arms = f"of {listed(account['arms'])}\n" if num_accounts > 1 else ""
    findings = [f"note: {finding['sentence']}" for finding in account["findings"]]
    return "\n\n".join([arms + account["summary"], _class_table(account), "\n".join(findings or [NOTHING_ODD])])


def _class_table(account: Mapping[str, Any]) -> str:
    """The images of each class in each split, and all of them."""
    counts: Mapping[str, list[int]] = account["counts"]
    rows = [[name, *(f"{per_class[c]:,}" for per_class in counts.values())] for c, name in enumerate(account["classes"])]
    return table(["class", *counts], [*rows, ["all", *(f"{sum(per_class):,}" for per_class in counts.values())]])
