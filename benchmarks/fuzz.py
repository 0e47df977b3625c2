"""Feeds damaged and invented study files to the loader, guided by which lines of it they reach, and counts what is no error of ours.

Usage: python benchmarks/fuzz.py [--inputs N] [--seconds S] [--seed K]   (100,000 inputs if neither is given; needs atheris)
"""

import argparse
import contextlib
import copy
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).resolve().parent
STUDIES = [HERE.parent / "experiments.yaml", *sorted((HERE.parent / "studies").glob("*.yaml"))]
MAX_LENGTH = 6000  # bytes of an input
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
KEYS = """
of label note published over choose stages epochs train head start restart loss mix sampler augment data model optimizer schedule average
tta posthoc classifier select name a groups margin keep seeds conditions profiles drop_one add_one grid rungs sweeps variants code
"""
VALUES = """
[null, true, false, 0, 1, 2, -1, 0.5, -0.0, 1.0e+308, .nan, .inf, 9223372036854775808, "", " ", none, a, b, v, w/0.1, ../x, "*", "0.10", 猫,
 "\\u202e", digits, focal, cutmix, test_efficientnet, [], {}, [[]], [{}], [null], {"": ""}, {name: none}, {name: focal}, {epochs: 1},
 {over: {epochs: [1, 2]}}, {a: {of: a}}, {of: v}, {code: "x.py:Y"}, {name: ldam, max_margin: 0}, {data: {name: digits, validation: 0.5}}]
"""
TWO, DIGITS = "{data: digits, model: test_efficientnet, epochs: 2", "{name: digits, longtail: {name: linear, largest: 30, smallest: 10}}"
SMALL = (
    f"study: s\nseeds: [0, 1]\nbase: {TWO}}}\nladder: {{a: {{}}, b: {{loss: focal}}}}\n",
    f"study: s\nseeds: [0]\nbase: &b {TWO}}}\nladder: {{a: {{}}}}\n"
    "variants: {v: {of: a, optimizer: {name: sgd, lr: 1e-1}, average: {name: ema}}}\n",
    "study: s\nseeds: [0]\nbase: {data: {name: digits, validation: 0.2}, model: test_efficientnet, epochs: 2}\nladder: {a: {}}\n"
    "sweeps: {w: {over: {optimizer.lr: [0.1, .2], loss: [focal, {name: balanced_softmax}]}, of: a, choose: val/accuracy}}\n"
    "conditions: {c: {epochs: 3}}\nprofiles: {quick: {seeds: [0], base: {epochs: 1}}}\n",
    f"study: s\nseeds: [0]\nbase: {{data: {DIGITS}, model: test_efficientnet, epochs: 4, augment: [hflip]}}\n"
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
    for i, text in enumerate((*SMALL, *(path.read_text(encoding="utf-8") for path in STUDIES))):
        (corpus / f"seed-{i}").write_text(text, encoding="utf-8")


def _fuzz(atheris: object, folder: Path) -> None:
    """Load inputs until libFuzzer has enough; every kind of exception that is not ours is kept once, with the input that made it."""
    with atheris.instrument_imports(include=["ablation", "yaml"]):  # type: ignore[attr-defined]
        from ablation.errors import AblateError
        from ablation.study.resolving import load_study
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

    def mutate(content: bytes, max_size: int, seed: int) -> bytes:
        changed = _as_tree(content, random.Random(seed)) if seed % 2 else b""
        return changed if 0 < len(changed) <= max_size else bytes(atheris.Mutate(content, max_size))  # type: ignore[attr-defined]

    atheris.Setup([sys.argv[0], *sys.argv[3:]], try_one, custom_mutator=mutate)  # type: ignore[attr-defined]
    with contextlib.redirect_stdout(open(os.devnull, "w")):
        atheris.Fuzz()  # type: ignore[attr-defined]


def _as_tree(content: bytes, chance: random.Random) -> bytes:
    """The study with one value changed, moved or taken out; nothing where the input is no YAML. Bytes changed at random seldom are."""
    try:
        tree = yaml.safe_load(content)
        places = list(_places(tree))
        for _ in range(chance.randint(1, 3)):
            inside, key = chance.choice(places)
            if chance.random() < 0.2:
                inside.pop(key)
                break  # the other places may be gone
            other, name = chance.choice(places)
            inside[key] = _value(chance) if chance.random() < 0.5 else copy.deepcopy(other[name])
            if isinstance(inside, dict) and chance.random() < 0.3:
                inside[chance.choice(KEYS.split())] = _value(chance)
        return yaml.safe_dump(tree, sort_keys=False, allow_unicode=True).encode()
    except (yaml.YAMLError, ValueError, TypeError, IndexError, KeyError, RecursionError, AttributeError, OverflowError):
        return b""


@cache
def _values() -> list[Any]:
    return list(yaml.safe_load(VALUES))


def _value(chance: random.Random) -> Any:
    return copy.deepcopy(chance.choice(_values()))


def _places(tree: object) -> Iterator[tuple[Any, Any]]:
    """Every value below, as what holds it and its key there."""
    pairs = list(tree.items()) if isinstance(tree, dict) else list(enumerate(tree)) if isinstance(tree, list) else []
    for key, value in pairs:
        yield tree, key
        yield from _places(value)


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
