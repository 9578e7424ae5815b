"""What every answer keeps to, whatever the question."""

import pytest
import xarray as xr
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
    assert units <= {None, "step", "cell"}
