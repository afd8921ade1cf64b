"""The verbs: what people type."""
