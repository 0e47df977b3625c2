"""How one's own training code is spoken of: in runs and steps, since nobody knows its epochs."""

from ablation.study.task import Words

WORDS = Words(
    to_do="to run",
    part="run",
    parts_title="Runs to start (arms in one line share them)",
    listed="every arm's change and every run",
    row="step",
    running="run",
    stopping="stopping the runs",
    is_counted=False,
    next_steps={"data": "ablate log ARM SEED shows what was printed; once the code or the file is mended, --rerun retry tries again"},
)
