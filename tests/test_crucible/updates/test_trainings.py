"""Where a training that goes on from a checkpoint is recorded: no run is cut that its callback was not given."""

import pytest
import torch

import crucible
from crucible.updates.trainings import Place, Trainings


def trainings(folder):
    return Trainings(folder, overwrite=False)


@pytest.fixture
def there(tmp_path):
    """Two runs; what a checkpoint keeps of a training names one of them."""
    for name in ("run", "run-2"):
        embedding = torch.nn.Embedding(2, 2)
        crucible.attach(embedding, None, tmp_path / name, say=lambda _: None).close()
    return tmp_path


def test_what_was_kept_leads_back_to_the_folder(there):
    first = trainings(there / "run")
    assert first.next(None, may_shrink=False).folder == there / "run"
    assert first.kept(7) == {"step": 7, "folder": "run", "run": "run"}
    assert trainings(there / "run").resumed(first.kept(7), 9) == Place(there / "run", resume=7, first_step=0)


def test_a_later_training_of_the_same_callback_goes_on_in_its_own_folder(there):
    kept = {"step": 7, "folder": "run-2", "run": "run"}
    assert trainings(there / "run").resumed(kept, 9).folder == there / "run-2"


@pytest.mark.parametrize("kept", [{"step": 7, "folder": "run-2"}, {"step": 7, "folder": "run"}, {"step": 7}])
def test_what_older_checkpoints_keep_is_understood(there, kept):
    place = trainings(there / "run").resumed(kept, 9)
    assert (place.folder, place.resume) == (there / kept.get("folder", "run"), 7)


@pytest.mark.parametrize(
    "kept", [{"step": 7, "folder": "run", "run": "run"}, {"step": 7, "folder": "run"},
             {"step": 7, "folder": "run-2", "run": "run-2"}, {"step": 7, "folder": "run/trial-0", "run": "run"}]
)  # fmt: skip
def test_a_branch_begins_in_its_own_folder_and_says_where_the_training_was_recorded(there, kept):
    place = trainings(there / "branch").resumed(kept, 9)
    assert (place.folder, place.resume, place.first_step) == (there / "branch", None, 7)
    assert f"was recorded in {kept['folder']!r}" in place.notice


def test_a_branch_beside_a_run_of_the_same_name_begins_in_its_own_folder(there):
    place = trainings(there / "second" / "run").resumed({"step": 7, "folder": "run", "run": "run"}, 9)
    assert (place.folder, place.first_step) == (there / "second" / "run", 7)
    assert "is left as it is" in place.notice


def test_a_run_that_was_renamed_goes_on_where_it_is_given(there):
    (there / "run").rename(there / "renamed")
    place = trainings(there / "renamed").resumed({"step": 7, "folder": "run", "run": "run"}, 9)
    assert place == Place(there / "renamed", resume=7, first_step=0)


def test_a_training_that_was_never_recorded_begins_at_the_trainers_step(there):
    assert trainings(there / "new").resumed(None, 9) == Place(there / "new", first_step=9)
