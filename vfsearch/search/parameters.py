"""The parameters of a sweep: typed, and translated straight to Optuna's distributions."""

import difflib
import math
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, Discriminator, Field, Tag, model_validator

from vfsearch.config import RunConfig, Section

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.trial import Trial


def _scalar(value: object) -> object:
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    raise ValueError(
        f"{value!r} must be a number, a text, true, false or null "
        "(anything else needs a name: choices: {some_name: {the.setting: value}})"
    )


def listed(value: object) -> object:
    """One value or several, as several."""
    return value if isinstance(value, list | tuple) else (value,)


def _choices_tag(value: object) -> str:
    return "bundles" if isinstance(value, dict) else "values"


Scalar = Annotated[bool | int | float | str | None, BeforeValidator(_scalar)]
Finite = Annotated[float, Field(allow_inf_nan=False)]


class Parameter(Section):
    """What every kind of parameter has."""

    name: str
    """Dotted setting, or the free name of a bundle; in a file, the key of the entry."""
    when: dict[str, Annotated[tuple[Scalar, ...], BeforeValidator(listed)]] = Field(
        default_factory=dict
    )
    """The parameter exists only if all of these parameters have (one of) these values."""

    def active(self, params: dict[str, Any]) -> bool:
        """Whether the parameter exists beside these values of the others."""
        return all(
            other in params and any(same(params[other], value) for value in wanted)
            for other, wanted in self.when.items()
        )


class FloatParameter(Parameter):
    """A real number."""

    type: Literal["float"]
    low: Finite
    """Smallest value."""
    high: Finite
    """Largest value."""
    log: bool = False
    """Search on a logarithmic scale."""
    step: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    """Grid of the values, counted from ``low``; null: all reals between."""

    @model_validator(mode="after")
    def _range(self) -> Self:
        _check_range(self.name, self.low, self.high, self.log, self.step)
        return self

    def distribution(self) -> "BaseDistribution":
        """Return Optuna's distribution."""
        from optuna.distributions import FloatDistribution

        return FloatDistribution(self.low, self.high, log=self.log, step=self.step)

    def suggest(self, trial: "Trial") -> float:
        """Ask a trial for a value."""
        return trial.suggest_float(self.name, self.low, self.high, log=self.log, step=self.step)

    def contains(self, value: object) -> bool:
        """Whether the value lies in the range, and on the grid if there is one."""
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        on_grid = self.step is None or math.isclose(
            (value - self.low) / self.step, round((value - self.low) / self.step), abs_tol=1e-8
        )
        return self.low <= value <= self.high and on_grid

    def grid(self, points: int) -> tuple[float, ...]:
        """Return the steps, or ``points`` values evenly spaced on the parameter's scale."""
        if self.step is not None:
            count = math.floor((self.high - self.low) / self.step + 1e-8) + 1
            return tuple(self.low + index * self.step for index in range(count))
        shares = [index / (points - 1) for index in range(points)]
        if self.log:
            ratio = self.high / self.low
            inner = [self.low * ratio**share for share in shares[1:-1]]
        else:
            inner = [self.low + (self.high - self.low) * share for share in shares[1:-1]]
        return (self.low, *inner, self.high)

    @property
    def ends(self) -> tuple[float, ...]:
        """Return the values to validate a run with."""
        return (self.low, self.high)

    @property
    def count(self) -> int | None:
        """Number of values; None: a continuum."""
        return None if self.step is None else len(self.grid(2))


class IntParameter(Parameter):
    """A whole number."""

    type: Literal["int"]
    low: int
    """Smallest value."""
    high: int
    """Largest value."""
    log: bool = False
    """Search on a logarithmic scale."""
    step: Annotated[int, Field(ge=1)] = 1
    """Grid of the values, counted from ``low``."""

    @model_validator(mode="after")
    def _range(self) -> Self:
        _check_range(self.name, self.low, self.high, self.log, self.step if self.step > 1 else None)
        return self

    def distribution(self) -> "BaseDistribution":
        """Return Optuna's distribution."""
        from optuna.distributions import IntDistribution

        return IntDistribution(self.low, self.high, log=self.log, step=self.step)

    def suggest(self, trial: "Trial") -> int:
        """Ask a trial for a value."""
        return trial.suggest_int(self.name, self.low, self.high, log=self.log, step=self.step)

    def contains(self, value: object) -> bool:
        """Whether the value lies in the range and on the grid."""
        if isinstance(value, bool) or not isinstance(value, int):
            return False
        return self.low <= value <= self.high and (value - self.low) % self.step == 0

    def grid(self, points: int) -> tuple[int, ...]:
        """Return every value; the number of points is for reals only."""
        del points
        return tuple(range(self.low, self.high + 1, self.step))

    @property
    def ends(self) -> tuple[int, ...]:
        """Return the values to validate a run with."""
        return (self.low, self.high)

    @property
    def count(self) -> int | None:
        """Number of values."""
        return (self.high - self.low) // self.step + 1


