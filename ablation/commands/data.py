"""`ablate data`: what was found in a study's data, without training."""

import json
from collections.abc import Mapping
from typing import Any

from rich.console import Console

from ablation.commands.exit_codes import DONE
from ablation.commands.options import Options
from ablation.commands.session import Session
from ablation.formatting import listed, table


def data(options: Options, *, as_json: bool) -> int:
    """Print the account of each data set that the study's arms use, decoded first if need be."""
    session = Session(options, Console(stderr=True))
    accounts = session.preparation.planner.data(session.arms, session.seeds[0])
    if as_json:
        print(json.dumps({"study": session.study.name, "data": accounts}, indent=1))
    else:
        print("\n\n".join(_text(account, len(accounts)) for account in accounts))
    return DONE


def _text(account: Mapping[str, Any], num_accounts: int) -> str:
    arms = f"of {listed(account['arms'])}\n" if num_accounts > 1 else ""
    findings = [f"note: {finding['sentence']}" for finding in account["findings"]]
    nothing = "nothing odd: no two images with equal pixels, no odd values or sizes, every class in every split"
    return "\n\n".join([arms + account["summary"], _class_table(account), "\n".join(findings or [nothing])])


def _class_table(account: Mapping[str, Any]) -> str:
    """The images of each class in each split, and all of them."""
    counts: Mapping[str, list[int]] = account["counts"]
    rows = [[name, *(f"{per_class[c]:,}" for per_class in counts.values())] for c, name in enumerate(account["classes"])]
    return table(["class", *counts], [*rows, ["all", *(f"{sum(per_class):,}" for per_class in counts.values())]])
