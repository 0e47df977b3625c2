"""`ablate init`: studies to start from, which are those of the repository."""

import os
import re
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from ablation.cli import cli
from ablation.study.config import load
from ablation.study.resolving import load_study
from ablation.study.templates import TEMPLATES, code_text, text
from ablation.techniques.technique import allow_code
from tests.own import imports_undone

ROOT = Path(__file__).parent.parent.parent
OWN = {
    "own-images": "studies/own-images.yaml",
    "cifar10-lt": "studies/cifar10-lt.yaml",
    "reports": "experiments.yaml",
    "own-function": "studies/own/diabetes.yaml",
    "own-command": "studies/own/lm.yaml",
}
IMAGES = [name for name, template in TEMPLATES.items() if not template.code]
OF_CODE = [name for name, template in TEMPLATES.items() if template.code]


@pytest.mark.parametrize("name", TEMPLATES)
def test_the_repository_has_the_same_studies(name, monkeypatch):
    """Each of the repository's files is what `ablate init NAME --output FILE` writes there, letter by letter."""
    monkeypatch.chdir(ROOT)
    assert text(name, Path(OWN[name]), ROOT) == (ROOT / OWN[name]).read_text(encoding="utf-8")


@pytest.mark.parametrize("name", TEMPLATES)
def test_every_profile_of_a_written_study_loads(ablate, name):
    """All arms of all profiles resolve, and the profile that is told next is one of them."""
    done = ablate("init", name)
    assert (done.status, done.out) == (0, "")
    file = ablate.folder / "experiments.yaml"
    profiles = load(file).profiles
    assert re.search(r"--profile (\S+)", done.err)[1] in profiles
    with imports_undone():
        allow_code()  # for those that need it: --allow-code stands in their commands
        for profile in (None, *profiles):
            assert load_study(file, profile).arms


def test_a_study_of_own_images_can_be_planned_once_they_are_there(ablate):
    """Without a name it is one of own images; with images in their folders the command that is told next plans it."""
    assert "Written to experiments.yaml: your own images" in ablate("init").err
    generator = np.random.default_rng(0)
    for name, number in (("cat", 30), ("dog", 40)):
        (ablate.folder / "images" / name).mkdir(parents=True)
        for i in range(number):
            pixels_HWC = generator.integers(0, 255, (70, 70, 3), dtype=np.uint8)
            Image.fromarray(pixels_HWC).save(ablate.folder / "images" / name / f"{i}.png")
    planned = ablate("plan", "experiments.yaml", "--profile", "try")
    assert planned.status == 0, planned.err
    assert planned.out.startswith("own-images.try: 9 arms x 1 seed = 9 runs (9 to do)\n")
    assert ["images", "cat", "dog"] in [line.split() for line in planned.out.splitlines()]


def test_no_file_is_overwritten(ablate):
    """A file that is there stays as it is; the message says how to name another."""
    (ablate.folder / "experiments.yaml").write_text("mine")
    refused = ablate("init", "reports")
    assert refused.status == 2
    assert (
        refused.err
        == "error: --output: found experiments.yaml, which is there already; expected a new file, such as --output studies/mine.yaml\n"
    )
    assert (ablate.folder / "experiments.yaml").read_text() == "mine"


def test_paths_start_at_the_file(ablate):
    """Where the file lies in another folder, its images are still those of this one, and its comments name it."""
    assert ablate("init", "own-images", "--output", os.path.join("a", "b c.yaml")).err.count("'a/b c.yaml'") == 4
    written = (ablate.folder / "a" / "b c.yaml").read_text(encoding="utf-8")
    assert "root: ../images," in written
    assert load_study(ablate.folder / "a" / "b c.yaml").arms[0].settings.data.root == "../images"
    assert "#   ablate plan 'a/b c.yaml'\n" in written


@pytest.mark.parametrize("name", OF_CODE)
def test_the_repository_has_the_same_code(name):
    """The code beside a study is the repository's, letter by letter."""
    code = ROOT / Path(OWN[name]).parent / TEMPLATES[name].code
    assert code_text(name) == code.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", OF_CODE)
def test_code_is_written_beside_the_study(ablate, name):
    """Both are told, and the commands that come next allow the code to run."""
    done, code = ablate("init", name, "--output", "a/mine.yaml"), TEMPLATES[name].code
    assert done.err.startswith(f"Written to a/mine.yaml and a/{code}: ")
    assert (ablate.folder / "a" / code).read_text(encoding="utf-8") == code_text(name)
    commands = [line for line in done.err.splitlines() if line.startswith("  ablate ") and "a/mine.yaml" in line]
    assert len(commands) == 4
    assert all("--allow-code" in command for command in commands)


@pytest.mark.parametrize("name", OF_CODE)
def test_no_code_is_overwritten(ablate, name):
    """A file of that name stays as it is, which is told."""
    code = ablate.folder / TEMPLATES[name].code
    code.write_text("mine")
    assert f"\n{code.name} was there already, and stays as it is.\n" in ablate("init", name).err
    assert code.read_text() == "mine"


@pytest.mark.parametrize("name", IMAGES)
@pytest.mark.parametrize("folder", ["my dir", "my, {data}", 'it"s: #1', "b\\c", "~"])
def test_any_folder_can_be_named_in_the_file(tmp_path, monkeypatch, name, folder):
    """The images' folder is read back from the written file, whatever letters its path has."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "studies").mkdir()
    file = Path("studies", "study.yaml")
    file.write_text(text(name, file, tmp_path / folder), encoding="utf-8")
    root = {"own-images": "images"}.get(name, "data")
    assert load_study(file).arms[0].settings.data.root == f"../{folder}/{root}"


def test_an_unknown_name_is_told_with_those_that_there_are(ablate):
    """The choice is one sentence, as everywhere, and the same as in the help."""
    refused = ablate("init", "own-image")
    assert (refused.status, len(refused.err.splitlines())) == (2, 1)
    assert "expected one of cifar10-lt, own-command, own-function, own-images, reports. Did you mean 'own-images'?" in refused.err
    assert not (ablate.folder / "experiments.yaml").exists()
    shown = re.sub(r"-\n +", "-", CliRunner().invoke(cli, ["init", "--help"]).output)  # click breaks lines after a dash
    assert f"[{'|'.join(TEMPLATES)}]" in shown
