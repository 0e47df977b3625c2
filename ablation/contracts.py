"""What every technique of a family promises, as checks that built-ins and a user's own techniques are held to alike.

Shapes: N or B images, C classes or channels, F features, H height, W width, V views.
"""

import copy
import math
import pickle
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor, nn

from ablation.errors import AblateError, ConfigError
from ablation.techniques.technique import FAMILIES, family, make, technique_name

Spec = str | Mapping[str, Any]  # a technique as a study's file writes it
Test = Callable[[str, Spec], None]
NUM_CLASSES = 3
PRIOR = (30.0, 20.0, 10.0)  # training images per class


class ContractError(AblateError):
    """What a technique does against its family's promises, in one sentence."""


@dataclass(frozen=True)
class Contract:
    """One promise: what it says, the families that give it, and the test, which raises where it is broken."""

    name: str
    families: tuple[str, ...]
    test: Test


@dataclass(frozen=True)
class Result:
    """How one technique keeps one promise."""

    name: str
    passed: bool
    message: str = ""


CONTRACTS: list[Contract] = []


def contract(*families: str) -> Callable[[Test], Test]:
    """Marks a test as a promise of these families; its docstring is what it says."""

    def added(test: Test) -> Test:
        CONTRACTS.append(Contract(str(test.__doc__).rstrip("."), families, test))
        return test

    return added


def checks(family_name: str) -> list[Contract]:
    """The promises of a family."""
    return [one for one in CONTRACTS if family_name in one.families]


def check(family_name: str, spec: Spec) -> Iterator[Result]:
    """How the technique that a YAML form stands for keeps each promise; raises ConfigError where it cannot be made at all."""
    make(family_name, spec)
    for one in checks(family_name):
        try:
            one.test(family_name, spec)
        except Exception as error:  # a user's code may raise anything
            yield Result(one.name, passed=False, message=_why(error))
        else:
            yield Result(one.name, passed=True)


def report(results: Iterable[Result]) -> str:
    """One line for each promise: kept, or broken and why."""
    return "\n".join(f"passed  {one.name}" if one.passed else f"BROKEN  {one.name}: {one.message}" for one in results)


def _why(error: Exception) -> str:
    if isinstance(error, ContractError):
        return str(error)
    last = traceback.extract_tb(error.__traceback__)[-1]
    told = (str(error).splitlines() or [""])[0]
    return f"{type(error).__name__}: {told} ({Path(last.filename).name}, line {last.lineno})"


def expect(holds: object, problem: str) -> None:
    """Raises ContractError where something does not hold."""
    if not holds:
        raise ContractError(problem)


# --- inputs --------------------------------------------------------------------------------------------------------------------


def inputs(device: str = "cpu") -> dict[str, Tensor]:
    """Six images of three classes and what comes with them; `labels_N` are those of a training set of five."""
    generator = torch.Generator().manual_seed(0)
    made = {
        "images_BCHW": torch.rand(6, 3, 8, 10, generator=generator),
        "others_BCHW": torch.rand(6, 3, 8, 10, generator=generator),
        "logits_BC": torch.randn(6, NUM_CLASSES, generator=generator),
        "targets_BC": torch.eye(NUM_CLASSES)[torch.tensor([0, 1, 2, 0, 0, 1])],
        "others_BC": torch.eye(NUM_CLASSES)[torch.tensor([2, 2, 1, 0, 2, 1])],
        "counts_C": torch.tensor(PRIOR),
        "tail_C": torch.tensor([False, False, True]),
        "labels_N": torch.tensor([0, 0, 1, 2, 1]),
        "features_NF": torch.rand(5, 4, generator=generator),
        "features_BF": torch.rand(6, 4, generator=generator),
    }
    return {name: tensor.to(device) for name, tensor in made.items()}


def seeded(seed: int = 1) -> torch.Generator:
    """A CPU generator."""
    return torch.Generator().manual_seed(seed)


