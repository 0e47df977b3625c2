"""Plans the trainings of arms: the identity of each stage, what it must save, what it costs, and the work of each job."""

import itertools
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ablation.data.account import Account
from ablation.formatting import listed
from ablation.study import groups
from ablation.study.config import Arm, Study
from ablation.study.task import Branch, Cost
from ablation.system.digests import digest
from ablation.tasks.images import keys
from ablation.tasks.images.balanced import idle_notes
from ablation.tasks.images.context import PlanContext, Source
from ablation.tasks.images.labels import OTHER_TEST, images_per_epoch, labels, labels_of_choice
from ablation.tasks.images.metrics import metric_of
from ablation.techniques.models import num_parameters
from ablation.training.frozen import has_frozen_backbone, settings_before_backbone
from ablation.training.settings import Stage
from ablation.training.work import WEIGHTS, TestRequest, TrackedAverage, TrainingWork, products

FORWARD_SHARE = 0.35  # of a training step's time, roughly
BYTES_PER_NUMBER = 4  # in float32
DIGEST_SHOWN = 36  # letters, as many as the store keeps of the digest of a data set
NO_CLASS = f">{2**62}"  # a group as a file may write it: a bound that no training count keeps


@dataclass(frozen=True)
class TrainingStep:
    """One stage of one arm and seed, with its identity."""

    stage: Stage
    identity: Mapping[str, Any]  # the arguments of `keys.stage_content` besides the stage and the epochs
    environment: str
    tracked: TrackedAverage | None
    average_before: str  # the id of the average that it starts from, or ""
    classifier_before: Any  # the classifier in the state that it starts from
    device_class: str
    carries_on: bool  # whether it continues with the optimizer's state of the stage before

    continuation = frozenset({"optimizer"})

    @property
    def epochs(self) -> int:
        """The number of its epochs."""
        return self.stage.epochs

    @property
    def first_epoch(self) -> int:
        """The number of the arm's epochs before it."""
        return self.stage.first_epoch

    @property
    def kind(self) -> str:
        """The identity of everything that the time per image mostly depends on."""
        return keys.speed_key(self.stage, self.device_class)

    @property
    def products(self) -> frozenset[str]:
        """The average and the best epochs that its final state must have."""
        return frozenset(products((self.tracked,) if self.tracked else (), keep_optimizer=False))

    @cached_property
    def group(self) -> str:
        """The identity of the stage, for any length."""
        return keys.stage_content(self.stage, 0, **self.identity)

    @cached_property
    def content(self) -> str:
        """The identity of its final state, for any environment."""
        return keys.stage_content(self.stage, self.stage.epochs, **self.identity)

    def key(self, epochs: int) -> str:
        """The key of its state after that many epochs."""
        content = self.content if epochs == self.stage.epochs else keys.stage_content(self.stage, epochs, **self.identity)
        return keys.with_environment(content, self.environment)


def average_id(technique: Any, since: int) -> str:
    """The name of an average within a stage's file, by its settings, its code and its first epoch."""
    if not technique.averages:
        return "none"
    return f"{technique.name}-{digest([keys.non_default_settings(technique), keys.code_of_technique(technique)])[:8]}@{since}"


def averages_since(stages: Sequence[Stage]) -> list[int]:
    """For each stage, the epoch at which its average began."""
    since = [0]
    for before, stage in itertools.pairwise(stages):
        continues = "average" not in stage.restart and stage.settings.average == before.settings.average
        since.append(since[-1] if continues else stage.first_epoch)
    return since


