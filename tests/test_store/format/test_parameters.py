"""Groups of several parameters: what they may be called, how others read them, and that none is taken for one table."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import store_cases as cases
import xarray
from format2_cases import same_bits, values_of, write_array, write_consolidated

import crucible
import store
from store.errors import MetadataError, NewerFormatError
from store.format.files import DOCUMENT, SECOND_COPY, TRAJECTORY
from store.format.parameters import check_names, names_among
from store.run.commit import Commit, read_commit
from store.upkeep.compact import compact

STEPS = 6
GROUP = {"zarr_format": 3, "node_type": "group", "attributes": {}}
OPTIONS = {"derive": cases.derive, "finish": cases.finish}


@pytest.mark.parametrize("name", ["wte", "transformer.wte.weight", "0", "lm-head", "_", "a" * 200])
def test_a_name_that_a_folder_can_have_on_every_system(name):
    check_names([name])


@pytest.mark.parametrize("name", ["", ".", "..", ".w", "w.", "a/b", "a\\b", "wört", "a b", "a:b", "w\n", "a" * 201])
def test_other_names_are_refused(name):
    with pytest.raises(ValueError, match="cannot be recorded as"):
        check_names([name])


def test_names_that_differ_in_case_alone_are_refused():
    check_names(["wte", "wpe"])
    with pytest.raises(ValueError, match="'wte' and 'WTE' differ in upper and lower case alone"):
        check_names(["wte", "wpe", "WTE"])


def test_the_names_among_paths():
    assert names_among(
        ["W", "parameters", "parameters_of_mine/W", "parameters/b/W", "parameters/a", "parameters/b"]
    ) == [
        "b",
        "a",
    ]


def test_xarray_opens_such_groups_as_a_tree_that_shares_its_steps(tmp_path):
    """One zarr.json for all. Each parameter has as many tokens as it has."""
    wanted = {"a/W": values_of("W"), "b/W": values_of("W")[:, :7].copy(), "b/last_motion_step": values_of("token")[:7]}
    paths = ["loss", "step", *(f"parameters/{name}" for name in wanted)]
    for name in ("loss", "step"):
        write_array(tmp_path, name)
    for name, values in wanted.items():
        kind = "last_motion_step" if "last" in name else "W"
        write_array(tmp_path, kind, values.astype("int32") if "last" in name else values, path=f"parameters/{name}")
    for folder in ("parameters", "parameters/a", "parameters/b"):
        (tmp_path / folder / DOCUMENT).write_text(json.dumps(GROUP))
        paths.append(folder)
    write_consolidated(tmp_path, paths)
    tree = xarray.open_datatree(tmp_path, engine="zarr", consolidated=True)
    for name in ("a/W", "b/W"):
        assert same_bits(tree[f"parameters/{name}"].values, wanted[name])
    assert tree["parameters/b"].to_dataset().step.values.tolist() == list(range(9))
    assert tree.loss.sizes == {"step": 9}


@pytest.fixture
def run(tmp_path, monkeypatch):
    cases.patch_blocks(monkeypatch.setattr)
    return cases.unbroken(tmp_path, STEPS)


def with_tables(run, names=("wte", "lm_head")):
    """The run as a later Crucible may write it: tables of these parameters beside that of the root."""
    commit = read_commit(run)
    arrays = dict(commit.arrays) | {"parameters": GROUP}
    for name in names:
        arrays |= {f"parameters/{name}": GROUP, f"parameters/{name}/W": commit.arrays["W"]}
        shutil.copytree(run / TRAJECTORY / "W", run / TRAJECTORY / "parameters" / name / "W")
    data = replace(commit, arrays=dict(sorted(arrays.items()))).to_bytes()
    (run / TRAJECTORY / DOCUMENT).write_bytes(data)
    (run / SECOND_COPY).write_bytes(data)
    return data


DOES = {
    "open": store.open_trajectory,
    "check": store.check,
    "repair": store.repair,
    "compact": compact,
    "resume": cases.resume,
    "export": lambda run: crucible.export_run(run, run.parent / "out.safetensors"),
    "info": crucible.info,
}


@pytest.mark.parametrize("do", DOES)
def test_a_run_of_several_tables_is_refused_with_a_sentence_and_stays(run, do):
    data = with_tables(run)
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file() and path.name != "LOCK"}
    with pytest.raises(NewerFormatError, match=r"tables of several parameters \(lm_head, wte\).*Update Crucible"):
        DOES[do](run)
    after = {path: path.read_bytes() for path in run.rglob("*") if path.is_file() and path.name != "LOCK"}
    assert before == after
    assert not (run.parent / "out.safetensors").exists()
    assert (run / TRAJECTORY / DOCUMENT).read_bytes() == data


def test_tables_whose_names_cannot_be_are_damage(run):
    data = with_tables(run, ["wte", "wTe"])
    with pytest.raises(MetadataError, match="differ in upper and lower case alone"):
        Commit.from_bytes(data, run)
    with pytest.raises(MetadataError, match="differ in upper and lower case alone"):
        store.open_trajectory(run)


@pytest.mark.default_cases(2)
@pytest.mark.parametrize("do", ["open", "check", "repair", "compact", "resume", "export"])
def test_a_group_that_another_program_put_there_is_named_and_stays(run, do):
    """The commit knows nothing of it."""
    file = run / TRAJECTORY / "parameters" / "wte" / "W" / "c.0.0.0"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"mine")
    before = store.open_trajectory(run).load()
    assert store.check(run, **OPTIONS).foreign == ["trajectory.zarr/parameters"]
    done = DOES[do](run)
    if do == "resume":
        assert done.foreign == [run / TRAJECTORY / "parameters"]
        done.close()
    assert file.read_bytes() == b"mine"
    after = store.open_trajectory(run).load()
    assert "parameters" not in str(after)
    np.testing.assert_array_equal(before.W, after.W)
    assert store.check(run, **OPTIONS).foreign == ["trajectory.zarr/parameters"]