class CategoricalParameter(Parameter):
    """One of several values, or one of several named bundles of settings."""

    type: Literal["categorical"]
    choices: Annotated[
        Annotated[tuple[Scalar, ...], Tag("values")]
        | Annotated[dict[str, dict[str, Any]], Tag("bundles")],
        Discriminator(_choices_tag),
    ]
    """A list of values, or a mapping of names to dotted settings that the name stands for."""

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        values = self.values
        if not values:
            raise ValueError(f"{self.name} has no choices")
        for index, value in enumerate(values):
            if any(same(value, other) for other in values[:index]):
                raise ValueError(f"{self.name} has the choice {value!r} twice")
        return self

    @property
    def values(self) -> tuple[Scalar, ...]:
        """The values, or the names of the bundles."""
        return tuple(self.choices)

    @property
    def bundles(self) -> dict[str, dict[str, Any]]:
        """Settings by name; empty if the choices are values."""
        return self.choices if isinstance(self.choices, dict) else {}

    def distribution(self) -> "BaseDistribution":
        """Return Optuna's distribution."""
        from optuna.distributions import CategoricalDistribution

        return CategoricalDistribution(self.values)

    def suggest(self, trial: "Trial") -> Scalar:
        """Ask a trial for a value."""
        chosen: Scalar = trial.suggest_categorical(self.name, self.values)
        return chosen

    def contains(self, value: object) -> bool:
        """Whether the value is one of the choices."""
        return any(same(value, choice) for choice in self.values)

    def grid(self, points: int) -> tuple[Scalar, ...]:
        """Return every choice; the number of points is for reals only."""
        del points
        return self.values

    @property
    def ends(self) -> tuple[Scalar, ...]:
        """Return the values to validate a run with: all of them."""
        return self.values

    @property
    def count(self) -> int | None:
        """Number of choices."""
        return len(self.values)


KINDS: dict[str, type[FloatParameter] | type[IntParameter] | type[CategoricalParameter]] = {
    "float": FloatParameter,
    "int": IntParameter,
    "categorical": CategoricalParameter,
}
AnyParameter = Annotated[
    FloatParameter | IntParameter | CategoricalParameter, Discriminator("type")
]


def same(left: object, right: object) -> bool:
    """Equality that keeps ``true`` and ``1`` apart."""
    return isinstance(left, bool) == isinstance(right, bool) and left == right


def run_keys() -> tuple[str, ...]:
    """Every dotted setting of a run, in the order of the reference."""
    return tuple(_keys(RunConfig, ""))


def nearest(name: str, known: Iterable[str]) -> str:
    """`` (did you mean x?)``, or nothing if no known name is near."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f" (did you mean {near[0]}?)" if near else ""


def _keys(model: type[BaseModel], prefix: str) -> Iterator[str]:
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from _keys(kind, f"{prefix}{name}.")
        else:
            yield prefix + name


def _check_range(name: str, low: float, high: float, log: bool, step: float | None) -> None:
    if not low < high:
        raise ValueError(f"low < high must hold, but {name} has low={low}, high={high}")
    if log and low <= 0:
        raise ValueError(f"0 < low must hold on a logarithmic scale, but {name} has low={low}")
    if log and step is not None:
        raise ValueError(f"log and step exclude each other, but {name} has step={step}")
    if step is not None and not math.isclose((high - low) / step, round((high - low) / step)):
        raise ValueError(
            f"high - low must be a multiple of step, but {name} has low={low}, high={high}, "
            f"step={step}"
        )
