"""Models as files: hashed, signed with the columns they expect, scored in process."""

from boucle.models.file import Column, Manifest, ModelFile

__all__ = ["Column", "Manifest", "ModelFile"]
