"""The configuration of a run: one table of fields, checked when it is made, to and from JSON and TOML.

The table drives the flags of `crucible train` and `crucible plan`: flags override the file, the file overrides the
defaults.
"""

from __future__ import annotations

import difflib
import json
import math
import operator
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, Self

from analysis.thresholds import DEFAULT_THRESHOLD
from store.format.files import local_path
from store.small_file import read_small

PATHS = ("corpus", "tokenizer", "dead_mask", "out")
INPUTS = ("corpus", "tokenizer", "dead_mask")
DEVICES = ("auto", "cuda", "mps", "cpu")


class ConfigError(ValueError):
    """A parameter that does not exist, or a value that it cannot have."""


@dataclass(frozen=True, slots=True)
class FieldRule:
    """What a field may hold, and how a flag describes it.

    Parameters
    ----------
    kind : {"int", "float", "text", "path"}
        How a flag's text is read.
    help : str
        One line for ``--help``.
    least, above, below : float or None
        Bounds: value >= least, value > above, value < below.
    choices : tuple of str
        The only values, if any are listed.
    """

    kind: Literal["int", "float", "text", "path"]
    help: str
    least: float | None = None
    above: float | None = None
    below: float | None = None
    choices: tuple[str, ...] = ()


LARGEST_COUNT = 2**53
"""No count comes near; beyond it a count is not exact as a floating-point number."""
LARGEST_FLOAT32 = 3.4028234e38
"""torch takes no larger factor for weights of any dtype."""


def _int(default: int, text: str, *, least: int = 1, below: float = LARGEST_COUNT) -> Any:  # noqa: ANN401 - a field
    return field(default=default, metadata={"rule": FieldRule("int", text, least=least, below=below)})


def _float(
    default: float, text: str, *, least: float | None = None, above: float | None = None, below: float | None = None
) -> Any:  # noqa: ANN401 - a field
    return field(default=default, metadata={"rule": FieldRule("float", text, least, above, below)})


def _text(default: str, text: str, *choices: str) -> Any:  # noqa: ANN401 - a field
    return field(default=default, metadata={"rule": FieldRule("text", text, choices=choices)})


def _path(text: str) -> Any:  # noqa: ANN401 - a field
    return field(default=None, metadata={"rule": FieldRule("path", text)})


