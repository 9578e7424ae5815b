"""What every answer keeps to, whatever the question."""

from pathlib import Path

import pytest
import xarray as xr
import zarr
from analysis_loops import LOOPS

import analysis


def answers_of(name):
    answer = getattr(analysis, name)(analysis.simulate.with_last_motion([3, 5], total_steps=8))
    return answer if isinstance(answer, xr.Dataset) else answer.to_dataset(name="answer")


def differing_runs():
    return analysis.compare(*(analysis.simulate.with_last_motion([last], total_steps=4) for last in (2, 3)))


@pytest.mark.parametrize("name", LOOPS)
def test_every_variable_is_an_attribute_of_its_answer(name):
    answer = answers_of(name)
    assert not {str(variable) for variable in answer.variables} & set(dir(xr.Dataset))
    assert all(getattr(answer, str(variable)).identical(answer[variable]) for variable in answer.variables)


def test_every_variable_of_a_comparison_is_an_attribute_of_it():
    assert not set(map(str, differing_runs().variables)) & set(dir(xr.Dataset))


@pytest.mark.parametrize("name", LOOPS)
def test_numbers_without_a_unit_say_none(name):
    units = {variable.attrs.get("units") for variable in answers_of(name).variables.values()}
    assert units <= {None, "step", "cell", "half cell"}


GIVEN = {
    "a DataArray": (lambda ds: ds.W, "a DataArray; ask of the whole Dataset: of ds, not of ds.W"),
    "a path as text": (lambda _: "my-run", r"the path 'my-run'; open the run .* store.open_trajectory\('my-run'\)"),
    "a path": (lambda _: Path("my-run"), r"the path 'my-run'; open the run first"),
    "a zarr group": (lambda _: zarr.group(), r"zarr.Group; open the run .* store.open_trajectory\(path\)"),
    "nothing": (lambda _: None, r"NoneType; open the run"),
    "a list of runs": (lambda ds: [ds, ds], "a list of them; ask of each by itself"),
    "a list of numbers": (lambda _: [1, 2], r"list; make a Dataset of it, as in xarray.Dataset\("),
    "an array": (lambda ds: ds.W.values, r"numpy.ndarray; make a Dataset of it, as in xarray.Dataset\("),
}  # fmt: skip


@pytest.mark.parametrize("name", [*LOOPS, "compare", "reduce"])
def test_what_is_no_dataset_is_named_with_what_to_do(name):
    ds = analysis.simulate.with_last_motion([3], total_steps=4)
    for made, message in GIVEN.values():
        given = made(ds)
        with pytest.raises(TypeError, match=f"expected a trajectory as an xarray.Dataset, found {message}"):
            getattr(analysis, name)(*[given] * (2 if name == "compare" else 1))


@pytest.mark.parametrize("given", ["my-run", None, analysis.simulate.with_last_motion([3], total_steps=4)])
def test_a_sentence_is_made_of_an_end_state_alone(given):
    with pytest.raises(TypeError, match=r"sentence takes the answer of analysis.end_state\(ds\); this "):
        analysis.sentence(given)


@pytest.mark.parametrize("given", ["my-run", 3, [1.0]])
def test_plain_numbers_are_made_of_answers_alone(given):
    with pytest.raises(TypeError, match="plain takes an answer of a question, a Dataset or DataArray, not"):
        analysis.plain(given)


def test_a_sentence_of_several_runs_or_of_an_answer_without_attributes_is_refused_in_words():
    made = analysis.simulate.with_last_motion
    runs = {"a": made([3], total_steps=4), "b": made([3], total_steps=6)}
    both = analysis.over(runs, analysis.end_state)
    with pytest.raises(TypeError, match="about one run, and this one has a dimension 'run': ask of each by itself"):
        analysis.sentence(both)
    with pytest.raises(TypeError, match="has lost the attribute 'last_step': ask of the run by itself"):
        analysis.sentence(both.sel(run="a"))
    silences = analysis.over(runs, analysis.stillness).sel(run="b")
    assert analysis.plots.stillness(silences).get_xlim()[1] >= 4


