"""Feeds damaged and invented study files to the loader, guided by which lines of it they reach, and counts what is no error of ours.

Usage: python benchmarks/fuzz.py [--inputs N] [--seconds S] [--seed K]   (100,000 inputs if neither is given; needs atheris)
"""

import argparse
import contextlib
import json
import os
import re
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parent
STUDIES = [HERE.parent / "experiments.yaml", *sorted((HERE.parent / "studies").glob("*.yaml"))]
MAX_LENGTH = 4096  # bytes of an input
MOST_SECONDS = 10  # for one input; longer is a finding
WORDS = (
    "<<: *b",
    "&b ",
    "*b",
    "!!int ",
    "null",
    "true",
    ".nan",
    ".inf",
    "1e400",
    "-1",
    "[]",
    "{}",
    "? ",
    "- ",
    ": ",
    "published",
    "choose",
)
SMALL = (
    "study: s\nseeds: [0, 1]\nbase: {data: digits, model: test_efficientnet, epochs: 2}\nladder: {a: {}, b: {loss: focal}}\n",
    "study: s\nseeds: [0]\nbase: &b {data: digits, epochs: 2}\nladder: {a: {}}\nvariants: {v: {of: a, optimizer: {name: sgd, lr: 1e-1}}}\n",
    "study: s\nbase: {data: digits, epochs: 2}\nsweeps: {w: {over: {optimizer.lr: [0.1, .2], loss: [focal, {name: ldam}]}, of: a}}\n"
    "ladder: {a: {}}\nconditions: {c: {epochs: 3}}\nprofiles: {quick: {seeds: [0], base: {epochs: 1}}}\n",
    "study: s\nseeds: [0]\nbase: {data: {name: digits, longtail: {name: linear, largest: 30, smallest: 10}}, epochs: 4, augment: [hflip]}\n"
    "ladder: {a: {}, b: {mix: mixup}, c: {stages: [{epochs: 2}, {epochs: 2, train: head}]}}\ndrop_one: [c]\ngrid: {rungs: [b, c]}\n",
)


def main() -> None:
    """Fuzz in a process of its own, which libFuzzer ends as it likes, then print and keep what it found."""
    options = _options()
    try:
        import atheris
    except ImportError:
        print("atheris is not installed, and this needs it: pip install atheris, on Linux", file=sys.stderr)
        sys.exit(2)
    if options.child:
        _fuzz(atheris, Path(options.child))
        return
    with tempfile.TemporaryDirectory() as folder:
        _seeds(Path(folder) / "corpus")
        began = time.perf_counter()
        done = subprocess.run(_command(options, folder), cwd=folder, capture_output=True, text=True, errors="replace", check=False)
        seconds = time.perf_counter() - began
        findings = sorted((Path(folder) / "findings").glob("*"))
        _tell(folder, findings, done, seconds)
    sys.exit(1 if findings or done.returncode else 0)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--inputs", type=int, default=0, help="how many files are tried")
    parser.add_argument("--seconds", type=int, default=0, help="for how long at most")
    parser.add_argument("--seed", type=int, default=1, help="of the fuzzer's random numbers")
    parser.add_argument("--child", default="", help=argparse.SUPPRESS)
    options, _ = parser.parse_known_args()  # the child's further words are libFuzzer's
    if not options.inputs and not options.seconds:
        options.inputs = 100_000
    return options


def _command(options: argparse.Namespace, folder: str) -> list[str]:
    limits = [f"-runs={options.inputs}"] * bool(options.inputs) + [f"-max_total_time={options.seconds}"] * bool(options.seconds)
    fixed = [
        f"-seed={options.seed}",
        f"-max_len={MAX_LENGTH}",
        f"-timeout={MOST_SECONDS}",
        "-rss_limit_mb=4096",
        "-print_final_stats=1",
        f"-dict={folder}/words",
    ]
    return [sys.executable, str(Path(__file__).resolve()), "--child", folder, *limits, *fixed, f"{folder}/corpus"]


