"""Models as files: hashed, signed with the columns they expect, registered by version, scored in process."""

from boucle.models.file import Column, Manifest, ModelFile
from boucle.models.registry import Reference, Registry, Roles, Version, open_model

__all__ = ["Column", "Manifest", "ModelFile", "Reference", "Registry", "Roles", "Version", "open_model"]
