"""`executors.yaml`: the sites where a study can be carried out, each with its engine and how to ask for its machines."""

import os
import shlex
from collections.abc import Mapping
from pathlib import Path
from string import Formatter
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from ablation.errors import ConfigError, unknown_name
from ablation.study.yamlfile import read
from ablation.techniques.setting_errors import to_config_error

FILE = "executors.yaml"
OURS = frozenset({"array", "output", "error", "parsable", "wrap"})  # options of sbatch that ablate gives itself
NOT_SITES = ("local",)  # executors without settings, of whose names no site may be


def _free(options: dict[str, str | int | float | bool]) -> dict[str, str | int | float | bool]:
    if taken := OURS & options.keys():
        raise ValueError(f"no {', no '.join(sorted(taken))}, which ablate gives itself")
    return options


def _template(*names: str) -> AfterValidator:
    """Text that is a command, in which only these names stand in braces."""

    def check(text: str) -> str:
        found = {name for _, name, _, _ in Formatter().parse(text) if name is not None}
        if not shlex.split(text) or found - set(names):
            raise ValueError("a command, in which only " + ", ".join(f"{{{name}}}" for name in names) + " stand in braces")
        return text

    return AfterValidator(check)


Job = Annotated[str, _template("job")]


class Site(BaseModel):
    """What all sites have."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)
    parts: Annotated[int, Field(ge=1)] = 4  # how many jobs share the study
    device: str = "auto"  # of each part, as --device
    device_name: str = ""  # the class of device there, where it is another than that of the machine that submits
    capability: Annotated[str, Field(pattern=r"^\d+\.\d+$")] = "8.0"  # of a GPU there, with `device_name`
    jobs: Annotated[int, Field(ge=0)] = 0  # runs at once on a device, as --jobs; 0: as many as is worth while
    setup: list[str] = []  # lines of shell before each part, such as `module load cuda`
    python: str = ""  # the interpreter there; by default the one that submits
    poll: Annotated[float, Field(ge=1)] = 15.0  # seconds between two questions to the queue


class SlurmSite(Site):
    """A cluster with Slurm; `sbatch` holds its options by their long names."""

    kind: Literal["slurm"] = "slurm"
    sbatch: Annotated[dict[str, str | int | float | bool], AfterValidator(_free)] = {}


class BatchSite(Site):
    """Another batch system, by its commands; `{script}`, `{parts}` (`1-8` or `3`), `{name}`, `{output}` and `{job}` are filled in."""

    kind: Literal["batch"]
    submit: Annotated[str, _template("script", "parts", "name", "output")]  # prints the job's id
    list: Job  # prints the jobs that wait or run
    cancel: Job
    part: str = "PBS_ARRAY_INDEX"  # the variable with the number of the part
    takes_many: bool = True  # whether one `submit` takes several parts, as an array


class RaySite(BaseModel):
    """A Ray cluster: its address, or `auto` for the one that was begun on this machine."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)
    kind: Literal["ray"] = "ray"
    address: str = "auto"
    device_name: str = ""  # as for other sites
    capability: Annotated[str, Field(pattern=r"^\d+\.\d+$")] = "8.0"
    jobs: Annotated[int, Field(ge=0)] = 0  # runs at once on each GPU, or each node without GPUs, as --jobs


SITES: dict[str, type[SlurmSite] | type[BatchSite] | type[RaySite]] = {"slurm": SlurmSite, "batch": BatchSite, "ray": RaySite}

# Without settings, if the file has none of that name.
UNWRITTEN: dict[str, SlurmSite | RaySite] = {"slurm": SlurmSite(), "ray": RaySite(address="")}


def site_of(executor: str, study: Path) -> SlurmSite | BatchSite | RaySite | None:
    """The site of an executor; None for processes of this machine."""
    return None if executor == "local" else find_site(executor, study)


def find_site(name: str, study: Path) -> SlurmSite | BatchSite | RaySite:
    """The site of that name in `executors.yaml` beside the study, or else in the user's folder of settings; raises ConfigError.

    `slurm` and `ray` are sites without settings, if no file has one of that name.
    """
    folders = [_user_folder(), study.resolve().parent]
    sites = UNWRITTEN | {key: site for folder in folders for key, site in _sites(folder / FILE).items()}
    if name not in sites:
        error = unknown_name("--executor", "executor", name, [*NOT_SITES, *sites])
        where = f" Sites are named in {FILE}, beside the study or in {folders[0]}."
        raise ConfigError(error.path, error.problem + where)
    return sites[name]


def _sites(file: Path) -> Mapping[str, SlurmSite | BatchSite | RaySite]:
    """The sites of a file; none if there is no such file."""
    return (
        {name: _site(name, settings) for name, settings in read(file, "names of sites, such as lab: {kind: slurm}").items()}
        if file.exists()
        else {}
    )


def _site(name: str, settings: Any) -> SlurmSite | BatchSite | RaySite:
    place = f"{FILE}: {name}"
    if name in NOT_SITES:
        raise ConfigError(place, f"found a site of the name of an executor; expected another name than {' and '.join(NOT_SITES)}")
    if not isinstance(settings, dict):
        raise ConfigError(place, f"found {settings!r}; expected a mapping such as {{kind: slurm, parts: 8}}")
    kind = settings.get("kind", "slurm")
    if not isinstance(kind, str) or kind not in SITES:
        raise unknown_name(f"{place}.kind", "kind of executor", str(kind), SITES)
    try:
        return SITES[kind].model_validate({"kind": kind, **settings})
    except ValidationError as error:
        raise to_config_error(error, SITES[kind], place) from None


def _user_folder() -> Path:
    """The user's folder of settings."""
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "ablate"
