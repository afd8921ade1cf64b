"""Hatch build hook (placeholder body until the web room lands): brings pinned browser assets in."""

from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class CustomBuildHook(BuildHookInterface):  # type: ignore[type-arg, misc]
    """Fetch the pinned browser assets before the wheel or the editable install is made."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Nothing yet."""
