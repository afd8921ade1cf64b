"""Objectives at work: what was good is counted per minute, budgets are what is left, alerts how fast it goes.

After Beyer et al., "The Site Reliability Workbook" (2018), chapters 2 and 5. The declaration is compiled in
`boucle.product.sla`; a running loop feeds `boucle.quality.slo.measures` (`boucle.loop.slo`).
"""
