"""Which arms score by distances."""

from ablation.report.frames.posthoc import distance_arms
from tests.report.studies import arm


def test_the_plan_says_what_an_arm_ends_with():
    """By its own word, whatever changed; also where the first arm has it and no change tells of it."""
    arms = [
        arm("baseline", None, posthoc="ncm"),
        arm("same", "baseline", posthoc="ncm", change={"mix.name": ["none", "mixup"]}),
        arm("off", "same", posthoc="none", change={"stages.0.posthoc.name": ["ncm", "none"], "stages.1.posthoc.name": [None, "none"]}),
        arm("first stage", "off", posthoc="none", change={"stages.0.posthoc.name": ["none", "ncm"]}),
    ]
    assert distance_arms({"arms": arms}) == ["baseline", "same"]


def test_plans_without_that_word_have_the_changes():
    """The nearest change up the chain of parents, of the last stage that has one; a parent that is not planned ends the chain."""
    arms = [
        arm("baseline", None),
        arm("ncm", "baseline", change={"posthoc.name": ["none", "ncm"]}),
        arm("after", "ncm", change={"mix.name": ["none", "mixup"]}),
        arm("back", "after", change={"stages.0.posthoc.name": ["ncm", "ncm"], "stages.1.posthoc.name": [None, "none"]}),
        arm("orphan", "elsewhere"),
    ]
    assert distance_arms({"arms": arms}) == ["ncm", "after"]
