"""The colours of the page can be told apart, also by the colour-blind, in both lights."""

import itertools
import re

import numpy as np
import pytest
from colours import SEEN_BY, contrast, lab, linear

from crucible.viewer.files import PAGE

PHASES = ("supernova", "cooling", "stumbling", "frozen")


def palette(light):
    style = (PAGE / "style.css").read_text()
    blocks = re.findall(r":root \{(.*?)\}", style, re.DOTALL)
    found = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", blocks[0]))
    return found | (dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", blocks[1])) if light == "dark" else {})


@pytest.mark.parametrize("eyes", SEEN_BY)
@pytest.mark.parametrize("light", ["light", "dark"])
def test_phases_and_bits_differ(light, eyes):
    colours = palette(light)
    for group in (PHASES, ("sign", "exponent", "mantissa", "flip"), ("moving", "loss")):
        for one, other in itertools.combinations(group, 2):
            seen = [lab(np.array(SEEN_BY[eyes]) @ linear(colours[name])) for name in (one, other)]
            assert np.linalg.norm(seen[0] - seen[1]) > 16, (one, other)


@pytest.mark.parametrize("light", ["light", "dark"])
def test_words_and_marks_stand_out_from_the_ground(light):
    colours = palette(light)
    for ground in ("ground", "well"):
        for name in ("ink", "soft", "accent", "moving", "loss"):
            assert contrast(colours[name], colours[ground]) >= 4.5, name
        for name in ("supernova", "cooling", "stumbling", "mark", "flip"):
            assert contrast(colours[name], colours[ground]) >= 3, name
