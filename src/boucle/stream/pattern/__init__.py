"""Patterns over the rows of a key: "hot for 30 s, then the pressure drops by 5, and no stop in between".

After row pattern recognition, ISO/IEC 9075-2:2016 (MATCH_RECOGNIZE). Covered: PARTITION BY (`by`), ORDER BY
the event time, DEFINE (`where`, with references to other steps, FIRST and LAST, running aggregates, PREV),
PATTERN with concatenation, alternation (`any`), groups (`steps`), the quantifiers `? * + {n} {n,} {n,m}`, each
reluctant with a `?` behind; leftmost start first and the standard's order of preference; MEASURES with FINAL
semantics, ONE ROW PER MATCH; AFTER MATCH SKIP past last row, to next row, to first or last of a step. Beyond it,
as in SASE+ (Agrawal et al., SIGMOD 2008): rows that fit no step may be skipped (`contiguity: relaxed`),
`not` steps, `for` (a condition that holds), `within`. Not covered: ALL ROWS PER MATCH, SUBSET, PERMUTE,
exclusion `{- -}`, anchors, offsets in PREV, and NEXT (a row is never judged by a later one).

What the words mean here, where the standard is silent:

- `within` is half open: a row `within` after the first one is outside. Absence (a `not` step at the end) is
  complete at that instant, or when its own `for` has passed since the last row.
- relaxed: a row is skipped when no step that could come next takes it. A `not` step ends the way through it
  when a skipped row fits it; the row that completes the next step is not in between.
- `for: 30s`: from the first row that fits, no row says otherwise for 30 s of event time (unknown does not
  say otherwise); complete by the watermark, no further row is needed. As the first step it starts where the
  condition becomes true, so it is told once.
- a match is told at `at`, the time at which it was decided: of the last row if nothing better can come.
"""

from boucle.stream.pattern.operator import Pattern
from boucle.stream.pattern.program import PatternStep

__all__ = ["Pattern", "PatternStep"]
