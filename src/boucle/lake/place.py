"""Where a table lies: a folder of this machine, or a prefix of an S3 bucket. What differs between them ends here.

delta-rs reads and writes the log of both; data files are written, listed and removed through Arrow's file systems.
A folder has a lock that a killed process lets go of, and is fsync'ed. A bucket has neither: there two writers are
told apart by conditional puts (the second one to write a version is refused), and what was answered is stored.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, Protocol
from urllib.parse import parse_qsl, urlsplit

import pyarrow as pa
import pyarrow.parquet as pq
from msgspec import Struct

from boucle.errors import BoucleError

__all__ = ["Bucket", "Found", "Local", "Place", "commit_file", "fsync", "is_bucket", "number_of", "place_of"]

_PATIENCE = {"max_retries": "3", "retry_timeout": "10s", "timeout": "30s", "connect_timeout": "5s"}
"""Whoever writes tries again later by itself; it must hear soon that the server is away."""


def commit_file(version: int) -> str:
    """The path of a commit within its table."""
    return f"_delta_log/{version:020d}.json"


def number_of(name: str) -> int:
    """The version a file of the log belongs to; -1 for one that belongs to none."""
    head = name[:20]
    return int(head) if len(head) == 20 and head.isdigit() else -1


class Found(Struct, frozen=True):
    """A file below a table; `path` is relative to it, `seconds` since the epoch when it was written."""

    path: str
    seconds: float
    bytes: int


class Place(Protocol):
    """Where a table lies."""

    address: str
    """What opens it again."""
    uri: str
    """The same for delta-rs, with `options`."""
    options: dict[str, str] | None
    parts: PurePosixPath

    def full(self, path: str) -> str:
        """The whole address of a file of the table."""
        ...

    def write(self, path: str, rows: pa.Table) -> int:
        """Write a Parquet file and return its size in bytes."""
        ...

    def open(self, full: str) -> Any:
        """A Parquet file, to be read; FileNotFoundError when it is gone."""
        ...

    def text(self, path: str) -> str | None:
        """A small file's text; None when there is none."""
        ...

    def exists(self, path: str) -> bool:
        """Whether a file of the table is there."""
        ...

    def newest(self, known: int) -> int:
        """The newest version; `known` is one that was there. OSError when there is none, or nobody can say now."""
        ...

    def found(self) -> Iterator[Found]:
        """Every data file below the table, whether a version needs it or not."""
        ...

    def remove(self, path: str) -> None:
        """Delete a file; nothing happens when it is gone."""
        ...

    def alone(self) -> Any:
        """A context within which no other process of this machine changes the table."""
        ...


def is_bucket(where: str | Path) -> bool:
    """Whether an address means a bucket."""
    return str(where).startswith("s3:")


def place_of(where: str | Path) -> Place:
    """`s3://bucket/prefix?endpoint=…&region=…`, or the path of a folder."""
    return Bucket(str(where)) if is_bucket(where) else Local(Path(where))


class Local:
    """A folder of this machine."""

    options: dict[str, str] | None = None

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        self.uri = self.address = str(self.folder)
        self.parts = PurePosixPath(self.folder)

    def full(self, path: str) -> str:
        """The whole path of a file of the table."""
        return str(self.folder / path)

    def write(self, path: str, rows: pa.Table) -> int:
        """Write a Parquet file and return its size in bytes."""
        target, body = self.folder / path, _parquet(rows)
        for last in (False, True):
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                target.write_bytes(body)
                break
            except FileNotFoundError:
                if last:  # once, a vacuum took the empty folder away in between
                    raise
        return int(body.size)

    def open(self, full: str) -> pq.ParquetFile:
        """A Parquet file, to be read; FileNotFoundError when it is gone."""
        return pq.ParquetFile(full)

    def text(self, path: str) -> str | None:
        """A small file's text; None when there is none."""
        try:
            return (self.folder / path).read_text(encoding="utf-8")
        except (FileNotFoundError, NotADirectoryError):
            return None

    def exists(self, path: str) -> bool:
        """Whether a file of the table is there."""
        return (self.folder / path).exists()

    def newest(self, known: int) -> int:  # noqa: ARG002 - a folder is listed, whatever was known
        """The newest version; FileNotFoundError when the folder has none."""
        names = os.listdir(self.folder / "_delta_log")  # noqa: PTH208 - at each commit: names, no Path for each
        # the names are of one length, so the last of them is the newest
        newest = max((name for name in names if name.endswith(".json") and name[0] <= "9"), default="")
        if not newest:
            raise FileNotFoundError(f"{self.folder / '_delta_log'} holds no version")
        return number_of(newest)

    def put_new(self, path: str, body: bytes) -> bool:
        """Write a file that appears whole, unless one of its name is there: False. Call it within `alone`."""
        target = self.folder / path
        unnamed = target.with_name("_next.tmp")
        unnamed.unlink(missing_ok=True)  # not written over: a killed one may have given it its name
        unnamed.write_bytes(body)
        try:
            os.link(unnamed, target)
        except FileExistsError:
            return False
        finally:
            unnamed.unlink()
        return True

    def found(self) -> Iterator[Found]:
        """Every Parquet file below the folder but those of the log."""
        for file in self.folder.rglob("*.parquet"):
            path = file.relative_to(self.folder)
            if not path.parts[0].startswith("_"):
                try:
                    told = file.stat()
                except FileNotFoundError:
                    continue
                yield Found(path.as_posix(), told.st_mtime, told.st_size)

    def remove(self, path: str) -> None:
        """Delete a file, and its folder when that is empty now."""
        file = self.folder / path
        file.unlink(missing_ok=True)
        for parent in file.parents:
            if parent == self.folder or any(parent.iterdir()):
                return
            try:
                parent.rmdir()
            except OSError:
                return  # a writer was faster and has put a file there

    @contextmanager
    def alone(self) -> Iterator[None]:
        """No other process changes this table meanwhile. A killed one lets go."""
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        with (self.folder.parent / f".{self.folder.name}.lock").open("ab") as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            yield