def _seeds(corpus: Path) -> None:
    """Write the files that the fuzzer begins with, and the words of which it makes others."""
    corpus.mkdir()
    words = {word for text in SMALL for word in re.findall(r"[a-z_.]+", text)} | set(WORDS)
    corpus.with_name("words").write_text("".join(f'"{word}"\n' for word in sorted(words)), encoding="utf-8")
    for i, text in enumerate((*SMALL, *(path.read_text(encoding="utf-8")[:MAX_LENGTH] for path in STUDIES))):
        (corpus / f"seed-{i}").write_text(text, encoding="utf-8")


def _fuzz(atheris: object, folder: Path) -> None:
    """Load inputs until libFuzzer has enough; every kind of exception that is not ours is kept once, with the input that made it."""
    with atheris.instrument_imports(include=["ablation", "yaml"]):  # type: ignore[attr-defined]
        from ablation.errors import AblateError
        from ablation.matrix import load_study
    findings, file = folder / "findings", folder / "study.yaml"
    findings.mkdir()
    counts = {"studies": 0, "refused": 0, "crashed": 0}

    def try_one(content: bytes) -> None:
        file.write_bytes(content)
        try:
            load_study(file)
            counts["studies"] += 1
        except AblateError as error:
            counts["refused"] += 1
            if "\n" in str(error).strip() or not str(error).strip():
                _keep(findings, "not-one-sentence", content, str(error))
        except Exception as error:
            counts["crashed"] += 1
            _keep(findings, _place(error), content, traceback.format_exc())
        if sum(counts.values()) % 500 == 0:
            (folder / "counts.json").write_text(json.dumps(counts))

    atheris.Setup([sys.argv[0], *sys.argv[3:]], try_one)  # type: ignore[attr-defined]
    with contextlib.redirect_stdout(open(os.devnull, "w")):
        atheris.Fuzz()  # type: ignore[attr-defined]


def _place(error: Exception) -> str:
    """Where an exception came from, as a file's name."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}-{Path(last.filename).stem}-{last.lineno}"


def _keep(findings: Path, name: str, content: bytes, told: str) -> None:
    if not (findings / f"{name}.yaml").exists():
        (findings / f"{name}.yaml").write_bytes(content)
        (findings / f"{name}.txt").write_text(told, encoding="utf-8", errors="backslashreplace")


def _tell(folder: str, findings: list[Path], done: "subprocess.CompletedProcess[str]", seconds: float) -> None:
    """Print the figures, and copy what was found beside the results."""
    counts = json.loads((Path(folder) / "counts.json").read_text()) if (Path(folder) / "counts.json").exists() else {}
    stats = dict(_stats(done.stderr))
    num_inputs = int(stats.get("number_of_executed_units", sum(counts.values())))
    print(f"{num_inputs:,} inputs in {seconds:.0f} s, {num_inputs / seconds:.0f} a second; of the inputs counted {counts}")
    print(f"coverage-guided by atheris; new inputs kept: {stats.get('new_units_added', '?')}; exit status {done.returncode}")
    kept = HERE / "results" / "fuzz-findings"
    for path in findings:
        kept.mkdir(parents=True, exist_ok=True)
        (kept / path.name).write_bytes(path.read_bytes())
        if path.suffix == ".txt":
            print(f"\n{path.stem}:\n{path.read_text(encoding='utf-8').rstrip()}")
    if done.returncode:
        print(done.stderr[-3000:], file=sys.stderr)
    print(f"\n{len(findings) // 2} findings" + (f", in {kept}" if findings else ""))


def _stats(told: str) -> Iterator[tuple[str, str]]:
    """What libFuzzer counted, by name."""
    for line in told.splitlines():
        if line.startswith("stat::"):
            name, _, value = line.removeprefix("stat::").partition(":")
            yield name, value.strip()


if __name__ == "__main__":
    main()
