"""The same plan in Python: each call adds a step, as an entry under `steps` of product.yaml would.

>>> flow = Flow()
>>> hot = flow.source("process").filter("value > 80").tumbling("hot", size="1min", by="machine", values={"n": "count"})
>>> [step.id for step in flow.steps]
['filter-1', 'hot']
>>> print(flow.yaml())
steps:
- id: filter-1
  use: boucle.stream.rows:Filter
  from: [process]
  with: {where: value > 80}
- id: hot
  use: boucle.stream.window:Tumbling
  from: [filter-1]
  ...

`flow.run` takes Blocks all the way, without a loop around it: for tests, notebooks and benchmarks.
"""

import inspect
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import yaml

from boucle.block import Block, Position
from boucle.errors import BoucleError
from boucle.loop.path import Path, Step
from boucle.loop.plan import find_operator

__all__ = ["Flow", "Stream"]

FOREVER = 2**62
"""A watermark that no row comes after."""


class Stream:
    """A stream of the flow: a source's, or what a step gives."""

    def __init__(self, flow: "Flow", name: str) -> None:
        self.flow, self.name = flow, name

    def to(self, use: Any, name: str = "", *beside: "Stream", **settings: Any) -> "Stream":
        """Any operator, by class or `module:Class`; it also reads the streams `beside`."""
        return self.flow.step(use, (self, *beside), name, settings)

    @property
    def late(self) -> "Stream":
        """The rows that came too late for this step, with `late_by_ns`."""
        return Stream(self.flow, f"{self.name}/late")

    def map(self, name: str = "", **columns: Any) -> "Stream":
        """Add or replace columns by expressions."""
        return self.to("boucle.stream.rows:Map", name, columns=columns)

    def filter(self, where: Any, name: str = "") -> "Stream":
        """Keep the rows for which the expression is true."""
        return self.to("boucle.stream.rows:Filter", name, where=where)

    def select(self, *columns: str, name: str = "", **renamed: str) -> "Stream":
        """Pick columns, or rename them: new="old"."""
        picked: Any = {**{one: one for one in columns}, **renamed} if renamed else list(columns)
        return self.to("boucle.stream.rows:Select", name, columns=picked)

    def flat_map(self, name: str = "", **settings: Any) -> "Stream":
        """Several rows, or none, for each."""
        return self.to("boucle.stream.rows:FlatMap", name, **settings)

    def union(self, *others: "Stream", name: str = "") -> "Stream":
        """These streams as one."""
        inputs = [self.name, *(other.name for other in others)]
        return self.to("boucle.stream.rows:Union", name, *others, inputs=inputs)

    def tumbling(self, name: str = "", **settings: Any) -> "Stream":
        """Windows side by side."""
        return self.to("boucle.stream.window:Tumbling", name, **settings)

    def hopping(self, name: str = "", **settings: Any) -> "Stream":
        """Windows that overlap."""
        return self.to("boucle.stream.window:Hopping", name, **settings)

    def session(self, name: str = "", **settings: Any) -> "Stream":
        """Windows of activity."""
        return self.to("boucle.stream.window:Session", name, **settings)

    def counted(self, name: str = "", **settings: Any) -> "Stream":
        """Windows of so many rows."""
        return self.to("boucle.stream.window:Counted", name, **settings)

    def sliding(self, name: str = "", **settings: Any) -> "Stream":
        """Features over sliding windows, appended to every row."""
        return self.to("boucle.stream.sliding:Sliding", name, **settings)

    def interval_join(self, right: "Stream", name: str = "", **settings: Any) -> "Stream":
        """Rows of two streams whose times lie close."""
        return self.to(
            "boucle.stream.join:IntervalJoin", name, right, left=self.name, right=right.name, **settings
        )

    def as_of_join(self, right: "Stream", name: str = "", **settings: Any) -> "Stream":
        """Each row with the right row in force at its time."""
        return self.to(
            "boucle.stream.join:AsOfJoin", name, right, left=self.name, right=right.name, **settings
        )

    def pattern(self, name: str = "", **settings: Any) -> "Stream":
        """Sequences of rows."""
        return self.to("boucle.stream.pattern:Pattern", name, **settings)

    def stateful(self, name: str = "", **settings: Any) -> "Stream":
        """A function per key, with state and timers."""
        return self.to("boucle.stream.stateful:Stateful", name, **settings)


class Flow:
    """Steps in the order in which they were added."""

    def __init__(self) -> None:
        self.sources: list[str] = []
        self._steps: list[Step] = []
        self._settings: dict[str, dict[str, Any]] = {}

    @property
    def steps(self) -> tuple[Step, ...]:
        """The steps, with fresh operators."""
        return tuple(self._steps)

    def source(self, name: str) -> Stream:
        """A stream that comes from outside."""
        if name not in self.sources:
            self.sources.append(name)
        return Stream(self, name)

    def step(self, use: Any, inputs: Sequence[Stream], name: str, settings: Mapping[str, Any]) -> Stream:
        """Add a step; B213 when its name is taken or its operator does not take these settings."""
        operator = find_operator(use) if isinstance(use, str) else use
        step = name or f"{operator.__name__.lower()}-{len(self._steps) + 1}"
        if step in self._settings or step in self.sources:
            raise BoucleError("B213", f"there are two streams {step}", fix="give each step its own name")
        try:
            inspect.signature(operator).bind(stream=step, **settings)
        except TypeError as error:
            takes = [one for one in inspect.signature(operator).parameters if one != "stream"]
            what = f"{operator.__name__} does not take these settings"
            raise BoucleError("B213", what, why=str(error), fix=f"it takes: {', '.join(takes)}") from error
        made = operator(stream=step, **settings)
        told = use if isinstance(use, str) else f"{operator.__module__}:{operator.__qualname__}"
        self._steps.append(Step(step, told, tuple(one.name for one in inputs), made))
        self._settings[step] = dict(settings)
        return Stream(self, step)

    def yaml(self) -> str:
        """The steps as product.yaml would declare them; B213 where one was given a Python function."""
        declared = []
        for step in self._steps:
            entry: dict[str, Any] = {"id": step.id, "use": step.use, "from": list(step.inputs)}
            if self._settings[step.id]:
                entry["with"] = self._settings[step.id]
            declared.append(entry)
        try:
            return yaml.safe_dump(
                {"steps": declared}, sort_keys=False, allow_unicode=True, default_flow_style=None
            )
        except yaml.YAMLError as error:
            fix = "write it as an expression, or as a class of your own with settings"
            raise BoucleError(
                "B213", "a Python function cannot be declared", why=str(error), fix=fix
            ) from error

    def run(self, blocks: Iterable[Block], *wanted: Stream, end: bool = True) -> dict[str, list[Block]]:
        """Take Blocks all the way; gives the Blocks of the wanted streams (none named: of every step).

        With `end` every source ends with a watermark after everything, so that all windows close.
        """
        names = [one.name for one in wanted] or [step.id for step in self._steps]
        given: dict[str, list[Block]] = {name: [] for name in names}
        path = Path(self._steps, {name: [given[name].append] for name in names})
        last: dict[str, Block] = {}
        for block in blocks:
            path.push(block)
            last[block.stream] = block
        if end:
            for name, block in last.items():
                path.push(Block(name, block.rows.slice(0, 0), FOREVER, Position(name, 0)))
        return given
