"""The path as a diagram: where each source, step, actuator and table stands, and what joins them.

Sources stand left, a step one column right of the last step it reads from, actuators at the end,
each table below what feeds it.
"""

from collections import defaultdict

from msgspec import Struct

from boucle.loop.view import LoopView, StepView, TablesView

__all__ = ["Edge", "Flow", "Node", "flow"]

WIDTH, HEIGHT, TABLE_HEIGHT = 186, 104, 58
GAP_X, GAP_Y, MARGIN = 44, 26, 4


class Node(Struct, frozen=True):
    """One box: its place in pixels, and the thing it stands for."""

    kind: str
    id: str
    x: int
    y: int
    width: int
    height: int
    index: int


class Edge(Struct, frozen=True):
    """One line from box to box, as an SVG path."""

    kind: str
    d: str


class Flow(Struct, frozen=True):
    """The whole diagram; `nodes[i].index` is the place in the LoopView's tuple of that kind."""

    width: int
    height: int
    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]


def flow(view: LoopView) -> Flow:
    """Lay the path out."""
    column = step_columns(view.steps)
    last = max(column.values(), default=0)
    lanes: dict[int, int] = defaultdict(int)
    places: dict[str, Node] = {}

    def place(kind: str, name: str, at: int, index: int) -> Node:
        node = Node(kind, name, MARGIN + at * (WIDTH + GAP_X), lane_y(lanes[at]), WIDTH, HEIGHT, index)
        lanes[at] += 1
        return node

    for index, source in enumerate(view.sources):
        places[source.id] = place("source", source.id, 0, index)
    for index, step in enumerate(view.steps):
        places[step.id] = place("step", step.id, column[step.id], index)
    actuators = [place("actuator", one.id, last + 1, index) for index, one in enumerate(view.actuators)]
    read = {name for step in view.steps for name in step.inputs}
    ends = [places[step.id] for step in view.steps if step.id not in read]
    edges = [
        joined(places[name], places[step.id]) for step in view.steps for name in step.inputs if name in places
    ]
    edges += [joined(end, actuator) for end in ends for actuator in actuators]
    floor = lane_y(max(lanes.values(), default=1)) + GAP_Y
    tables, drops = below(view.tables, places, ends, floor)
    nodes = (*places.values(), *actuators, *tables)
    return Flow(
        width=max((node.x + node.width for node in nodes), default=WIDTH) + MARGIN,
        height=max((node.y + node.height for node in nodes), default=HEIGHT) + MARGIN,
        nodes=nodes,
        edges=(*edges, *drops),
    )


def lane_y(lane: int) -> int:
    """The top of a lane, in pixels."""
    return MARGIN + lane * (HEIGHT + GAP_Y)


def step_columns(steps: tuple[StepView, ...]) -> dict[str, int]:
    """Step → column; steps come in path order, so what a step reads is already placed."""
    column: dict[str, int] = {}
    for step in steps:
        column[step.id] = 1 + max((column.get(name, 0) for name in step.inputs), default=0)
    return column


def joined(start: Node, end: Node) -> Edge:
    """A line that runs level in its own lane and bends just before the box it enters."""
    x0, y0 = start.x + start.width, start.y + start.height // 2
    x1, y1 = end.x, end.y + end.height // 2
    bend = x1 - GAP_X + 4
    middle = (bend + x1) // 2
    return Edge("path", f"M{x0} {y0}H{bend}C{middle} {y0} {middle} {y1} {x1 - 7} {y1}")


def below(
    tables: tuple[TablesView, ...], places: dict[str, Node], ends: list[Node], floor: int
) -> tuple[list[Node], list[Edge]]:
    """Tables in the columns of what feeds them, and the dashed lines down to them."""
    depth: dict[int, int] = defaultdict(int)
    nodes: list[Node] = []
    edges: list[Edge] = []
    for index, table in enumerate(tables):
        feeder = places.get(table.name) or places.get(table.name.removesuffix("_raw"))
        feeder = feeder or (ends[0] if ends else None)
        x = feeder.x if feeder else MARGIN
        node = Node(
            "table", table.name, x, floor + depth[x] * (TABLE_HEIGHT + 10), WIDTH, TABLE_HEIGHT, index
        )
        if feeder and not depth[x]:
            stacked = max(one.y + one.height for one in places.values() if one.x == x)
            middle = x + WIDTH // 2
            edges.append(Edge("table", f"M{middle} {stacked}V{floor - 7}"))
        depth[x] += 1
        nodes.append(node)
    return nodes, edges