class ImagePlanner:
    """Plans the trainings of one study."""

    def __init__(self, study: Study, context: PlanContext) -> None:
        self.study, self.context = study, context
        self._arms = {arm.name: arm for arm in study.arms}
        self._planned: dict[tuple[str, tuple[int, ...]], Arm] = {}  # by name and training counts

    # --- identity --------------------------------------------------------------------------------------------------------------

    def steps(self, arm: Arm, seed: int) -> tuple[TrainingStep, ...]:
        """The arm's stages with their identities; raises AblateError if its data or weights are not available."""
        source, context = self.context.source(arm, seed), self.context
        weights, _ = context.weights(arm.settings.model)
        self._planned[arm.name, tuple(source.counts)] = arm
        since, steps = averages_since(arm.stages), list[TrainingStep]()
        content, environment, average = "", "", ""
        for i, stage in enumerate(arm.stages):
            settings, is_last = stage.settings, i == len(arm.stages) - 1
            average_before = average if stage.start == "average" else ""
            watchers = (settings.average, settings.tta, settings.posthoc)
            training_techniques = [technique for technique in keys.techniques_of(settings) if technique not in watchers]
            environment = digest([environment, keys.environment(training_techniques, context.device_class)])
            identity: dict[str, Any] = {
                "parent": content,
                "data": source.digest,
                "weights": weights,
                "seed": seed,
                "precision": context.precision(settings.precision),
                "tail": context.tail(source.group_counts, source.classes) if settings.mix.needs_tail else (),
                "average_before": average_before,
            }
            average = average_id(settings.average, since[i])
            is_tracked = is_last or source.num_validation > 0 or since[i + 1] == since[i] or arm.stages[i + 1].start == "average"
            best_on = (settings.select.removeprefix("best_on_"),) if is_last and settings.select != "last" else ()
            steps.append(
                TrainingStep(
                    stage=stage,
                    identity=identity,
                    environment=environment,
                    tracked=TrackedAverage(average, settings.average, since[i], best_on) if is_tracked else None,
                    average_before=average_before,
                    classifier_before=arm.stages[max(i - 1, 0)].settings.classifier,
                    device_class=context.device_class,
                    carries_on=i > 0 and "optimizer" not in stage.restart,
                )
            )
            content = steps[-1].content
        return tuple(steps)

    def request(self, arm: Arm, seed: int, steps: Sequence[TrainingStep]) -> TestRequest:
        """The test of the arm's run, at the end of its last stage."""
        settings, last = arm.stages[-1].settings, steps[-1]
        assert last.tracked is not None
        written = self.groups(arm, seed)
        content = keys.run_content(last.content, settings, last.tracked.since, written)
        watchers = [settings.average, settings.tta, settings.posthoc]
        environment = digest([last.environment, keys.test_environment(watchers, self.context.device_class)])
        key = keys.with_environment(content, environment)
        return TestRequest(key, content, settings, last.tracked.id, written, self.study.keep != "none")

    def groups(self, arm: Arm, seed: int) -> Any:
        """The groups of classes, those of the study's first arm in all arms: as the file has them, where the arm's own are the same."""
        source, first = self.context.source(arm, seed), self.context.source(self.study.arms[0], seed)
        own, theirs = (groups.resolve(self.study.groups, one.group_counts, one.classes) for one in (source, first))
        return self.study.groups if own == theirs or source.classes != first.classes else _as_written(theirs, first.classes)

    def inputs(self, arm: Arm, seed: int) -> dict[str, str]:
        """Of the data and the weights their digests; the groups, the precision, the device and the libraries' versions as they are."""
        context, stage = self.context, arm.stages[-1]
        return {
            "data": context.source(arm, seed).digest[:DIGEST_SHOWN],
            "weights": context.weights(stage.settings.model)[0][:DIGEST_SHOWN],
            "groups": json.dumps(self.groups(arm, seed), ensure_ascii=False),
            "precision": context.precision(stage.settings.precision),
            "device": context.device_class,
            **keys.versions(),
        }

    # --- work ------------------------------------------------------------------------------------------------------------------

    def works(self, branches: Mapping[str, Branch]) -> dict[str, TrainingWork]:
        """The work of each branch of the tree, by its key."""
        heads = [key for key, branch in branches.items() if branch.is_wanted and has_frozen_backbone(branch.steps[0].stage)]
        sharers = Counter(_feature_identity(branches, key) for key in heads)
        return {key: self._work(key, branch, sharers[_feature_identity(branches, key)]) for key, branch in branches.items() if branch.arms}

    def _work(self, key: str, branch: Branch, num_sharers: int) -> TrainingWork:
        step: TrainingStep = branch.steps[0]
        settings, source = step.stage.settings, self._source(branch)
        weights, weights_file = self.context.weights(settings.model)
        return TrainingWork(
            key=key,
            stage=step.stage,
            seed=branch.seed,
            end_epoch=branch.end,
            parent=branch.parent,
            parent_average="" if branch.is_same_step else step.average_before,
            parent_classifier=step.classifier_before,
            is_same_stage=branch.is_same_step,
            tracked=_tracked(branch.steps),
            keep_optimizer=branch.is_carried_on,
            requests=tuple({request.key: request for request in branch.requests}.values()),
            dataset=source.dataset,
            weights_file=weights_file,
            weights_digest=weights if weights_file is not None else "",
            tail=self.context.tail(source.group_counts, source.classes) if settings.mix.needs_tail else (),
            stages=self.context.stages,
            results=self.context.results,
            code=keys.code_of([settings, *(request.settings for request in branch.requests)]),
            features=self.context.features if num_sharers > 1 else None,
            num_sharers=num_sharers,
        )

    def _source(self, branch: Branch) -> Source:
        return self.context.source(self._arms[branch.arms[0]], branch.seed)

    def cost(self, branch: Branch, epochs: int, seconds_per_item: float) -> Cost:
        """The cost of so many more epochs, with the evaluation after each, and of the tests at the end."""
        source, stage = self._source(branch), branch.steps[0].stage
        images = images_per_epoch(stage, sum(source.counts))
        test_seconds = _num_tested(branch, source) * FORWARD_SHARE * seconds_per_item
        seconds = epochs * (images + FORWARD_SHARE * _num_watched(branch, source)) * seconds_per_item + test_seconds
        return Cost(seconds, test_seconds, images)

    def disk(self, works: Iterable[TrainingWork], num_results: int, arm: Arm, seed: int) -> float:
        """The bytes of each stage's state, of the weights of its tests, and of each result's predictions."""
        source = self.context.source(arm, seed)
        total, num_classes = 0.0, len(source.classes)
        for work in works:
            weights = BYTES_PER_NUMBER * num_parameters(work.stage.settings.model, work.stage.settings.classifier, "all", num_classes)
            copies = 1 + sum(tracked.technique.averages + len(tracked.best_on) for tracked in work.tracked) + 2 * work.keep_optimizer
            total += weights * (copies + len({request.average for request in work.requests}))
        return total + num_results * sum(source.test_counts) * (BYTES_PER_NUMBER * num_classes + 8)

    # --- facts for the plan and the report ---------------------------------------------------------------------------------------

    def labels(self, arm: Arm, arms: Mapping[str, Arm], seed: int) -> dict[str, str]:
        """The arm's labels, each with its reason in words."""
        if arm.choice is not None:
            return labels_of_choice([self.labels(arms[name], arms, seed) for name in arm.choice.among], arm)
        parent = arms[arm.parent] if arm.parent else None
        source = self.context.source(arm, seed)
        parent_source = self.context.source(parent, seed) if parent else source
        reasons = labels(arm, parent, sum(source.counts), sum(parent_source.counts), len(source.classes))
        partners = dict.fromkeys(name for name in (arm.parent, arm.baseline) if name)
        others = [name for name in partners if self.context.source(arms[name], seed).test_set != source.test_set]
        return reasons | ({OTHER_TEST: f"its {sum(source.test_counts):,} test images are not those of {listed(others)}"} if others else {})

    def metric(self, arm: Arm, seed: int) -> tuple[str, str]:
        """The full name of the metric that the study goes by on an arm's data, and why, in a clause."""
        source = self.context.source(arm, seed)
        classes_by_group = groups.resolve(self.groups(arm, seed), source.group_counts, source.classes)
        return metric_of(self.study.metric, source.classes, source.test_counts, classes_by_group)

    def facts(self, arm: Arm, seeds: Sequence[int]) -> dict[str, Any]:
        """The classes of an arm's data, their groups, and their numbers of images; and of groups of images, where there are any."""
        source = self.context.source(arm, seeds[0])
        classes_by_group = groups.resolve(self.groups(arm, seeds[0]), source.group_counts, source.classes)
        return {
            "classes": list(source.classes),
            "groups": {name: [source.classes[c] for c in classes] for name, classes in classes_by_group.items()},
            "counts": {str(seed): list(self.context.source(arm, seed).counts) for seed in seeds},
            "test_counts": list(source.test_counts),
            "validation_counts": list(source.validation_counts),
            **({"clusters": dict(source.clusters)} if source.clusters else {}),
        }

    def data(self, arms: Iterable[Arm], seed: int, most_images: int | None = None) -> list[dict[str, Any]]:
        """The account of each of the arms' data as plain data, with the arms that use it; of a finding at most so many images."""
        accounts: list[tuple[Account, list[str]]] = []
        for arm in arms:
            account = self.context.account(arm, seed)
            names = next((names for known, names in accounts if known is account), None)
            if names is None:
                accounts.append((account, [arm.name]))
            else:
                names.append(arm.name)
        return [account.as_data(most_images) | {"seed": seed, "arms": names} for account, names in accounts]

    def arm_facts(self, arm: Arm) -> dict[str, Any]:
        """The arm's post-hoc technique, which its test images are, and whether its scores were trained as those of sigmoids."""
        test_set, settings = self.context.source(arm, self.study.seeds[0]).test_set, arm.stages[-1].settings
        is_sigmoid = getattr(settings.loss, "form", "") == "sigmoid"
        return {
            "posthoc": settings.posthoc.name,
            **({"test_set": test_set} if test_set else {}),
            **({"is_sigmoid": True} if is_sigmoid else {}),
        }

    def dataset(self, arm: Arm) -> tuple[str, str]:
        """The name and the path of an arm's data set."""
        data = arm.settings.data
        places = (getattr(data, name, "") for name in ("file", "train_list", "root"))
        return data.name, next(filter(None, places), data.name)

    def remarks(self, works: Sequence[TrainingWork]) -> list[str]:
        """How many of these trainings share a frozen backbone, by what their weights' images are normalised, and so on."""
        num_shared = sum(work.features is not None for work in works)
        shared = [f"of these, {num_shared} train a classifier on a frozen backbone that runs once for all of them"] if num_shared else []
        return [*shared, *_normalisations(works), *idle_notes(self._planned), *self.context.remarks()]

    def lacks(self, request: TestRequest, result: Path) -> str:
        """The weights, if they were not to be kept when it was tested."""
        return "weights" if request.keep_weights and not (result / WEIGHTS).exists() else ""

    def notes(self, arms: Iterable[Arm]) -> list[str]:
        """A sentence if equal runs may give different bits, and one about what has nothing to correct in the planned arms."""
        idle = idle_notes(self._planned)
        if self.context.device_class.startswith("cpu") or all(arm.settings.deterministic for arm in arms):
            return idle
        statistical = f"statistical: on {self.context.device_class} without deterministic: true, the same run again gives other bits"
        return [statistical, *idle]