def test_what_is_known_of_a_token_in_one_run_is_not_said_of_it_in_others():
    """As of runs of two corpora, whose dead tokens are others: the populations of the first stood for all."""
    made = analysis.simulate.with_last_motion([3, 5, 7], total_steps=9, tokens=[1, 2, 3])
    named = {"population": ("token", ["dead", "live", "live"]), "token_text": ("token", ["a", "b", "c"])}
    a, b = made.assign_coords(named), made.assign_coords({**named, "population": ("token", ["live", "live", "dead"])})
    for runs in ({"a": a, "b": b}, {"b": b, "a": a, "c": a}, {"a": a, "b": b.isel(token=[2, 1, 0])}):
        answer = analysis.over(runs, analysis.last_motion)
        assert "population" not in answer.coords
        assert answer.token_text.values.tolist() == ["a", "b", "c"]
    turned = analysis.over({"a": a, "b": a.isel(token=[2, 1, 0])}, analysis.last_motion)
    assert turned.population.values.tolist() == ["dead", "live", "live"]
    some = analysis.over({"a": a, "b": a.drop_vars("population")}, analysis.last_motion)
    assert "population" not in some.coords


def test_what_an_answer_says_of_one_run_is_not_said_of_the_others():
    whole = analysis.simulate.with_moving_steps([5, 20, 40], total_steps=100, size=4).assign_attrs(tokens=4)
    runs = {"whole": whole, "part": whole.isel(token=[0, 1])}
    for each in (runs, dict(reversed(runs.items()))):
        both = analysis.over(each, analysis.end_state)
        assert "part" not in both.attrs
        assert both.sel(run=["whole", "part"]).part.values.tolist() == ["", "2 of the 4 recorded tokens"]
        assert both.attrs["last_step"] == 100
        with pytest.raises(TypeError, match="has lost the attribute 'part': ask of the run by itself"):
            analysis.sentence(both.sel(run="part"))
        assert both.last_motion.attrs["units"] == "step"
    parts = analysis.over({"a": runs["part"], "b": runs["part"]}, analysis.end_state)
    assert parts.attrs["part"] == "2 of the 4 recorded tokens"


def test_how_far_apart_the_states_of_each_run_are_stands_beside_its_answer():
    whole = analysis.simulate.with_moving_steps([5, 20, 40], total_steps=100, size=4)
    answer = analysis.over({"all": whole, "tenths": whole.isel(step=slice(None, None, 10))}, analysis.drift)
    assert answer.resolution_steps.values.tolist() == [1, 10]


def test_answers_of_other_lengths_are_refused_by_the_name_of_the_run_and_of_what_differs():
    made = analysis.simulate.with_last_motion
    runs = {"short": made([3], total_steps=9), "same": made([5], total_steps=9), "long": made([3], total_steps=2_000)}
    asked = (
        r"long answers with 200 labels \(10, ..., 2000\) along asked, and short with 9 labels \(1, ..., 9\): cut the"
    )
    with pytest.raises(ValueError, match=asked):
        analysis.over(runs, analysis.verdicts)
    columns = r"long answers with 2 labels \(1, 1001\) along column, and short with 2 labels \(1, 6\)"
    with pytest.raises(ValueError, match=columns):
        analysis.over(runs, analysis.stratigraphy, columns=2)
    runs["long"] = runs["long"].sel(step=slice(0, 9))
    assert analysis.over(runs, analysis.verdicts).asked.values.tolist() == list(range(1, 10))


def test_answers_of_other_sizes_are_refused_in_words_also_without_labels():
    runs = {"a": analysis.simulate.with_last_motion([3], total_steps=4)}
    runs["b"] = runs["a"].isel(hidden=[0, 1])
    said = r"b answers with 2 labels \(0, 1\) along hidden, and a with 4 labels \(0, 1, 2, 3\)"
    with pytest.raises(ValueError, match=said):
        analysis.over(runs, analysis.bounding_box)
