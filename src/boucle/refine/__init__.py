"""From raw to silver to gold: tables made from tables, staged, audited by their gates, then published in one commit.

Consumers see a version that passed, or the one before it; what did not pass is kept apart, with the reason.
"""
