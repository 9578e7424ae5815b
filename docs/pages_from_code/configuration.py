"""reference/configuration.md, from the table of parameters."""

from __future__ import annotations

from crucible.inputs.config import Config, FieldRule, rules
from pages_from_code.tables import table

OPENING = """\
# Configuration

The parameters of a run, each a key of the TOML file of `crucible train --config FILE` and `crucible plan --config FILE`, a flag of both
(`total_steps` is `--total-steps`), and a field of `crucible.Config`. A flag beats the file, the file beats the default. A run's own
`config.json` may stand in the place of the file. Relative paths start at the current folder. A key that is no parameter is refused,
with the nearest one that is.

```toml
corpus = "narrow.txt"
tokenizer = "inputs/tokenizer.json"
dead_mask = "inputs/dead_mask.safetensors"
total_steps = 300
learning_rate = 0.001
```

"""


def page() -> str:
    """A row a parameter."""
    defaults = Config()
    rows = [(f"`{name}`", _type(rule), _value(getattr(defaults, name)), rule.help) for name, rule in rules().items()]
    return OPENING + table(("key", "type", "default", "meaning"), rows)


def _type(rule: FieldRule) -> str:
    """What a key may hold, in words."""
    if rule.choices:
        return " or ".join(f"`{choice}`" for choice in rule.choices)
    kind = {"int": "whole number", "float": "number", "text": "text", "path": "path"}[rule.kind]
    bounds = ((rule.least, "at least"), (rule.above, "above"), (rule.below, "below"))
    words = [f"{word} {bound:g}" if bound != 2**32 else f"{word} 2^32" for bound, word in bounds if bound is not None]
    return ", ".join([kind, *words])


def _value(default: object) -> str:
    return "none" if default is None else "empty" if default == "" else f"`{default}`"
