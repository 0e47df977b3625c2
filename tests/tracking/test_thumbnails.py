"""Pictures for MLflow's page, held against those that its client writes."""

import re

import pytest
from PIL import Image

from ablation.tracking import thumbnails
from ablation.tracking.store import Store

DIGITS = re.compile(r"timestamp\+\d{13}\+[0-9a-f-]{36}")


@pytest.mark.parametrize("size", [(300, 200), (70, 310), (8, 8)])
def test_they_are_those_of_the_client(folder, size):
    """Both files, byte for byte, under names of the same form, and the tag by which the page knows that there are any."""
    Image.linear_gradient("L").resize(size).convert("RGBA").save("one.png")
    store = Store.open()
    ours, theirs = (store.create(store.experiment("demo"), name, {}, 1) for name in ("ours", "theirs"))
    store.show_picture(ours, "matrix", folder / "one.png", {"shown": "yes"})
    with Image.open("one.png") as image:
        store.client.log_image(theirs, image.convert("RGB"), key="matrix", step=0, synchronous=True)

    def files(run_id):
        listed = store.client.list_artifacts(run_id, "images")
        return {DIGITS.sub("", file.path): store.artifact(run_id, file.path).read_bytes() for file in listed}

    assert len(files(ours)) == 2
    assert files(ours) == files(theirs)
    tags = store.client.get_run(ours).data.tags
    assert (tags["mlflow.loggedImages"], tags["shown"]) == ("True", "yes")
    assert store.client.get_run(theirs).data.tags["mlflow.loggedImages"] == "True"


def test_the_picture_of_another_stays_as_it_is(folder):
    """What lies in the store is a copy, where the thumbnail has to be made."""
    Image.new("RGBA", (8, 8), "red").save("one.png")
    before = (folder / "one.png").read_bytes()
    store = Store.open()
    store.show_picture(store.create(store.experiment("demo"), "run", {}, 1), "matrix", folder / "one.png")
    assert (folder / "one.png").read_bytes() == before
    assert not (folder / "one.webp").exists()


def test_one_that_is_there_is_taken(folder, tmp_path):
    """Where whoever drew a picture has made its thumbnail too, nothing is drawn again."""
    Image.new("RGBA", (8, 8), "red").save("one.png")
    thumbnails.make(folder / "one.png", folder / "one.png")
    named = thumbnails.named(folder / "one.png", "matrix", tmp_path)
    assert list(named.values()) == [folder / "one.png", folder / "one.webp"]
