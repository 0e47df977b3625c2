"""`executors.yaml`: the sites where a study can be carried out, each with its engine and how to ask for its machines."""

import os
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ablation.errors import ConfigError, unknown_name
from ablation.study.yamlfile import read
from ablation.techniques.setting_errors import to_config_error

FILE = "executors.yaml"
Words = dict[str, str | int | float | bool]


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
    sbatch: Words = {}


class BatchSite(Site):
    """Another batch system, by its commands; `{script}`, `{parts}` (`1-8` or `3`), `{name}`, `{output}` and `{job}` are filled in."""

    kind: Literal["batch"]
    submit: str  # prints the job's id in the end
    list: str  # prints the jobs that wait or run
    cancel: str
    part: str = "PBS_ARRAY_INDEX"  # the variable with the number of the part
    takes_many: bool = True  # whether one `submit` takes several parts, as an array


class RaySite(Site):
    """A Ray cluster: its address, or `auto` for the one of this machine."""

    kind: Literal["ray"]
    address: str = "auto"


SITES: dict[str, type[SlurmSite] | type[BatchSite] | type[RaySite]] = {"slurm": SlurmSite, "batch": BatchSite, "ray": RaySite}


def find_site(name: str, study: Path) -> SlurmSite | BatchSite | RaySite:
    """The site of that name in `executors.yaml` beside the study, or else in the user's folder of settings; raises ConfigError.

    `slurm` is a site without settings, if the file has none of that name.
    """
    for folder in (study.resolve().parent, _user_folder()):
        if (folder / FILE).is_file():
            sites = {key: _site(key, value) for key, value in read(folder / FILE).items()}
            if name in sites:
                return sites[name]
            if name != "slurm":
                raise unknown_name("--executor", "executor", name, ["local", "ray", "slurm", *sites])
    if name == "slurm":
        return SlurmSite()
    expected = f"expected local, ray, slurm, or a site of {FILE} beside the study or in {_user_folder()}, and there is none"
    raise ConfigError("--executor", f"unknown executor {name!r}; {expected}")


def _site(name: str, settings: Any) -> SlurmSite | BatchSite | RaySite:
    place = f"{FILE}: {name}"
    if not isinstance(settings, dict):
        raise ConfigError(place, f"found {settings!r}; expected a mapping such as {{kind: slurm, parts: 8}}")
    kind = settings.get("kind", "slurm")
    if kind not in SITES:
        raise unknown_name(f"{place}.kind", "kind of executor", str(kind), SITES)
    try:
        return SITES[kind].model_validate({"kind": kind, **settings})
    except ValidationError as error:
        raise to_config_error(error, SITES[kind], place) from None


def _user_folder() -> Path:
    """The user's folder of settings."""
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "ablate"