@dataclass(frozen=True, slots=True)
class Config:
    """Every parameter of a run; the defaults are those of the experiment.

    Raises
    ------
    ConfigError
        A value of the wrong type or out of its bounds, or `hidden_dim` that `num_heads` does not divide.

    Examples
    --------
    >>> Config(total_steps=300).hidden_dim
    64
    """

    corpus: str | None = _path("UTF-8 text to train on")
    tokenizer: str | None = _path("tokenizers JSON file")
    dead_mask: str | None = _path("safetensors file with dead_mask and dead_indices")
    out: str | None = _path("folder of the run; must not exist yet")
    total_steps: int = _int(5000, "number of optimizer steps")
    batch_size: int = _int(128, "sequences in a batch")
    seq_len: int = _int(128, "token ids in a sequence", least=2)
    learning_rate: float = _float(1e-3, "learning rate of AdamW, constant", above=0)
    weight_decay: float = _float(0.0, "weight decay of AdamW", least=0)
    beta1: float = _float(0.9, "beta1 of AdamW", least=0, below=1)
    beta2: float = _float(0.999, "beta2 of AdamW", least=0, below=1)
    epsilon: float = _float(1e-8, "epsilon of AdamW", least=0, below=LARGEST_FLOAT32)
    vocab_size: int = _int(10000, "rows of the embedding, one for each token id")
    hidden_dim: int = _int(64, "width of the model")
    num_layers: int = _int(2, "number of encoder layers", below=10_001)
    num_heads: int = _int(2, "number of attention heads; must divide hidden_dim")
    random_seed: int = _int(42, "seed of Python, numpy and torch", least=0, below=2**32)
    motion_threshold: float = _float(
        DEFAULT_THRESHOLD, "smallest L2 displacement, in cells, that counts as motion", above=0, below=LARGEST_FLOAT32
    )
    device: str = _text("auto", "auto, cpu, mps, cuda or cuda:N; auto takes cuda, then mps, then cpu")
    compute_dtype: str = _text(
        "bfloat16",
        "arithmetic: bfloat16 as in the notebook, float32 with bfloat16 weights (quicker on CPUs without bfloat16 "
        "units), or auto",
        "bfloat16",
        "float32",
        "auto",
    )
    loss_chunk: int = _int(0, "compute the loss over slices of so many positions to save memory; 0 is off", least=0)
    commit_interval: float = _float(30.0, "most seconds between two commits", above=0)
    checkpoint_interval: float = _float(30.0, "least seconds between two checkpoints", least=0)
    experiment: str = _text("Crucible 1", "name in metadata.json")
    series: str = _text("Crucible", "series in metadata.json")
    notes: str = _text("", "free text in metadata.json")

    def __post_init__(self) -> None:
        for item in fields(self):
            object.__setattr__(self, item.name, _checked(item.name, getattr(self, item.name), item.metadata["rule"]))
        if self.hidden_dim % self.num_heads:
            raise ConfigError(f"hidden_dim {self.hidden_dim} must be divisible by num_heads {self.num_heads}")
        self._refuse_endless_steps()
        if self.device.split(":")[0] not in DEVICES or (":" in self.device and not self.device[5:].isdecimal()):
            raise ConfigError(f"device {self.device!r} is not known: expected auto, cpu, mps, cuda or cuda:N")

    def _refuse_endless_steps(self) -> None:
        """Raise where a factor of AdamW's first step is no number that torch takes."""
        for words, factor in (
            ("learning_rate / (1 - beta1)", self.learning_rate / (1 - self.beta1)),
            ("learning_rate x weight_decay", self.learning_rate * self.weight_decay),
        ):
            if factor > LARGEST_FLOAT32:
                raise ConfigError(f"{words} is {factor:.3g}, above the largest float32 number 3.4e+38; lower it")

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any], *, where: str = "config") -> Self:
        """A config from plain values; a key that is no parameter is refused, with the nearest that is."""
        known = [item.name for item in fields(cls)]
        for key in values:
            if key not in known:
                hint = meant(str(key), known) or f"; the parameters are {', '.join(known)}"
                raise ConfigError(f"{where}: unknown parameter {key!r}{hint}")
        return cls(**values)

    def to_mapping(self) -> dict[str, Any]:
        """Plain values that JSON and TOML can hold (a path that is not set is None)."""
        return {item.name: getattr(self, item.name) for item in fields(self)}

    def resolved(self) -> Self:
        """The same with absolute paths."""
        paths = {name: str(Path(value).resolve()) for name in PATHS if (value := getattr(self, name)) is not None}
        return replace(self, **paths)  # type: ignore[arg-type] # mypy looks at every field for one dict

    def require(self, *names: str) -> None:
        """Refuse to go on without these paths."""
        missing = [f"--{name.replace('_', '-')}" for name in names if getattr(self, name) is None]
        if missing:
            raise ConfigError(f"missing {', '.join(missing)}: name each as a flag or in the --config file")


def refuse_other_than_config(given: object) -> None:
    """Say what `train` and `plan` take, where a path or a mapping was given.

    Raises
    ------
    TypeError
    """
    if not isinstance(given, Config):
        found = f"the path {str(given)!r}" if isinstance(given, str | Path) else f"a {type(given).__name__}"
        raise TypeError(
            f"expected a crucible.Config, found {found}; make one with crucible.Config(corpus=..., ...), or of a TOML "
            "file: crucible.Config.from_mapping(tomllib.loads(text))"
        )


