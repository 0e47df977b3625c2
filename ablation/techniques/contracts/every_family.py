"""What techniques of all families promise, and what those promise that compute with tensors."""

import pickle

import torch
from pydantic import TypeAdapter, ValidationError

from ablation.errors import ConfigError
from ablation.techniques.contracts.contract import ContractError, Spec, contract, expect
from ablation.techniques.contracts.inputs import CALLS, call, inputs
from ablation.techniques.technique import FAMILIES, family, make, technique_name


@contract(*FAMILIES)
def makes_equal_techniques(family_name: str, spec: Spec) -> None:
    """The same settings make equal techniques, and a bare name is a mapping with that name alone."""
    mapping = {"name": spec} if isinstance(spec, str) else dict(spec)
    expect(make(family_name, spec) == make(family_name, mapping), "two techniques of the same settings differ")


@contract(*FAMILIES)
def is_frozen_and_hashable(family_name: str, spec: Spec) -> None:
    """A technique cannot be changed, and equal ones are one key."""
    technique = make(family_name, spec)
    try:
        technique.name = "other"
    except ValidationError:
        expect({technique: 1}.get(make(family_name, spec)) == 1, "equal techniques have different hashes")
        return
    raise ContractError("its settings can be changed")


@contract(*FAMILIES)
def refuses_unknown_fields(family_name: str, spec: Spec) -> None:
    """A misspelt field is told with its dotted path."""
    fields = {"name": spec} if isinstance(spec, str) else dict(spec)
    try:
        make(family_name, {**fields, "no_such_field": 1}, "base.thing")
    except ConfigError as error:
        expect(error.path == "base.thing.no_such_field", f"the error names {error.path!r}; expected 'base.thing.no_such_field'")
        return
    raise ContractError("it takes a field that it does not have")


@contract(*FAMILIES)
def is_made_again_by_its_settings(family_name: str, spec: Spec) -> None:
    """The dumped settings, tuples as lists too, make an equal technique."""
    technique = make(family_name, spec)
    for mode in ("python", "json"):
        settings = technique.model_dump(by_alias=True, mode=mode)
        expect(make(family_name, settings) == technique, f"its settings {settings} make another technique")


@contract(*FAMILIES)
def can_be_sent_to_a_worker(family_name: str, spec: Spec) -> None:
    """A technique goes through pickle, by which worker processes get it."""
    technique = make(family_name, spec)
    expect(pickle.loads(pickle.dumps(technique)) == technique, "what comes out of pickle differs")


@contract(*FAMILIES)
def has_a_schema(family_name: str, spec: Spec) -> None:
    """The settings can be described as JSON schema, by the name of the class."""
    technique_class = type(make(family_name, spec))
    name = TypeAdapter(technique_class).json_schema()["properties"]["name"]
    is_unlisted = technique_class is family(family_name).any_name
    expect(is_unlisted or name.get("const") == technique_name(technique_class), f"its name is {name}")


@contract(*CALLS)
def leaves_its_inputs_alone(family_name: str, spec: Spec) -> None:
    """No input tensor is changed."""
    tensors = inputs()
    call(family_name, make(family_name, spec), tensors)
    for name, before in inputs().items():
        expect(torch.equal(tensors[name], before), f"{name} was changed")


# Samplers work on the host; a classifier may have to switch autocast off, which that device does not have.
@contract(*(name for name in CALLS if name not in ("samplers", "classifiers")))
def never_asks_the_device_for_a_value(family_name: str, spec: Spec) -> None:
    """The whole computation runs on a device that has shapes but no values, so that a GPU never has to wait for the host."""
    for result in call(family_name, make(family_name, spec), inputs("meta")):
        expect(result.device.type == "meta", f"a result is on the {result.device.type} when its inputs are not")


@contract("augmentations", "mixing", "samplers")
def depends_on_the_generator_alone(family_name: str, spec: Spec) -> None:
    """Equal generators give equal results, whatever torch's global one has drawn."""
    first_results = call(family_name, make(family_name, spec), inputs())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(12345)
        second_results = call(family_name, make(family_name, spec), inputs())
    are_equal = all(torch.equal(first, second) for first, second in zip(first_results, second_results, strict=True))
    expect(are_equal, "equal generators gave different results")
