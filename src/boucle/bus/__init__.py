"""Readings in, events out: sources, sinks, the embedded broker, and the durable event log."""
