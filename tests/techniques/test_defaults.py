"""The defaults of techniques, from their classes and from the disk."""

import json
from types import SimpleNamespace

import pytest

from ablation.techniques import defaults
from ablation.techniques.defaults import field_defaults
from ablation.techniques.technique import FAMILIES, family


@pytest.mark.parametrize("family_name", FAMILIES)
def test_the_kept_defaults_are_those_of_the_classes(family_name, tmp_path, monkeypatch):
    """Each field's default as plain data, whether its module is imported or its defaults come from the disk."""
    monkeypatch.setenv("ABLATE_CACHE", str(tmp_path / "cache"))
    classes = dict(family(family_name).techniques)
    imported = {name: field_defaults(family_name, name) for name in classes}
    for name, technique in classes.items():
        fields = {field: about.default for field, about in technique.model_fields.items() if not about.is_required()}
        assert {field: imported[name][field] for field in fields} == json.loads(json.dumps(fields))
        assert not {field for field, about in technique.model_fields.items() if about.is_required()} & set(imported[name])
    monkeypatch.setattr(defaults, "sys", SimpleNamespace(modules={}))  # as in a process that has imported none of them
    for _ in range(2):
        assert {name: field_defaults(family_name, name) for name in classes} == imported
        monkeypatch.setattr(defaults, "_of_family", None)  # the second time they come from the disk


def test_a_name_that_is_none_has_no_defaults():
    """Unless the family takes any name, as that of models does."""
    assert field_defaults("losses", "module:Own") == {}
    assert field_defaults("models", "resnet50")["image_size"] == 224
