"""The figures of all sides as one table in markdown."""

from collections.abc import Iterator
from math import isnan

from attrs import frozen
from bench_engine_cases import Case, Figure, Kind, Target
from bench_engine_wire import Answer

HEAD = ("", "quant", "helexa", "transformers", "llama.cpp", "helexa / llama.cpp", "target", "met")
NOT_MEASURED = "not measured"
NOT_THERE = "-"  # the side has no such thing
PLACES = {"ms": 1, "tok/s": 1, "ratio": 2, "steps": 0, "MB": 0}

Value = float | str  # a string says why there is none


@frozen
class Row:
    figure: Figure
    quant: str
    ours: Value
    stock: Value
    peer: Value

    @property
    def ratio(self) -> Value:
        for value in (self.ours, self.peer):
            if isinstance(value, str):
                return value
        return self.ours / self.peer if self.peer else NOT_THERE  # type: ignore[operator]

    @property
    def verdict(self) -> str:
        target = self.figure.target
        if target is None:
            return ""
        value = self.ours if target.of == "value" else self.ratio
        return value if isinstance(value, str) else ("yes" if target.met(value) else "**no**")

    @property
    def line(self) -> str:
        """The row on its own, to be read while the others are measured."""
        cells = zip(HEAD, self.cells(), strict=True)
        return ", ".join(f"{head} {cell}".strip() for head, cell in cells if cell)

    def cells(self) -> tuple[str, ...]:
        figure = self.figure
        return (
            figure.name,
            self.quant,
            *(shown(value, figure.unit) for value in (self.ours, self.stock, self.peer)),
            "" if figure.unit in ("ratio", "steps") else shown(self.ratio, "ratio"),
            told(figure.target),
            self.verdict,
        )


def told(target: Target | None) -> str:
    if target is None:
        return ""
    return f"{target} of llama.cpp" if target.of == "ratio" else str(target)


def shown(value: Value, unit: str) -> str:
    if isinstance(value, str):
        return value
    number = f"{value:.{PLACES[unit]}f}"
    return number if unit in ("ratio", "steps") else f"{number} {unit}"


Answers = dict[tuple[Kind, str], list[Answer]]  # by side and quant


def rows(case: Case, answers: Answers, quants: list[str]) -> Iterator[Row]:
    for figure in case.figures:
        for quant in quants:
            yield Row(
                figure,
                quant,
                value(figure, case, answers, "helexa", quant),
                value(figure, case, answers, "transformers", "none"),
                value(figure, case, answers, "llama.cpp", "none"),
            )


def value(figure: Figure, case: Case, answers: Answers, kind: Kind, quant: str) -> Value:
    if kind not in case.sides:
        return NOT_THERE
    given = answers.get((kind, quant))
    if not given:
        return NOT_MEASURED
    read = figure.read(given)
    return NOT_MEASURED if isnan(read) else read


def markdown(rows: list[Row]) -> str:
    lines = [HEAD, *(row.cells() for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEAD))]
    padded = [
        "| " + " | ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)) + " |"
        for line in lines
    ]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([padded[0], rule, *padded[1:]])