class Bucket:
    """A prefix of a bucket of an S3-compatible server.

    The address may carry `endpoint` (else Amazon's) and `region`; who we are comes from the usual variables
    AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN, never from an address.
    """

    def __init__(self, address: str) -> None:
        split = urlsplit(address)
        path = PurePosixPath(split.netloc, split.path.strip("/"))
        if split.scheme != "s3" or not split.netloc or len(path.parts) < 2:
            raise BoucleError("B520", f'"{address}" names no place in a bucket', fix="s3://bucket/prefix")
        given = dict(parse_qsl(split.query))
        unknown = sorted(set(given) - {"endpoint", "region"})
        if unknown:
            raise BoucleError(
                "B520",
                f'"{split.scheme}://{path}" does not understand {", ".join(unknown)}',
                why="keys and secrets never stand in an address",
                fix="endpoint and region are known; keys come from AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
            )
        self.parts = path
        self.address = address
        self.uri = f"s3://{path}"
        self._endpoint = given.get("endpoint", os.environ.get("AWS_ENDPOINT_URL", ""))
        self._region = given.get("region", os.environ.get("AWS_REGION", "us-east-1"))
        self.options: dict[str, str] | None = {
            "aws_conditional_put": "etag",
            "aws_region": self._region,
            **_PATIENCE,
        }
        if self._endpoint:
            self.options["aws_endpoint"] = self._endpoint
            self.options["aws_allow_http"] = str(self._endpoint.startswith("http://")).lower()
        self._made: Any = None

    @property
    def _system(self) -> Any:
        if self._made is None:
            from pyarrow.fs import AwsStandardS3RetryStrategy, S3FileSystem

            scheme, _, host = self._endpoint.rpartition("://")
            self._made = S3FileSystem(
                endpoint_override=host or None,
                scheme=scheme or "https",
                region=self._region,
                connect_timeout=5,
                request_timeout=30,
                retry_strategy=AwsStandardS3RetryStrategy(max_attempts=3),
            )
        return self._made

    def full(self, path: str) -> str:
        """The whole address of a file of the table."""
        return f"s3://{self.parts / path}"

    def write(self, path: str, rows: pa.Table) -> int:
        """Write a Parquet file in one put and return its size in bytes."""
        body = _parquet(rows)
        with self._system.open_output_stream(str(self.parts / path)) as stream:
            stream.write(body)
        return int(body.size)

    def open(self, full: str) -> pq.ParquetFile:
        """A Parquet file, to be read; FileNotFoundError when it is gone."""
        return pq.ParquetFile(self._system.open_input_file(full.removeprefix("s3://")))

    def stream(self, path: str) -> Any:
        """A file's bytes, to be read once and closed; FileNotFoundError when it is gone."""
        return self._system.open_input_stream(str(self.parts / path))

    def text(self, path: str) -> str | None:
        """A small file's text; None when there is none."""
        try:
            with self.stream(path) as stream:
                return str(stream.read().decode())
        except FileNotFoundError:
            return None

    def exists(self, path: str) -> bool:
        """Whether a file of the table is there."""
        from pyarrow.fs import FileType

        return bool(self._system.get_file_info(str(self.parts / path)).type == FileType.File)

    def newest(self, known: int) -> int:
        """The newest version, looked for from the known one on: a bucket is not listed."""
        while self.exists(commit_file(known + 1)):
            known += 1
        return known

    def found(self) -> Iterator[Found]:
        """Every Parquet file below the prefix but those of the log."""
        from pyarrow.fs import FileSelector

        for info in self._system.get_file_info(
            FileSelector(str(self.parts), allow_not_found=True, recursive=True)
        ):
            path = PurePosixPath(info.path).relative_to(self.parts)
            if info.is_file and path.suffix == ".parquet" and path.parts[0][0] != "_":
                yield Found(str(path), info.mtime_ns / 1e9, info.size)

    def folders(self) -> list[str]:
        """The names one level below, in order."""
        from pyarrow.fs import FileSelector, FileType

        infos = self._system.get_file_info(FileSelector(str(self.parts), allow_not_found=True))
        return sorted(info.base_name for info in infos if info.type == FileType.Directory)

    def remove(self, path: str) -> None:
        """Delete a file; nothing happens when it is gone."""
        try:
            self._system.delete_file(str(self.parts / path))
        except FileNotFoundError:
            return

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Nothing to hold: the server refuses the second one to write a version."""
        yield


def _parquet(rows: pa.Table) -> pa.Buffer:
    sink = pa.BufferOutputStream()
    pq.write_table(rows, sink, store_schema=False)
    return sink.getvalue()


def fsync(path: Path) -> None:
    """Return when a file or folder, if it exists, survives a power cut."""
    if not path.exists():
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
