"""Pages of the documentation that are made from the code, so that they say what it does.

``make reference`` writes those that are kept (`pages_from_code.pages`); the changelog and the notebooks are made while
the site is built. tests/test_reference_pages.py fails where a page that is kept differs from what would be written.
"""
