"""Many files as one: a zip without times, so that the same files give the same bytes and the same digest."""

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path

__all__ = ["pack", "unpack_into"]

_LARGEST = 8 << 30


def pack(files: Mapping[str, bytes]) -> bytes:
    """The files as a zip, in the order of their names."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as packed:
        for name in sorted(files):
            told = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
            told.external_attr = 0o644 << 16
            packed.writestr(told, files[name], compress_type=zipfile.ZIP_DEFLATED, compresslevel=6)
    return out.getvalue()


def unpack_into(content: bytes, folder: Path) -> None:
    """Write the files below a folder; ValueError when it is no zip, or one that is too large.

    Names that lead out of the folder are written within it (`ZipFile.extractall`).
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as packed:
            if sum(one.file_size for one in packed.infolist()) > _LARGEST:
                raise ValueError(f"it would unpack to more than {_LARGEST >> 30} GiB")
            packed.extractall(folder)
    except (zipfile.BadZipFile, EOFError, RuntimeError, NotImplementedError) as error:
        raise ValueError(str(error)) from error
