import copy
import json
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from store.errors import MetadataError
from store.format import writers
from store.format.writers import Writers, compact, create, cut, resume, standing

RUN = uuid.UUID(int=7)
BASE = {"committed_steps": -1, "generation": 0, "beta1": 0.9}


def begun(steps=5):
    return {**create(BASE, RUN, 0xA), "committed_steps": steps}


def test_a_run_knows_its_writers_oldest_first():
    attributes = begun()
    assert attributes["run_id"] == "00000000-0000-0000-0000-000000000007"
    assert attributes["writers"] == [["000000000000000a", -1]]
    attributes = {**resume(attributes, 0xB), "committed_steps": 9}
    attributes = {**cut(attributes, 0xC, 7), "committed_steps": 7}
    attributes = compact(attributes, 0xD)
    assert [after for _, after in attributes["writers"]] == [-1, 5, 7, -2]
    assert attributes["generation"] == 2
    assert attributes["beta1"] == 0.9
    found = standing(json.loads(json.dumps(attributes)), "zarr.json")
    assert (found.run_id, found.generation, found.committed_steps) == (str(RUN), 2, 7)
    assert found.writers.listed == ((0xA, -1), (0xB, 5), (0xC, 7), (0xD, -2))
    assert found.writers.newest == 0xD


def test_the_attributes_that_were_given_stay_as_they_are():
    attributes = begun()
    before = copy.deepcopy(attributes)
    for change in (resume(attributes, 1), cut(attributes, 1, 2), compact(attributes, 1)):
        assert change != before
    assert attributes == before


def test_a_cut_is_of_the_next_generation_and_keeps_a_step_that_stood():
    assert cut(begun(), 1, -1)["generation"] == 1
    for last in (6, -2):
        with pytest.raises(ValueError, match=f"back to step {last}"):
            cut(begun(), 1, last)


def test_no_writer_comes_twice():
    with pytest.raises(ValueError, match="writer 000000000000000a has written here already"):
        resume(begun(), 0xA)


@given(st.lists(st.integers(-2, 20), min_size=1, max_size=8), st.integers(-1, 20))
def test_a_file_counts_up_to_the_least_step_after_which_a_later_writer_came(afters, last):
    known = Writers(tuple(enumerate(afters)))
    for writer in range(len(afters)):
        assert known.valid(writer, last) == min([last, *afters[writer + 1 :]])
    assert known.valid(99, last) is None


ENTRY = ["0" * 15 + "a", -1]
HOSTILE = {
    "run_id": ["", None, 7, "x" * 36, "00000000-0000-0000-0000-00000000000\n", "00000000-0000-0000-0000-00000000000G"],
    "generation": [-1, None, True, 1.0, "0"],
    "committed_steps": [-2, None, True, 2.0, "5", 1 << 63],
    "writers": [
        None, {}, "ab", [], [[]], [ENTRY, None], [ENTRY[:1]], [[*ENTRY, 1]], [[7, -1]], [["A" * 16, -1]],
        [["a" * 15, -1]], [["a" * 16, True]], [["a" * 16, -1.0]], [["a" * 16, None]], [["a" * 16, 0]],
        [["a" * 16, -2]], [ENTRY, ENTRY], [ENTRY, ["b" * 16, -3]], [ENTRY, ["b" * 16, 6]],
        [ENTRY, ["b" * 16, 1 << 63]], [["a" * 16 + "\n", -1]],
    ],
}  # fmt: skip


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in HOSTILE.items() for value in values])
def test_what_no_writer_writes_is_refused(name, value):
    with pytest.raises(MetadataError, match=f"run/zarr.json: {name} cannot be so"):
        standing({**begun(), name: value}, "run/zarr.json")


def test_what_is_missing_is_named():
    with pytest.raises(MetadataError, match=r"zarr.json: run_id, writers cannot be so"):
        standing({"committed_steps": 5, "generation": 0}, "zarr.json")


def test_a_cut_may_lie_before_steps_that_earlier_writers_found():
    attributes = {**cut(resume(begun(), 0xB), 0xC, 2), "committed_steps": 2}
    assert standing(attributes, "f").writers.valid(0xA, 5) == 2
    assert writers.BEFORE_ANY_STEP == -1
