"""The error rates of the verdict, printed; the published ones are made by running end_state_errors.py."""

import importlib.util
from pathlib import Path

import pytest

pytestmark = pytest.mark.benchmark


def test_error_rates_of_the_verdict(tmp_path):
    spec = importlib.util.spec_from_file_location("end_state_errors", Path(__file__).with_name("end_state_errors.py"))
    errors = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(errors)
    tables = errors.measure(runs=200)
    print("\n\n".join(tables.values()))
    page = tmp_path / "page.md"
    page.write_text("".join(f"<!-- {name} -->\nold\n<!-- /{name} -->\n" for name in tables))
    errors.write(page, tables)
    assert "old" not in page.read_text()
    assert "t^-1.5" in page.read_text()
