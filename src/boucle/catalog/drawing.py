"""An answer of lineage as a picture (SVG): a box for each thing with the columns concerned, a line for each link.

Things stand left to right in the order values flow. The picture has classes and no styles of its own unless it is to
stand alone, in a file; a page with a strict content policy brings the style sheet.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from html import escape
from urllib.parse import quote

from msgspec import Struct

from boucle.catalog.graph import CARRIES, WHOLE, Link, Node
from boucle.catalog.questions import Answer, Reached

__all__ = ["draw", "draw_things"]

WIDTH, ROW, HEAD, GAP_X, GAP_Y, MARGIN = 236, 19, 44, 64, 18, 6
_ROWS = 9
"""Columns that a box names; the others are counted."""
_BOXES = 60
_LETTERS = 31
_STYLE = """
text{font:12px system-ui,sans-serif;fill:#1f1f1f}.name{font-weight:600;font-size:13px}.small,.more{fill:#505050}
rect{fill:#efefef;stroke:#9b9b9b}.asked rect{stroke:#1f1f1f;stroke-width:2.5}.command rect,.rule rect,.model rect
{fill:#e6e6e6;stroke-dasharray:4 3}.edge{fill:none;stroke:#9b9b9b;stroke-width:1.4}.edge.decides{stroke-dasharray:3 4}
.edge.unknown{stroke:#b26a00;stroke-dasharray:1 4}.tip{fill:#505050}.asked .self{font-weight:700}
""".strip()


class _Box(Struct):
    thing: Node
    columns: list[str]
    level: int = 0
    x: int = 0
    y: int = 0

    @property
    def shown(self) -> list[str]:
        return self.columns if len(self.columns) <= _ROWS else self.columns[: _ROWS - 1]

    @property
    def hidden(self) -> int:
        return len(self.columns) - len(self.shown)

    @property
    def height(self) -> int:
        return HEAD + ROW * (len(self.shown) + bool(self.hidden)) + (6 if self.columns else 0)

    def middle(self, column: str) -> int:
        """How far down a line to this column ends."""
        if column in self.shown:
            return self.y + HEAD + ROW * self.shown.index(column) + ROW // 2
        return self.y + (HEAD + ROW * len(self.shown) + ROW // 2 if self.hidden and column else HEAD // 2)


def draw(
    answer: Answer, *, alone: bool = True, kinds: Mapping[str, str] | None = None, links: str = ""
) -> str:
    """The picture of an answer. `alone`: with its styles, for a file; `kinds`: words for `table`, `rule`, …

    `links`: an address with `{node}` in it, that a click on a column leads to.
    """
    boxes = _boxes(answer)
    kept = [one for one in answer.reached if one.node.of(WHOLE) in boxes and one.via.of(WHOLE) in boxes]
    left = len({one.node.of(WHOLE) for one in answer.reached} | {answer.asked.of(WHOLE)}) - len(boxes)
    forward = answer.direction == "impact"
    _place(boxes, kept, forward=forward)
    lines = dict.fromkeys(_line(boxes, one, forward=forward) for one in kept)
    drawn = [_drawn(box, answer.asked, {}, kinds or {}, links) for box in boxes.values()]
    return _whole(boxes, [*lines, *drawn], f"{answer.asked}: {answer.direction}", left, alone=alone)


def draw_things(
    said: str,
    links: Iterable[Link],
    *,
    alone: bool = True,
    titles: Mapping[Node, str] | None = None,
    kinds: Mapping[str, str] | None = None,
) -> str:
    """The things of a product and what leads from one to the next; `titles` stand beside their names."""
    pairs: dict[tuple[Node, Node], Reached] = {}
    for link in links:
        source, target = link.source.of(WHOLE), link.target.of(WHOLE)
        known = pairs.get((source, target))
        decides = link.how not in CARRIES
        if source != target and (known is None or (known.decides and not decides)):
            pairs[source, target] = Reached(target, source, link.how, "", "", 1, decides)
    boxes = {
        thing: _Box(thing, [])
        for thing in list(dict.fromkeys(node for pair in pairs for node in pair))[:_BOXES]
    }
    if not boxes:
        return ""
    kept = [one for one in pairs.values() if one.node in boxes and one.via in boxes]
    _place(boxes, kept, forward=True)
    lines = dict.fromkeys(_line(boxes, one, forward=True) for one in kept)
    drawn = [_drawn(box, None, titles or {}, kinds or {}, "") for box in boxes.values()]
    left = len({node for pair in pairs for node in pair}) - len(boxes)
    return _whole(boxes, [*lines, *drawn], said, left, alone=alone)


def _whole(boxes: dict[Node, _Box], parts: list[str], said: str, left: int, *, alone: bool) -> str:
    width = max(box.x for box in boxes.values()) + WIDTH + MARGIN
    height = max(box.y + box.height for box in boxes.values()) + MARGIN + (20 if left > 0 else 0)
    size = f'viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
    tip = (
        '<marker id="lineage-tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" '
        'markerUnits="userSpaceOnUse" orient="auto"><path class="tip" d="M0 0 8 4 0 8Z"/></marker>'
    )
    more = f'<text class="more" x="{MARGIN}" y="{height - 4}">+ {left}</text>' if left > 0 else ""
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" class="lineage" role="img" aria-label="{escape(said)}" {size}>',
            f"<title>{escape(said)}</title>",
            f"<style>{_STYLE}</style>" if alone else "",
            f"<defs>{tip}</defs>",
            *parts,
            more,
            "</svg>\n",
        ]
    )


def _boxes(answer: Answer) -> dict[Node, _Box]:
    columns: dict[Node, dict[str, None]] = {answer.asked.of(WHOLE): {}}
    if answer.asked.column:
        columns[answer.asked.of(WHOLE)][answer.asked.column] = None
    for one in answer.reached:
        thing = one.node.of(WHOLE)
        if thing not in columns and len(columns) >= _BOXES:
            continue
        held = columns.setdefault(thing, {})
        if one.node.column:
            held[one.node.column] = None
    return {thing: _Box(thing, list(held)) for thing, held in columns.items()}


def _place(boxes: dict[Node, _Box], kept: list[Reached], *, forward: bool) -> None:
    after: dict[Node, list[Node]] = defaultdict(list)
    for one in kept:
        pair = (one.via.of(WHOLE), one.node.of(WHOLE))
        if pair[0] != pair[1] and pair[1] not in after[pair[0]]:
            after[pair[0]].append(pair[1])
    order = _sorted(list(boxes), after)
    for thing in order:
        for other in after[thing]:
            if order.index(other) > order.index(thing):
                boxes[other].level = max(boxes[other].level, boxes[thing].level + 1)
    last = max(box.level for box in boxes.values())
    bottom: dict[int, int] = defaultdict(lambda: MARGIN)
    for thing in order:
        box = boxes[thing]
        box.level = box.level if forward else last - box.level
        box.x = MARGIN + box.level * (WIDTH + GAP_X)
        box.y = bottom[box.level]
        bottom[box.level] += box.height + GAP_Y


def _sorted(things: list[Node], after: Mapping[Node, list[Node]]) -> list[Node]:
    """Every thing before those it leads to; a line that closes a circle is left out of account."""
    found: list[Node] = []
    state: dict[Node, int] = {}
    for first in things:
        left = [(first, 0)]
        while left:
            thing, place = left.pop()
            if place == 0 and state.get(thing):
                continue
            state[thing] = 1
            others = after.get(thing, [])
            if place < len(others):
                left.append((thing, place + 1))
                if not state.get(others[place]):
                    left.append((others[place], 0))
            elif state[thing] == 1:
                state[thing] = 2
                found.append(thing)
    return found[::-1]


def _line(boxes: dict[Node, _Box], one: Reached, *, forward: bool) -> str:
    source, target = (one.via, one.node) if forward else (one.node, one.via)
    begin, end = boxes[source.of(WHOLE)], boxes[target.of(WHOLE)]
    if begin is end:
        return ""
    x, y = begin.x + WIDTH, begin.middle(source.column)
    to_x, to_y = end.x - 2, end.middle(target.column)
    bend = max(24, min(60, abs(to_x - x) // 2))
    kind = " unknown" if one.how == "UNKNOWN" else " decides" if one.decides else ""
    return (
        f'<path class="edge{kind}" marker-end="url(#lineage-tip)" '
        f'd="M{x} {y}C{x + bend} {y} {to_x - bend} {to_y} {to_x} {to_y}"/>'
    )


def _drawn(
    box: _Box, asked: Node | None, titles: Mapping[Node, str], kinds: Mapping[str, str], links: str
) -> str:
    thing = box.thing
    kind = f"{thing.kind} asked" if asked is not None and thing == asked.of(WHOLE) else thing.kind
    called = titles.get(thing) or kinds.get(thing.kind, thing.kind)
    small = " · ".join(part for part in (called, thing.product) if part)
    parts = [
        f'<g class="{kind}" transform="translate({box.x} {box.y})"><title>{escape(str(thing))}</title>',
        f'<rect width="{WIDTH}" height="{box.height}" rx="3"/>',
        f'<text class="name" x="10" y="18">{escape(_short(_called(thing)))}</text>',
        f'<text class="small" x="10" y="35">{escape(_short(small))}</text>',
    ]
    for place, column in enumerate(box.shown):
        mine = ' class="self"' if thing.of(column) == asked else ""
        text = f'<text{mine} x="18" y="{HEAD + ROW * place + 14}">{escape(_short(column))}</text>'
        if links:
            text = f'<a href="{escape(links.format(node=quote(str(thing.of(column)), safe="")))}">{text}</a>'
        parts.append(text)
    if box.hidden:
        y = HEAD + ROW * len(box.shown) + 14
        parts.append(f'<text class="more" x="18" y="{y}">+ {box.hidden}</text>')
    return "".join([*parts, "</g>"])


def _called(thing: Node) -> str:
    """A topic by its last part: its broker stands in the title."""
    return (
        thing.name
        if thing.kind != "topic"
        else thing.name.partition("://")[2].partition("/")[2] or thing.name
    )


def _short(text: str) -> str:
    return text if len(text) <= _LETTERS else f"{text[: _LETTERS - 1]}…"