def _as_written(classes_by_group: groups.Groups, classes: Sequence[str]) -> dict[str, Any]:
    """Groups as a file may write them: by the names of their classes."""
    return {name: [classes[c] for c in members] or NO_CLASS for name, members in classes_by_group.items()}


def _normalisations(works: Iterable[TrainingWork]) -> Iterator[str]:
    """A sentence for each model that starts from a file: what its images are normalised by, which the file itself does not say."""
    for model in dict.fromkeys(work.stage.settings.model for work in works if work.weights_file is not None):
        mean, deviation = (", ".join(f"{value:.4g}" for value in values) for values in model.normalisation)
        known = f"which timm has for {model.name}"
        hint = (
            "" if "." in model.name else "; if the file's weights expect others, give model.name their tag, as in vit_base_patch16_224.dino"
        )
        yield f"model.weights: images are normalised by the mean {mean} and the deviation {deviation}, {known}{hint}"


def _tracked(steps: Sequence[TrainingStep]) -> tuple[TrackedAverage, ...]:
    """The averages that any of the arms that share a training needs."""
    by_id: dict[str, TrackedAverage] = {}
    for tracked in [step.tracked for step in steps if step.tracked is not None]:
        earlier = by_id.get(tracked.id)
        best_on = tuple(sorted({*(earlier.best_on if earlier else ()), *tracked.best_on}))
        by_id[tracked.id] = TrackedAverage(tracked.id, tracked.technique, tracked.since, best_on)
    return tuple(by_id.values())


def _feature_identity(branches: Mapping[str, Branch], key: str) -> tuple[Any, ...]:
    """The identity of the features that the classifier of a branch is trained on; classifiers with the same identity share them."""
    branch, root = branches[key], key
    while root and has_frozen_backbone(branches[root].steps[0].stage):
        root = branches[root].parent  # the last training of the whole model
    stage: Stage = branch.steps[0].stage
    return root, branch.seed, settings_before_backbone(stage.settings), stage.first_epoch, branch.begin, branch.end


def _num_watched(branch: Branch, source: Source) -> int:
    """The number of images that are evaluated after each epoch: validation, and test if the best epoch is selected on it."""
    return sum(source.num_validation + sum(source.test_counts) * ("test" in tracked.best_on) for tracked in _tracked(branch.steps))


def _num_tested(branch: Branch, source: Source) -> int:
    """The number of images that are evaluated at the end: those of each view and set of weights, and training images for post-hoc fits."""
    views = {(request.average, request.settings.select, view) for request in branch.requests for view in request.settings.tta.views()}
    fitted = {(request.average, request.settings.select) for request in branch.requests if request.settings.posthoc.needs_features}
    return len(views) * (sum(source.test_counts) + source.num_validation) + len(fitted) * sum(source.counts)
