"""Assembles a product and runs it; the only room that knows all the others."""
