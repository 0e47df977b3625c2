"""Studies of one's own training code, written for a test: a tiny function, or a script that imports nothing heavy."""

import contextlib
import importlib
import sys
from pathlib import Path

import yaml

from ablation.system import code
from ablation.tasks.images import keys
from ablation.techniques import technique

FUNCTION = '''
"""Training code of a test: a score that depends on the settings and the seed."""

from helper import scale


def train(run, *, width: int = 4, lr: float = 0.1, fault: str = "none"):
    """The scores of six items, and their mean."""
    split = run.seed_for("split")
    items = [f"item {(split + 7 * i) % 100}" for i in range(6)]
    errors = [scale(width) + lr + (run.seed * 31 + i * 17) % 13 / 100 for i in range(6)]
    for step in (1, 2):
        run.log(step, {"val/loss": 1 / step + lr})
    run.items(items, {"test/mae": errors})
    return {"test/mae": sum(errors) / 6, "val/mae": scale(width) + run.seed / 100}
'''
HELPER = '''
"""What the training code uses, and what it does not."""


def scale(width):
    """Smaller for larger widths."""
    return 1 / width


def unused():
    """Nobody calls it."""
    return 3
'''
SCRIPT = '''
"""Training code of a test that knows nothing of ablate."""

import argparse

parser = argparse.ArgumentParser()
parser.add_argument("--seed", type=int)
parser.add_argument("--width", type=int)
parser.add_argument("--lr", type=float)
parser.add_argument("--fast", action="store_true")
args = parser.parse_args()
for epoch in (1, 2):
    print(f"epoch {epoch} val_loss={1 / epoch + args.lr}")
print("final mae", 1 / args.width + args.lr + args.seed % 7 / 50)
print("validation mae", 1 / args.width + args.seed / 100)
'''
METRICS = {"test/mae": {"better": "lower", "margin": 0.05}, "val/mae": {"better": "lower"}}
PRINTED = {
    "test/mae": {"better": "lower", "margin": 0.05, "from": "final mae ([0-9.]+)"},
    "val/mae": {"better": "lower", "from": "validation mae ([0-9.]+)"},
}
ARMS = {
    "ladder": {"baseline": {}, "wide": {"width": 8}, "slow": {"lr": 0.05}},
    "sweeps": {"rate": {"over": {"lr": [0.2, 0.4]}, "choose": "val/mae"}},
    "drop_one": ["slow"],
}


def write_function(folder, text=FUNCTION, name="fun", **sections):
    """The file of a study of a function, with its code beside it."""
    (folder / "own_training.py").write_text(text, encoding="utf-8")
    (folder / "helper.py").write_text(HELPER, encoding="utf-8")
    return _write(folder, name, {"task": "own_training:train", "metrics": METRICS, "seeds": [0, 1]} | (sections or ARMS))


def write_command(folder, text=SCRIPT, name="com", **sections):
    """The file of a study of a command, with its script beside it."""
    (folder / "script.py").write_text(text, encoding="utf-8")
    task = {"command": f"{sys.executable} script.py --seed {{seed}} {{args}}", "code": ["script.py"]}
    curves = {"step": "epoch ([0-9]+)", "val/loss": "val_loss=([0-9.]+)"}
    base = {"width": 4, "lr": 0.1, "fast": False}
    return _write(folder, name, {"task": task, "metrics": PRINTED, "curves": curves, "seeds": [0, 1], "base": base} | (sections or ARMS))


def _write(folder, name, sections):
    file = Path(folder) / f"{name}.yaml"
    file.write_text(yaml.safe_dump({"study": name, **sections}, sort_keys=False, width=1000), encoding="utf-8")
    return file


ROOT = Path(__file__).parent.parent


@contextlib.contextmanager
def imports_undone():
    """No code is allowed until --allow-code; what is imported by it is forgotten afterwards, also its code."""
    path, modules, permission = list(sys.path), set(sys.modules), technique._PERMISSION.is_given
    technique._PERMISSION.is_given = False
    try:
        yield
    finally:
        sys.path[:] = path
        technique._PERMISSION.is_given = permission
        for name in set(sys.modules) - modules:
            file = getattr(sys.modules[name], "__file__", None) or ""
            if not any(file.startswith(prefix) for prefix in (sys.prefix, sys.base_prefix, str(ROOT / "ablation"), str(ROOT / "tests"))):
                del sys.modules[name]
        importlib.invalidate_caches()
        for module in (code, keys):
            for function in vars(module).values():
                getattr(function, "cache_clear", lambda: None)()
