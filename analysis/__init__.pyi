from . import lattice, plots, simulate
from .answers import plain
from .comparisons.apart import apart
from .comparisons.compare import compare
from .engine.inputs import weights
from .engine.question import Answer, Block, Reduction, Span
from .engine.reduction import conclude, reduce
from .episodes import Rule
from .pushes.headroom import headroom, push
from .pushes.why import why
from .questions.cloud import cloud, principal_axes, snapshots
from .questions.cooling import cooling, stratigraphy
from .questions.divergence import divergence
from .questions.drift import drift
from .questions.endstate import end_state, sentence, verdict
from .questions.history import verdicts
from .questions.lifecycle import NormRule, census, lifecycle
from .questions.motion import fimbulwinter, freeze_times, last_motion, moved
from .questions.occupancy import bounding_box, exponents, identical_rows
from .questions.stillness import stillness, token_stillness
from .sets import over

__all__ = [
    "Answer",
    "Block",
    "NormRule",
    "Reduction",
    "Rule",
    "Span",
    "apart",
    "bounding_box",
    "census",
    "cloud",
    "compare",
    "conclude",
    "cooling",
    "divergence",
    "drift",
    "end_state",
    "exponents",
    "fimbulwinter",
    "freeze_times",
    "headroom",
    "identical_rows",
    "last_motion",
    "lattice",
    "lifecycle",
    "moved",
    "over",
    "plain",
    "plots",
    "principal_axes",
    "push",
    "reduce",
    "sentence",
    "simulate",
    "snapshots",
    "stillness",
    "stratigraphy",
    "token_stillness",
    "verdict",
    "verdicts",
    "weights",
    "why",
]