def meant(word: str, known: Iterable[str]) -> str:
    """``"; did you mean ...?"`` with the nearest of the known words; nothing where none is near.

    Examples
    --------
    >>> meant("analyse", ["analyze", "watch"])
    '; did you mean analyze?'
    """
    near = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {near[0]}?" if near else ""


def rules() -> dict[str, FieldRule]:
    """The table: name of each field and its rule, in order."""
    return {item.name: item.metadata["rule"] for item in fields(Config)}


def read_file(path: str | Path) -> dict[str, Any]:
    """The values of a TOML file, or of a run's own config.json.

    Paths in it mean what they mean as flags: from the current folder. A config.json's `out` is left out, since that
    run is there already.
    """
    try:
        path = local_path(path)
        text = read_small(path).decode("utf-8")
        return _of_a_run(text, path) if Path(path).suffix == ".json" else tomllib.loads(text)
    except FileNotFoundError as error:
        what = error.strerror if Path(path).is_symlink() else "there is no such config file"
        raise ConfigError(f"{path}: {what}") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError as error:
        kind = "JSON" if Path(path).suffix == ".json" else "TOML"
        raise ConfigError(f"{path}: not valid {kind} (byte {error.start} is not UTF-8)") from None
    except ConfigError:
        raise
    except (ValueError, RecursionError) as error:  # a TOMLDecodeError, or a number of too many digits
        raise ConfigError(f"{path}: not valid TOML ({error})") from None


def write_toml(values: Mapping[str, str | int | float]) -> str:
    """A TOML file of these values, which `read_file` reads back.

    Examples
    --------
    >>> print(write_toml({"corpus": "a.txt", "vocab_size": 600}), end="")
    corpus = "a.txt"
    vocab_size = 600
    """
    return "".join(f"{name} = {json.dumps(value, ensure_ascii=False)}\n" for name, value in values.items())


def _of_a_run(text: str, path: str | Path) -> dict[str, Any]:
    """The parameters in a run's config.json."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: not valid JSON ({error})") from None
    values = document if isinstance(document, dict) else {}
    if "total_steps" not in values:
        raise ConfigError(f"{path}: not the config.json of a run that crucible trained")
    return {name: value for name, value in values.items() if name in rules() and name != "out" and value is not None}


def _checked(name: str, value: Any, rule: FieldRule) -> Any:  # noqa: ANN401 - a field's value
    """The value as its field keeps it, or ConfigError."""
    if rule.kind in ("text", "path"):
        return _checked_text(name, value, rule)
    kinds = (int,) if rule.kind == "int" else (int, float)
    if isinstance(value, bool) or not isinstance(value, kinds):
        raise ConfigError(f"{name} must be {'a whole' if rule.kind == 'int' else 'a'} number, not {value!r}")
    if not math.isfinite(value):
        raise ConfigError(f"{name} must be finite, not {value}")
    for bound, is_bad, words in (
        (rule.least, operator.lt, "at least"),
        (rule.above, operator.le, "above"),
        (rule.below, operator.ge, "below"),
    ):
        if bound is not None and is_bad(value, bound):
            raise ConfigError(f"{name} must be {words} {bound}, not {value}")
    return value if rule.kind == "int" else float(value)


def _checked_path(name: str, value: str | Path) -> str:
    try:
        return str(local_path(value))
    except ValueError as error:
        raise ConfigError(f"{name}: {error}") from None


def _checked_text(name: str, value: Any, rule: FieldRule) -> Any:  # noqa: ANN401 - a field's value
    if rule.kind == "path":
        if value is None or (isinstance(value, (str, Path)) and str(value)):
            return None if value is None else _checked_path(name, value)
        raise ConfigError(f"{name} must be a path, not {value!r}")
    if not isinstance(value, str):
        raise ConfigError(f"{name} must be text, not {value!r}")
    if rule.choices and value not in rule.choices:
        raise ConfigError(f"{name} must be one of {', '.join(rule.choices)}, not {value!r}")
    return value
