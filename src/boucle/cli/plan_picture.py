"""A plan as a picture (SVG): what reads from what, by which keys, with which promises, and how large its state is."""

from collections.abc import Mapping
from html import escape

from msgspec import Struct

from boucle.product.document import LoopDocument
from boucle.web.flow import GAP_X, GAP_Y, HEIGHT, MARGIN, TABLE_HEIGHT, WIDTH, Node, joined, lane_y

__all__ = ["PlanNode", "draw", "nodes_of"]

_STYLE = """
text{font:12px system-ui,sans-serif;fill:#1b1f24}.name{font-weight:600;font-size:13px}.small{fill:#57606a}
rect{fill:#fff;stroke:#57606a}.source rect{fill:#ddf4ff}.rule rect{fill:#fff8c5}.actuator rect{fill:#ffebe9}
.table rect{fill:#dafbe1}path{fill:none;stroke:#57606a}marker path{fill:#57606a;stroke:none}
""".strip()
_LETTERS = 24
"""That fit into a box."""


class PlanNode(Struct, frozen=True):
    """A box of the picture: `lines` below its name, `reads` the ids of the boxes that lead into it."""

    id: str
    kind: str
    lines: tuple[str, ...]
    reads: tuple[str, ...] = ()


def nodes_of(
    loop: LoopDocument, promises: Mapping[str, str], spread: Mapping[str, str], sizes: Mapping[str, int]
) -> list[PlanNode]:
    """The boxes of a plan: sources with what they promise, steps with their keys and bytes of state, rules, ends."""
    nodes = [PlanNode(name, "source", (spec.schema, promises[name])) for name, spec in loop.sources.items()]
    streams = set(loop.sources)
    for step in loop.steps:
        state = f"{sizes[step.id]:,} bytes of state" if step.id in sizes else ""
        keys = spread.get(step.id) or _keys(step.with_)
        lines = tuple(line for line in (step.use.rpartition(":")[2], keys, state) if line)
        nodes.append(PlanNode(step.id, "step", lines, tuple(step.from_)))
        streams.add(step.id)
    moved: dict[str, list[str]] = {}
    for rule in loop.rules:
        name = f"rule {rule.get('id', '?')}"
        commands = [str(command.get("target", "?")) for command in rule.get("commands", [])]
        on = str(rule.get("on", ""))
        nodes.append(
            PlanNode(name, "rule", ("commands" if commands else "tells",), (on,) if on in streams else ())
        )
        for target in commands:
            moved.setdefault(target.partition("/")[0], []).append(name)
    for name, actuator in loop.actuators.items():
        limits = f"limits {', '.join(actuator.limits)}" if actuator.limits else ""
        nodes.append(PlanNode(name, "actuator", (limits,), tuple(dict.fromkeys(moved.get(name, ())))))
    for name, table in loop.tables.items():
        feeder = table.from_.partition("/")[0]
        nodes.append(PlanNode(f"{table.zone}/{name}", "table", (f"from {table.from_}",), (feeder,)))
    return nodes


def _keys(declared: Mapping[str, object]) -> str:
    by = declared.get("by")
    if by is None:
        return ""
    return f"by {by if isinstance(by, str) else ', '.join(map(str, by))}"  # type: ignore[call-overload]


def draw(nodes: list[PlanNode], title: str) -> str:
    """The picture as SVG text; every box stands one column right of the last it reads from."""
    column: dict[str, int] = {}
    lanes: dict[int, int] = {}
    placed: dict[str, Node] = {}

    def place(index: int, at: int, y: int, height: int) -> None:
        node = nodes[index]
        placed[node.id] = Node(node.kind, node.id, MARGIN + at * (WIDTH + GAP_X), y, WIDTH, height, index)

    path = [index for index, node in enumerate(nodes) if node.kind != "table"]
    for index in path:
        node = nodes[index]
        at = column[node.id] = 1 + max((column.get(name, -1) for name in node.reads), default=-1)
        lanes[at] = lanes.get(at, 0) + 1
        place(index, at, lane_y(lanes[at] - 1), HEIGHT)
    edges = [
        joined(placed[name], placed[nodes[index].id]).d
        for index in path
        for name in nodes[index].reads
        if name in placed
    ]
    # Tables stand below what feeds them, where no line of the path runs.
    floor, deep = lane_y(max(lanes.values(), default=1)) + GAP_Y, dict[int, int]()
    for index in sorted(set(range(len(nodes))) - set(path)):
        at = max((column.get(name, 0) for name in nodes[index].reads), default=0)
        depth = deep[at] = deep.get(at, -1) + 1
        place(index, at, floor + depth * (TABLE_HEIGHT + 10), TABLE_HEIGHT)
        if not depth and lanes.get(at):
            middle = MARGIN + at * (WIDTH + GAP_X) + WIDTH // 2
            edges.append(f"M{middle} {lane_y(lanes[at] - 1) + HEIGHT}V{floor - 7}")
    width = max((one.x + one.width for one in placed.values()), default=WIDTH) + MARGIN
    height = max((one.y + one.height for one in placed.values()), default=HEIGHT) + MARGIN
    size = f'viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
    boxes = [_box(placed[node.id], node) for node in nodes]
    lines = [f'<path d="{edge}" marker-end="url(#tip)"/>' for edge in edges]
    tip = (
        '<marker id="tip" viewBox="0 0 8 8" refX="1" refY="4" markerWidth="8" markerHeight="8" orient="auto">'
    )
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" role="img" {size}>',
            f"<title>{escape(title)}</title><style>{_STYLE}</style>",
            f'<defs>{tip}<path d="M0 0 8 4 0 8Z"/></marker></defs>',
            *lines,
            *boxes,
            "</svg>\n",
        ]
    )


def _box(place: Node, node: PlanNode) -> str:
    texts = [
        f'<text class="small" x="12" y="{44 + 18 * row}">{escape(_short(line))}</text>'
        for row, line in enumerate(node.lines[:3])
    ]
    whole = escape("\n".join((node.id, *node.lines)))
    return (
        f'<g class="{node.kind}" transform="translate({place.x} {place.y})"><title>{whole}</title>'
        f'<rect width="{place.width}" height="{place.height}" rx="3"/>'
        f'<text class="name" x="12" y="23">{escape(_short(node.id))}</text>{"".join(texts)}</g>'
    )


def _short(text: str) -> str:
    return text if len(text) <= _LETTERS else f"{text[: _LETTERS - 1]}…"