def moved(tables: Mapping[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    """The tables on the device."""
    return {name: table.to(device) for name, table in tables.items()}


# --- one call of each family -----------------------------------------------------------------------------------------------------


def call(family_name: str, technique: Any, given: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
    """What a technique computes of the inputs, on their device."""
    return CALLS[family_name](technique, given)


def _augmented(technique: Any, given: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
    images_BCHW = given["images_BCHW"]
    if technique.works_on == "resize":
        return (technique.resize(images_BCHW, 16),)
    return (technique(images_BCHW, moved(technique.draw(seeded(), len(images_BCHW)), images_BCHW.device)),)


def _cost(technique: Any, given: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
    state = moved(technique.state(NUM_CLASSES, seeded()), given["logits_BC"].device)
    technique.advance(state, given["targets_BC"])
    sampled_C = torch.ones_like(given["counts_C"])
    plain = technique(given["logits_BC"], given["targets_BC"], given["counts_C"], sampled_C)
    return plain, technique(given["logits_BC"], given["targets_BC"], given["counts_C"], sampled_C, state)


def _mixed(technique: Any, given: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
    from ablation.techniques.mixing import Classes

    size, device = len(given["images_BCHW"]), given["images_BCHW"].device
    rows = {name: table[1] for name, table in moved(technique.draw(seeded(), 4, size), device).items()}
    second = (given["others_BCHW"], given["others_BC"]) if technique.second is not None else None
    classes = Classes(given["counts_C"], given["tail_C"])
    return tuple(technique(given["images_BCHW"], given["targets_BC"], rows, classes, second))


def _looked(technique: Any, given: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
    logits_VBC = torch.stack([given["logits_BC"]] * len(technique.views()))
    return technique.combine(logits_VBC), *(view(given["images_BCHW"]) for view in technique.views())


def _adjusted(technique: Any, given: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
    return (_fitted(technique)(given["logits_BC"], given["counts_C"]),)


def _fitted(technique: Any) -> Any:
    """The technique with its number fitted, where it needs that."""
    scores_NC = torch.tensor([[2.0, 1.0, 0.0], [0.0, 3.0, 1.0], [1.0, 0.0, 0.5], [0.0, 1.0, 2.0]])
    return technique.fitted(scores_NC, torch.tensor([0, 1, 2, 2])) if technique.needs_validation else technique


def _scored(technique: Any, given: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
    return (_layer(technique).to(given["features_BF"].device)(given["features_BF"]),)


def _layer(technique: Any) -> nn.Module:
    """The classifier in the place of a linear layer from four features to three classes."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layer: nn.Module = technique(nn.Linear(4, NUM_CLASSES))
    return layer


CALLS: dict[str, Callable[[Any, Mapping[str, Tensor]], tuple[Tensor, ...]]] = {
    "augmentations": _augmented,
    "class_weights": lambda technique, given: (technique(given["counts_C"]),),
    "classifiers": _scored,
    "losses": _cost,
    "mixing": _mixed,
    "posthoc": _adjusted,
    "samplers": lambda technique, given: (technique(given["labels_N"], NUM_CLASSES, 0, 10, seeded()),),
    "smoothing": lambda technique, given: (technique(given["targets_BC"], given["counts_C"]),),
    "tta": _looked,
}


# --- all families --------------------------------------------------------------------------------------------------------------


@contract(*FAMILIES)
def makes_equal_techniques(family_name: str, spec: Spec) -> None:
    """The same settings make equal techniques, and a bare name is a mapping with that name alone."""
    again = {"name": spec} if isinstance(spec, str) else dict(spec)
    expect(make(family_name, spec) == make(family_name, again), "two techniques of the same settings differ")


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
        dumped = technique.model_dump(by_alias=True, mode=mode)
        expect(make(family_name, dumped) == technique, f"its settings {dumped} make another technique")


@contract(*FAMILIES)
def can_be_sent_to_a_worker(family_name: str, spec: Spec) -> None:
    """A technique goes through pickle, by which worker processes get it."""
    technique = make(family_name, spec)
    expect(pickle.loads(pickle.dumps(technique)) == technique, "what comes out of pickle differs")


@contract(*FAMILIES)
def has_a_schema(family_name: str, spec: Spec) -> None:
    """The settings can be described as JSON schema, by the name of the class."""
    kind = type(make(family_name, spec))
    name = TypeAdapter(kind).json_schema()["properties"]["name"]
    expect(kind is family(family_name).any_name or name.get("const") == technique_name(kind), f"its name is {name}")


@contract(*CALLS)
def leaves_its_inputs_alone(family_name: str, spec: Spec) -> None:
    """No input tensor is changed."""
    given = inputs()
    call(family_name, make(family_name, spec), given)
    for name, before in inputs().items():
        expect(torch.equal(given[name], before), f"{name} was changed")


# Samplers work on the host; a classifier may have to switch autocast off, which that device does not have.
@contract(*(name for name in CALLS if name not in ("samplers", "classifiers")))
def never_asks_the_device_for_a_value(family_name: str, spec: Spec) -> None:
    """The whole computation runs on a device that has shapes but no values, so that a GPU never has to wait for the host."""
    for result in call(family_name, make(family_name, spec), inputs("meta")):
        expect(result.device.type == "meta", f"a result is on the {result.device.type} when its inputs are not")


@contract("augmentations", "mixing", "samplers")
def depends_on_the_generator_alone(family_name: str, spec: Spec) -> None:
    """Equal generators give equal results, whatever torch's global one has drawn."""
    first = call(family_name, make(family_name, spec), inputs())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(12345)
        again = call(family_name, make(family_name, spec), inputs())
    expect(all(torch.equal(a, b) for a, b in zip(first, again, strict=True)), "equal generators gave different results")


# --- losses --------------------------------------------------------------------------------------------------------------------


@contract("losses")
def hard_labels_cost_what_losses_says(family_name: str, spec: Spec) -> None:
    """For one image with a hard label, the loss is `losses_BC` at that label."""
    technique, given = make(family_name, spec), inputs()
    losses_BC = technique.losses_BC(given["logits_BC"], given["counts_C"])
    expect(losses_BC.shape == (6, NUM_CLASSES), f"losses_BC has the shape {tuple(losses_BC.shape)}; expected one cost per image and class")
    for b in range(6):
        for c in range(NUM_CLASSES):
            one = technique(given["logits_BC"][b : b + 1], torch.eye(NUM_CLASSES)[c : c + 1], given["counts_C"])
            expect(
                _close(one, losses_BC[b, c]), f"the loss of one image of class {c} is {one:.6f}, and losses_BC has {losses_BC[b, c]:.6f}"
            )


@contract("losses")
def soft_targets_are_the_weighted_mean(family_name: str, spec: Spec) -> None:
    """Under soft targets the loss is the sum of target * weight * cost over the sum of target * weight."""
    technique, given = make(family_name, spec), inputs()
    targets_BC = torch.rand(6, NUM_CLASSES, generator=seeded())
    shares_BC = targets_BC * technique.weights(given["counts_C"])
    expected = (shares_BC * technique.losses_BC(given["logits_BC"], given["counts_C"])).sum() / shares_BC.sum()
    found = technique(given["logits_BC"], targets_BC, given["counts_C"])
    expect(found.shape == (), f"the loss has the shape {tuple(found.shape)}; expected one number")
    expect(_close(found, expected), f"the loss is {found:.6f}; expected {expected:.6f}")


@contract("losses")
def extreme_logits_stay_finite(family_name: str, spec: Spec) -> None:
    """Logits of 80 and -80 give a finite loss and a finite gradient."""
    technique, given = make(family_name, spec), inputs()
    for scale in (80.0, -80.0, 0.0):
        logits_BC = (scale * (2 * given["targets_BC"] - 1)).requires_grad_()
        value = technique(logits_BC, given["targets_BC"].roll(1, 0) / 2 + given["targets_BC"] / 2, given["counts_C"])
        (gradient_BC,) = torch.autograd.grad(value, logits_BC)
        expect(value.isfinite(), f"the loss is {value:g} for logits of {scale}")
        expect(gradient_BC.isfinite().all(), f"its gradient is no finite number for logits of {scale}")


class _Held(torch.overrides.TorchFunctionMode):
    """Gives what was detached in the first pass again in later ones: what a loss detaches is a constant of its gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.held: list[Tensor] = []
        self.next = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func is not torch.Tensor.detach:
            return result
        if self.next == len(self.held):
            self.held.append(result.clone())
        self.next += 1
        return self.held[self.next - 1]


@contract("losses")
def has_the_gradient_of_its_value(family_name: str, spec: Spec) -> None:
    """The gradient agrees with finite differences in float64, what is detached being held fixed."""
    technique, given = make(family_name, spec), inputs()
    targets_BC = torch.rand(6, NUM_CLASSES, generator=seeded(), dtype=torch.float64)
    logits_BC = given["logits_BC"].double().requires_grad_()
    held = _Held()

    def value(logits_BC: Tensor) -> Tensor:
        held.next = 0
        with held:
            loss: Tensor = technique(logits_BC, targets_BC, given["counts_C"])
        return loss

    value(logits_BC)
    try:
        torch.autograd.gradcheck(value, (logits_BC,))
    except RuntimeError as error:
        raise ContractError("its gradient is not that of its value; what is meant as a constant has to be detached") from error


@contract("losses")
def carries_a_state_of_fixed_shape(family_name: str, spec: Spec) -> None:
    """What a loss carries from step to step is made on the CPU and changed in place; None and {} stand for no step yet."""
    technique, given = make(family_name, spec), inputs()
    state = technique.state(NUM_CLASSES, seeded())
    expect(all(tensor.device.type == "cpu" for tensor in state.values()), "the state is not made on the CPU")
    before = dict(state)  # which keeps the tensors alive: a new one must not be taken for a freed one
    shapes = {name: (tensor.shape, tensor.dtype) for name, tensor in state.items()}
    for _ in range(2):
        technique.advance(state, given["targets_BC"])
    same = state.keys() == before.keys() and all(state[name] is tensor for name, tensor in before.items())
    expect(same, "advance puts other tensors into the state; expected the same ones with other values")
    after = {name: (tensor.shape, tensor.dtype) for name, tensor in state.items()}
    expect(shapes == after, f"advance changes the state's shapes or types from {shapes} to {after}")
    without = technique(given["logits_BC"], given["targets_BC"], given["counts_C"], None, None)
    empty = technique(given["logits_BC"], given["targets_BC"], given["counts_C"], None, {})
    expect(torch.equal(without, empty), f"no state gives {without:.6f} and an empty one {empty:.6f}")


def _close(found: Tensor, expected: Tensor) -> bool:
    return torch.allclose(found.double(), expected.double(), rtol=1e-5, atol=1e-6)


# --- class weights and smoothing -------------------------------------------------------------------------------------------------


@contract("class_weights")
def weighs_every_class(family_name: str, spec: Spec) -> None:
    """Each class has a positive, finite weight in float32."""
    weights_C = make(family_name, spec)(torch.tensor([1000.0, 10.0, 1.0]))
    expect(weights_C.shape == (NUM_CLASSES,) and weights_C.dtype == torch.float32, f"found {weights_C}; expected three float32 numbers")
    expect(bool((weights_C.isfinite() & (weights_C > 0)).all()), f"found {weights_C.tolist()}; expected numbers above 0")


@contract("smoothing")
def keeps_the_sum_of_targets(family_name: str, spec: Spec) -> None:
    """Each row of targets keeps its sum, also where all classes are of one size, and has no number below 0."""
    technique = make(family_name, spec)
    for counts_C in (torch.tensor(PRIOR), torch.full((NUM_CLASSES,), 10.0)):
        for targets_BC in (torch.eye(NUM_CLASSES), torch.rand(4, NUM_CLASSES, generator=seeded()).softmax(1)):
            smoothed_BC = technique(targets_BC, counts_C)
            expect(smoothed_BC.shape == targets_BC.shape, f"the targets have the shape {tuple(smoothed_BC.shape)}")
            expect((smoothed_BC >= 0).all(), f"a target is {smoothed_BC.min():.6f}; expected 0 or more")
            sums_B = smoothed_BC.sum(1)
            expect(_close(sums_B, torch.ones_like(sums_B)), f"rows of targets sum to {sums_B.tolist()}; expected 1")


# --- samplers and mixings --------------------------------------------------------------------------------------------------------


@contract("samplers")
def draws_as_many_images_as_there_are(family_name: str, spec: Spec) -> None:
    """An epoch has as many positions as there are training images, each of an image, so that no arm trains for more updates."""
    technique = make(family_name, spec)
    for labels_N in (torch.tensor([0, 0, 1, 2, 1]), torch.tensor([0, 1, 2]), torch.tensor([0, 0, 2, 2, 2])):
        for epoch in (0, 9):
            chosen_N = technique(labels_N, NUM_CLASSES, epoch, 10, seeded())
            expect(chosen_N.dtype == torch.int64, f"positions are of {chosen_N.dtype}; expected torch.int64")
            expect(chosen_N.shape == labels_N.shape, f"found {tuple(chosen_N.shape)} positions of {len(labels_N)} images")
            expect(bool(((chosen_N >= 0) & (chosen_N < len(labels_N))).all()), f"found the positions {chosen_N.tolist()}")


@contract("samplers")
def tells_its_probabilities(family_name: str, spec: Spec) -> None:
    """`probabilities_C` are float64 chances that sum to 1, with 0 for a class that has no images."""
    technique = make(family_name, spec)
    for counts_C in (torch.tensor([300, 20, 1]), torch.tensor([300.0, 0.0, 20.0]), torch.tensor([7, 7, 7])):
        for epoch, num_epochs in ((0, 1), (0, 10), (9, 10)):
            p_C = technique.probabilities_C(counts_C, epoch, num_epochs)
            expect(p_C.dtype == torch.float64, f"probabilities are of {p_C.dtype}; expected torch.float64")
            expect(abs(float(p_C.sum()) - 1) < 1e-9 and bool((p_C >= 0).all()), f"found {p_C.tolist()} for {counts_C.tolist()} images")
            expect(not p_C[counts_C == 0].any(), "a class without images has a chance")


@contract("samplers")
def draws_by_its_probabilities(family_name: str, spec: Spec) -> None:
    """The classes' shares of an epoch are `probabilities_C`, up to chance."""
    technique, counts_C = make(family_name, spec), torch.tensor([6000, 3000, 1000])
    labels_N = torch.repeat_interleave(torch.arange(NUM_CLASSES), counts_C)
    for epoch in (0, 9):
        chosen_N = technique(labels_N, NUM_CLASSES, epoch, 10, seeded())
        shares_C = torch.bincount(labels_N[chosen_N], minlength=NUM_CLASSES).double() / len(labels_N)
        p_C = technique.probabilities_C(counts_C, epoch, 10)
        far_C = (shares_C - p_C).abs() > 6 * (p_C * (1 - p_C) / len(labels_N)).sqrt() + 1e-9
        expect(not far_C.any(), f"epoch {epoch} has the shares {shares_C.tolist()}, and probabilities_C says {p_C.tolist()}")


@contract("mixing")
def keeps_shapes_and_sums(family_name: str, spec: Spec) -> None:
    """Images keep their shape, and each row of targets its sum, also in a batch of one."""
    technique = make(family_name, spec)
    for size in (6, 1):
        given = {name: tensor[:size] if "_B" in name else tensor for name, tensor in inputs().items()}
        images_BCHW, targets_BC = call(family_name, technique, given)
        expect(images_BCHW.shape == given["images_BCHW"].shape, f"images have the shape {tuple(images_BCHW.shape)}")
        expect(images_BCHW.dtype == given["images_BCHW"].dtype, f"images are of {images_BCHW.dtype}")
        expect(targets_BC.shape == given["targets_BC"].shape, f"targets have the shape {tuple(targets_BC.shape)}")
        expect(_close(targets_BC.sum(1), torch.ones(size)), f"rows of targets sum to {targets_BC.sum(1).tolist()}; expected 1")
        expect(bool((targets_BC >= 0).all()), "a target is below 0")


@contract("mixing")
def draws_one_row_per_batch(family_name: str, spec: Spec) -> None:
    """Every table of a mixing has a row for each batch of the epoch, and the loop can ask whether an epoch is mixed."""
    technique = make(family_name, spec)
    lengths = {name: len(table) for name, table in technique.draw(seeded(), 5, 4).items()}
    expect(all(length == 5 for length in lengths.values()), f"the tables for 5 batches have {lengths} rows")
    expect(isinstance(technique.is_on(0, 10), bool), f"is_on says {technique.is_on(0, 10)!r}; expected True or False")


# --- augmentations -------------------------------------------------------------------------------------------------------------


@contract("augmentations")
def draws_one_row_per_image(family_name: str, spec: Spec) -> None:
    """Every table of an augmentation has a row for each image of the epoch."""
    lengths = {name: len(table) for name, table in make(family_name, spec).draw(seeded(), 7).items()}
    expect(all(length == 7 for length in lengths.values()), f"the tables for 7 images have {lengths} rows")


@contract("augmentations")
def gives_images_back(family_name: str, spec: Spec) -> None:
    """Images keep their shape (a resizing gives the asked one) and type, are finite, and pixels stay between 0 and 1."""
    technique, given = make(family_name, spec), inputs()
    expect(technique.works_on in ("pixels", "resize", "input"), f"works_on is {technique.works_on!r}; expected pixels, resize or input")
    (images_BCHW,) = call(family_name, technique, given)
    expected = (6, 3, 16, 16) if technique.works_on == "resize" else tuple(given["images_BCHW"].shape)
    expect(tuple(images_BCHW.shape) == expected, f"images have the shape {tuple(images_BCHW.shape)}; expected {expected}")
    expect(images_BCHW.dtype == torch.float32 and images_BCHW.isfinite().all(), "images are no finite float32 numbers")
    low, high = float(images_BCHW.min()), float(images_BCHW.max())
    expect(technique.works_on == "input" or (low >= 0 and high <= 1), f"pixels go from {low} to {high}; expected 0 to 1")


@contract("augmentations")
def treats_each_image_alone(family_name: str, spec: Spec) -> None:
    """What becomes of an image depends on its own rows, and not on the others of the batch."""
    technique, images_BCHW = make(family_name, spec), inputs()["images_BCHW"]
    if technique.works_on == "resize":
        together, alone = technique.resize(images_BCHW, 16), [technique.resize(images_BCHW[i : i + 1], 16) for i in range(6)]
    else:
        draws = technique.draw(seeded(), 6)
        rows = [{name: table[i : i + 1] for name, table in draws.items()} for i in range(6)]
        together, alone = technique(images_BCHW, draws), [technique(images_BCHW[i : i + 1], rows[i]) for i in range(6)]
    expect(torch.allclose(together, torch.cat(alone), rtol=0, atol=1e-6), "an image alone becomes another than in a batch")


# --- optimizers, schedules, averages ---------------------------------------------------------------------------------------------


@contract("optimizers")
def follows_the_rate_of_its_groups(family_name: str, spec: Spec) -> None:
    """A step goes down the gradient at the rate that its groups are given, and nowhere at the rate 0."""
    for rate in (0.0, 1e-3):
        parameter = nn.Parameter(torch.tensor([1.0, -2.0]))
        optimizer = make(family_name, spec)([parameter])
        for group in optimizer.param_groups:
            group["lr"] = rate
        _step(optimizer, parameter)
        moved_by = (parameter.detach() - torch.tensor([1.0, -2.0])) * torch.tensor([1.0, -1.0])
        expect(
            bool((moved_by < 0).all() if rate else (moved_by == 0).all()), f"at the rate {rate} the weights moved by {moved_by.tolist()}"
        )


@contract("optimizers")
def goes_on_from_its_state(family_name: str, spec: Spec) -> None:
    """Loading the saved state goes on as if there had been no break."""
    technique = make(family_name, spec)
    parameter = nn.Parameter(torch.tensor([1.0, -2.0]))
    optimizer = technique([parameter])
    _step(optimizer, parameter)
    copied = nn.Parameter(parameter.detach().clone())
    again = technique([copied])
    again.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    _step(optimizer, parameter)
    _step(again, copied)
    expect(torch.equal(parameter, copied), f"with a break the weights are {copied.tolist()}, and without one {parameter.tolist()}")


def _step(optimizer: torch.optim.Optimizer, parameter: nn.Parameter) -> None:
    optimizer.zero_grad()
    parameter.square().sum().backward()  # type: ignore[no-untyped-call]
    optimizer.step()


@contract("schedules")
def gives_rates(family_name: str, spec: Spec) -> None:
    """Every epoch's rate is finite and not below 0, and stays as it is once the span is over."""
    technique = make(family_name, spec)
    for span in (1, 2, 30):
        rates = [technique(epoch, span, 0.1) for epoch in range(span + 3 + _warm_up(technique))]
        expect(all(math.isfinite(rate) and rate >= 0 for rate in rates), f"the rates over {span} epochs are {rates}")
        expect(len(set(rates[-3:])) == 1, f"after its span of {span} the rates are {rates[-3:]}; expected one")


def _warm_up(technique: Any) -> int:
    return int(getattr(technique, "warmup_epochs", 0))


@contract("averages")
def keeps_a_share(family_name: str, spec: Spec) -> None:
    """The initial weights' share is between 0 and 1 and never grows; each update's decay is between 0 and 1."""
    technique = make(family_name, spec)
    shares = [technique.remaining(num_updates) for num_updates in (0, 1, 10, 1000, 10**6)]
    expect(all(0 <= share <= 1 for share in shares), f"the shares are {shares}")
    expect(shares == sorted(shares, reverse=True), f"the shares {shares} grow")
    decays = [technique.decay_at(update) for update in (1, 2, 10, 1000)]
    expect(all(0 <= decay <= 1 for decay in decays), f"the decays are {decays}")
    expect(isinstance(technique.averages, bool), f"averages is {technique.averages!r}; expected True or False")


@contract("averages")
def moves_by_its_decay(family_name: str, spec: Spec) -> None:
    """An update makes, in place, decay * average + (1 - decay) * weights, and copies what counts in whole numbers."""
    technique = make(family_name, spec)
    averaged, weights = [torch.tensor([1.0, 2.0]), torch.tensor(3)], [torch.tensor([5.0, -2.0]), torch.tensor(7)]
    decay = technique.decay_at(4)
    technique.update(averaged, weights, 4)
    expected = decay * torch.tensor([1.0, 2.0]) + (1 - decay) * torch.tensor([5.0, -2.0])
    expect(_close(averaged[0], expected), f"the average is {averaged[0].tolist()}; expected {expected.tolist()}")
    expect(int(averaged[1]) == 7, f"a count is {int(averaged[1])}; expected 7, the weights' own")
    expect(weights[0].tolist() == [5.0, -2.0], "the weights were changed")


# --- classifiers, post-hoc techniques, views -------------------------------------------------------------------------------------


@contract("classifiers")
def is_a_layer(family_name: str, spec: Spec) -> None:
    """The layer gives each image a finite score per class, from features of zeros too, and has something to learn."""
    technique, given = make(family_name, spec), inputs()
    layer = _layer(technique)
    expect(isinstance(layer, nn.Module), f"found {layer!r}; expected a torch.nn.Module")
    expect(any(parameter.requires_grad for parameter in layer.parameters()), "it has no parameter that learns")
    for features_BF in (given["features_BF"], torch.zeros(6, 4)):
        scores_BC = layer(features_BF.requires_grad_())
        expect(scores_BC.shape == (6, NUM_CLASSES), f"the scores have the shape {tuple(scores_BC.shape)}")
        expect(scores_BC.isfinite().all(), "a score is no finite number")
        (gradient_BF,) = torch.autograd.grad(scores_BC.sum(), features_BF)
        expect(gradient_BF.isfinite().all(), "the gradient of the features is no finite number")


@contract("classifiers")
def is_drawn_by_the_seed(family_name: str, spec: Spec) -> None:
    """`reset_parameters` draws the same values under the same seed of torch, whatever was learnt before."""
    drawn = []
    for before in (0.0, 1.0):
        layer = _layer(make(family_name, spec))
        expect(hasattr(layer, "reset_parameters"), "the layer has no reset_parameters")
        with torch.no_grad():
            for parameter in layer.parameters():
                parameter.fill_(before)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(7)
            layer.reset_parameters()  # type: ignore[operator]
        drawn.append([parameter.detach() for parameter in layer.parameters()])
    expect(all(torch.equal(a, b) for a, b in zip(*drawn, strict=True)), "one seed drew two different layers")


@contract("posthoc")
def gives_finite_scores(family_name: str, spec: Spec) -> None:
    """Every image has a finite score per class, also for scores of 80 and -80."""
    technique, given = make(family_name, spec), inputs()
    for scores_BC in (given["logits_BC"], 80 * given["targets_BC"], -80 * given["targets_BC"]):
        adjusted_BC = _fitted(technique)(scores_BC, given["counts_C"])
        expect(adjusted_BC.shape == (6, NUM_CLASSES), f"the scores have the shape {tuple(adjusted_BC.shape)}")
        expect(adjusted_BC.isfinite().all(), "a score is no finite number")


@contract("posthoc")
def replaces_the_classifier_rightly(family_name: str, spec: Spec) -> None:
    """Where it replaces the classifier, its layer gives each image a finite score per class and leaves the old layer alone."""
    technique, given = make(family_name, spec), inputs()
    if not technique.replaces_classifier:
        return
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layer = nn.Linear(4, NUM_CLASSES)
    before = copy.deepcopy(layer.state_dict())
    features = (given["features_NF"], given["labels_N"]) if technique.needs_features else (None, None)
    scores_BC = technique.classifier(layer, *features, NUM_CLASSES)(given["features_BF"])
    expect(scores_BC.shape == (6, NUM_CLASSES), f"the scores have the shape {tuple(scores_BC.shape)}")
    expect(scores_BC.isfinite().all(), "a score is no finite number")
    expect(all(torch.equal(layer.state_dict()[name], tensor) for name, tensor in before.items()), "the old layer was changed")


@contract("posthoc")
def is_fitted_once(family_name: str, spec: Spec) -> None:
    """What has to be fitted needs no validation images afterwards, and is of the same class."""
    technique = make(family_name, spec)
    fitted = _fitted(technique)
    expect(type(fitted) is type(technique), f"fitted gives a {type(fitted).__name__}; expected a {type(technique).__name__}")
    expect(not fitted.needs_validation, "it still needs validation images once it is fitted")


@contract("tta")
def equal_views_are_one_view(family_name: str, spec: Spec) -> None:
    """Where all views agree, the combined decision is theirs."""
    technique, logits_BC = make(family_name, spec), inputs()["logits_BC"]
    scores_BC = technique.combine(torch.stack([logits_BC] * len(technique.views())))
    expect(scores_BC.shape == logits_BC.shape, f"the scores have the shape {tuple(scores_BC.shape)}")
    expect(torch.equal(scores_BC.argmax(1), logits_BC.argmax(1)), "equal views are decided otherwise together")


@contract("tta")
def views_are_images(family_name: str, spec: Spec) -> None:
    """Every view is an image of the same shape with pixels between 0 and 1, and can be told from the others."""
    technique, images_BCHW = make(family_name, spec), inputs()["images_BCHW"]
    expect(len(set(technique.views())) == len(technique.views()), "two of its views are equal")
    for view in technique.views():
        seen_BCHW = view(images_BCHW)
        expect(seen_BCHW.shape == images_BCHW.shape, f"a view has the shape {tuple(seen_BCHW.shape)}")
        expect(bool(((seen_BCHW >= 0) & (seen_BCHW <= 1 + 1e-6)).all()), "a view has pixels outside of 0 to 1")


# --- long tails and models -------------------------------------------------------------------------------------------------------


@contract("longtail")
def counts_images(family_name: str, spec: Spec) -> None:
    """Each class has a whole number of images from 0 on, the available counts staying as they are."""
    technique, available_C = make(family_name, spec), np.array([500, 500, 500, 500])
    counts_C = technique(available_C)
    expect(counts_C.shape == available_C.shape and counts_C.dtype.kind == "i", f"found {counts_C!r}; expected four whole numbers")
    expect(bool((counts_C >= 0).all()), f"found {counts_C.tolist()}")
    expect(available_C.tolist() == [500] * 4, "the available counts were changed")
    expect(technique.indices in ("seeded", "historical"), f"indices is {technique.indices!r}; expected seeded or historical")


@contract("models")
def makes_a_model_by_the_seed(family_name: str, spec: Spec) -> None:
    """A model gives each image a score per class, its weights being a function of the seed alone."""
    technique = make(family_name, spec)
    model, again = (technique(NUM_CLASSES, 3) for _ in range(2))
    same = [torch.equal(a, b) for a, b in zip(model.state_dict().values(), again.state_dict().values(), strict=True)]
    expect(all(same), "one seed made two different models")
    side = technique.image_size
    with torch.no_grad():
        scores_BC = model.eval()(torch.rand(2, 3, side, side, generator=seeded()))
    expect(scores_BC.shape == (2, NUM_CLASSES), f"the scores have the shape {tuple(scores_BC.shape)}")
    mean, deviation = technique.normalisation
    expect(
        len(mean) == len(deviation) == 3, f"the normalisation has {len(mean)} means and {len(deviation)} deviations; expected three each"
    )


@contract("models")
def has_one_classifier(family_name: str, spec: Spec) -> None:
    """`get_classifier` gives the last layer, without which the backbone's weights depend on no number of classes."""
    technique = make(family_name, spec)
    models = [technique(num_classes, 3) for num_classes in (NUM_CLASSES, NUM_CLASSES + 1)]
    backbones = []
    for model in models:
        classifier = {id(tensor) for tensor in model.get_classifier().state_dict(keep_vars=True).values()}
        expect(classifier, "get_classifier gives a layer without weights")
        backbones.append({name: t for name, t in model.state_dict(keep_vars=True).items() if id(t) not in classifier})
    few, more = backbones
    expect(all(torch.equal(few[name], more[name]) for name in few), "the backbone's weights depend on the number of classes")
