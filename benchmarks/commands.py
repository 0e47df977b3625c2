"""Times whole commands as a user sees them, in an empty folder, and writes the figures with hardware and date.

Usage: python benchmarks/commands.py   (about five minutes; nothing else should run meanwhile)
"""

import json
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

HERE = Path(__file__).resolve().parent
STUDY = HERE.parent / "experiments.yaml"
THOUSAND = """
study: thousand
seeds: [{seeds}]
base: {{data: digits, model: test_efficientnet, epochs: 4}}
ladder: {{baseline: {{}}}}
sweeps: {{lr: {{over: {{optimizer.lr: [{rates}]}}}}}}
"""
PLAN_THOUSAND = """
import time
from pathlib import Path
from rich.console import Console
from ablation.commands.options import Options
from ablation.commands.session import Session
session = Session(Options(Path("thousand.yaml"), device="cpu"), Console(stderr=True))
session.plan([], probe=False)  # decodes the data
began = time.perf_counter()
plan = Session(Options(Path("thousand.yaml"), device="cpu"), Console(stderr=True)).plan([], probe=False)
print(len(plan.runs), time.perf_counter() - began)
"""


def timed(*arguments: str, folder: Path) -> tuple[float, str]:
    """Seconds that a Python command took, and what it printed; a command that fails ends the benchmark."""
    began = time.perf_counter()
    done = subprocess.run([sys.executable, *arguments], cwd=folder, capture_output=True, text=True, check=True)
    return time.perf_counter() - began, done.stdout


def measure(folder: Path) -> dict[str, float]:
    """Seconds of each command."""
    ablate, quick = ("-m", "ablation"), (str(STUDY), "--profile", "quick")
    seconds_by_command = {"--help": min(timed(*ablate, "--help", folder=folder)[0] for _ in range(3))}
    seconds_by_command["run --profile quick, all arms, two seeds"] = timed(*ablate, "run", *quick, "--device", "cpu", folder=folder)[0]
    seconds_by_command["the same again"] = timed(*ablate, "run", *quick, "--device", "cpu", folder=folder)[0]
    seconds_by_command["plan --profile quick"] = timed(*ablate, "plan", *quick, "--device", "cpu", folder=folder)[0]
    seconds_by_command["report of its 140 runs, with figures"] = timed(*ablate, "report", *quick, "--output", "report", folder=folder)[0]
    rates = ", ".join(f"{(i + 1) * 1e-4:.4f}" for i in range(199))
    (folder / "thousand.yaml").write_text(THOUSAND.format(seeds="0, 1, 2, 3, 4", rates=rates))
    num_runs, seconds = timed("-c", PLAN_THOUSAND, folder=folder)[1].split()
    seconds_by_command[f"plan for {num_runs} runs, after imports"] = float(seconds)
    return seconds_by_command


def hardware() -> str:
    """The processor and the cores that may be used."""
    from ablation.running.recorder.provenance import provenance
    from ablation.training.device_option import num_cores

    return f"{provenance(HERE)['hardware']}, {num_cores()} usable"


def main() -> None:
    """Measure, print a table, and keep the figures."""
    with tempfile.TemporaryDirectory() as folder:
        seconds_by_command = measure(Path(folder))
    now = datetime.now(UTC)
    result = {
        "date": now.isoformat(timespec="seconds"),
        "hardware": hardware(),
        "command": "python benchmarks/commands.py",
        "seconds": seconds_by_command,
    }
    target = HERE / "results" / f"commands-{now:%Y-%m-%d}.json"
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print("| what | seconds |\n|---|---:|\n" + "\n".join(f"| {name} | {seconds:.1f} |" for name, seconds in seconds_by_command.items()))
    print(f"\n{result['hardware']}, {result['date']}; written to {target.relative_to(HERE.parent)}")


if __name__ == "__main__":
    main()
