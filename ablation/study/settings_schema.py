"""What a study's file may set for a kind of work."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from ablation.techniques.technique import Nested, Technique


@dataclass(frozen=True)
class SettingsSchema:
    """What a study's file may set for a kind of work."""

    settings: type[Technique]  # everything that an arm sets
    stage_options: type[Technique]  # the options of a stage beside settings
    whole_arm: tuple[str, ...]  # the settings that no stage may change
    required: Mapping[str, str]  # setting that a base must have -> what is expected there
    paths: tuple[tuple[str, str], ...]  # (setting, field) of file paths, which are relative to the file
    choices: tuple[str, ...]  # the metrics by which a sweep may choose a point, as the file's `choose` names them
    metrics: tuple[str, ...] = ()  # the test metrics by which a study may go, as the file's `metric` names them
    class_metrics: tuple[str, ...] = ()  # those that each class has: recall, as in recall/cat
    inner_families: Mapping[str, str] = field(default_factory=dict)  # path of a technique within a technique -> its family

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the settings."""
        return tuple(field.alias or name for name, field in self.settings.model_fields.items())

    @property
    def arm_keys(self) -> tuple[str, ...]:
        """What an arm may set: settings, and stages where these have options."""
        return (*self.names, *(("stages",) if self.option_names else ()))

    @property
    def option_names(self) -> tuple[str, ...]:
        """The names of a stage's options beside settings."""
        return tuple(self.stage_options.model_fields)

    @property
    def families(self) -> dict[str, str]:
        """path of a technique in the settings -> its family."""
        family_by_path = {
            name: nested.family
            for name, field in self.settings.model_fields.items()
            for nested in field.metadata
            if isinstance(nested, Nested)
        }
        return family_by_path | dict(self.inner_families)
