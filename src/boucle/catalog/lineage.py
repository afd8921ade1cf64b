"""Where every dataset came from, told as OpenLineage 2-0-2 run events that any lineage tool reads.

A loop is a job, each of its lives a run: START when it begins, with the columns of every dataset and what they
are made from; RUNNING with what was written so far and nothing that START has told (events of a run add up); then
COMPLETE or FAIL, whole again. The events lie in the folder as one line of JSON each, one file a UTC
day, fsync'ed; `events` reads them back. Sources are named by their broker and topic
(`mqtt://gateway:1883` and `press/+/vibration`), tables by their lake and `zone/name`. User names,
passwords and options of an address never appear.

Source: https://openlineage.io/spec/2-0-2/OpenLineage.json and the facets named in `FACETS`.
"""

import json
import os
import secrets
import threading
import uuid
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias
from urllib.parse import unquote, urlsplit

from msgspec import Struct, field

from boucle import __version__
from boucle.clock import SECOND, Clock, Nanos
from boucle.ports import How

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Column", "Dataset", "Kind", "Lineage", "Run", "Written", "dataset", "events", "table", "uuid7"]

PRODUCER = f"https://pypi.org/project/boucle/{__version__}"
SPEC = "https://openlineage.io/spec/2-0-2/OpenLineage.json"
FACETS = {
    "columnLineage": "1-2-0/ColumnLineageDatasetFacet",
    "dataSource": "1-0-1/DatasourceDatasetFacet",
    "errorMessage": "1-0-1/ErrorMessageRunFacet",
    "inputStatistics": "1-0-0/InputStatisticsInputDatasetFacet",
    "jobType": "2-0-4/JobTypeJobFacet",
    "outputStatistics": "1-0-2/OutputStatisticsOutputDatasetFacet",
    "parent": "1-2-0/ParentRunFacet",
    "processing_engine": "1-1-1/ProcessingEngineRunFacet",
    "schema": "1-2-0/SchemaDatasetFacet",
    "version": "1-0-1/DatasetVersionDatasetFacet",
}
"""Facet → the schema it keeps."""

Kind: TypeAlias = Literal["BATCH", "STREAMING", "SERVICE"]
Json: TypeAlias = dict[str, Any]


_DIRECT = {"IDENTITY", "TRANSFORMATION", "AGGREGATION", "UNKNOWN"}
"""What carries values; all else of `How` only decides on them, INDIRECT."""


class Column(Struct, frozen=True):
    """A column a value was made from, how, and in words; or one that only decides."""

    dataset: "Dataset"
    name: str
    how: How = "IDENTITY"
    says: str = ""


class Dataset(Struct, frozen=True):
    """A topic, an address space, a table. `made_from` maps its columns to those they come from."""

    namespace: str
    name: str
    schema: "pa.Schema | None" = None
    made_from: dict[str, tuple[Column, ...]] = field(default_factory=dict)
    rows_from: tuple[Column, ...] = ()
    """What decides which rows there are."""

    @property
    def id(self) -> tuple[str, str]:
        """What OpenLineage knows it by."""
        return self.namespace, self.name


class Written(Struct, frozen=True):
    """What a run read from or wrote to a dataset so far; `version` is a table's."""

    rows: int
    bytes: int | None = None
    files: int | None = None
    version: int | None = None


def dataset(
    address: str,
    schema: "pa.Schema | None" = None,
    *,
    name: str = "",
    made_from: Mapping[str, Sequence[Column]] | None = None,
) -> Dataset:
    """The dataset behind an address; `name` for an address without a path, as an OPC UA server's is.

    >>> dataset("mqtts://bob:secret@gateway:8883/press/+/vibration?qos=1").id
    ('mqtts://gateway:8883', 'press/+/vibration')
    """
    split = urlsplit(address if "://" in address else address.replace(":", "://", 1))
    host = split.netloc.rpartition("@")[2]
    path = unquote(split.path).strip("/")
    if split.scheme == "file":
        host, path = "", unquote(split.netloc + split.path)
    columns = {column: tuple(sources) for column, sources in (made_from or {}).items()}
    return Dataset(f"{split.scheme}://{host}", name or path or "/", schema, columns)


def table(
    lake: str | Path,
    zone: str,
    name: str,
    schema: "pa.Schema | None" = None,
    *,
    made_from: Mapping[str, Sequence[Column]] | None = None,
) -> Dataset:
    """The dataset of a lake table: namespace `file://<lake>`, name `zone/name`; in a bucket `s3://bucket`, `prefix/…`.

    Source: https://openlineage.io/docs/spec/naming, "S3".
    """
    columns = {column: tuple(sources) for column, sources in (made_from or {}).items()}
    if str(lake).startswith("s3:"):
        split = urlsplit(str(lake))
        return Dataset(
            f"s3://{split.netloc}", f"{split.path.strip('/')}/{zone}/{name}".lstrip("/"), schema, columns
        )
    return Dataset(f"file://{Path(lake).absolute()}", f"{zone}/{name}", schema, columns)


def uuid7(now: Nanos) -> uuid.UUID:
    """A UUID that sorts by time (RFC 9562 §5.7): milliseconds, then 74 random bits."""
    head = (now // 1_000_000 & (1 << 48) - 1) << 80
    return uuid.UUID(int=head | 0x7 << 76 | secrets.randbits(12) << 64 | 0b10 << 62 | secrets.randbits(62))


class Lineage:
    """The journal of runs in a folder. Thread-safe; an event is on disk when its call returns."""

    def __init__(self, folder: str | Path, clock: Clock, *, namespace: str = "boucle") -> None:
        self._folder = Path(folder)
        self._clock = clock
        self._namespace = namespace
        self._lock = threading.Lock()

    def start(
        self,
        job: str,
        inputs: Sequence[Dataset] = (),
        outputs: Sequence[Dataset] = (),
        *,
        kind: Kind = "STREAMING",
        parent: "Run | None" = None,
    ) -> "Run":
        """Begin a run of `job`, and say what it reads and writes."""
        run = Run(self, str(uuid7(self._clock.now())), job, tuple(inputs), tuple(outputs), kind, parent)
        run.tell("START", {}, {})
        return run

    def write(self, kind: str, body: Json) -> None:
        """Append one event; it survives a power cut when this returns."""
        now = self._clock.now()
        moment = datetime.fromtimestamp(now // SECOND, UTC)
        event = {
            "eventType": kind,
            "eventTime": f"{moment:%Y-%m-%dT%H:%M:%S}.{now % SECOND // 1000:06d}Z",
            "producer": PRODUCER,
            "schemaURL": f"{SPEC}#/$defs/RunEvent",
            **body,
        }
        line = json.dumps(event, ensure_ascii=False, separators=(",", ":")) + "\n"
        with self._lock:
            self._append(self._folder / f"{moment:%Y-%m-%d}.ndjson", line.encode())

    @property
    def namespace(self) -> str:
        """The namespace of this installation's jobs."""
        return self._namespace

    def _append(self, path: Path, line: bytes) -> None:
        new = not path.exists()
        self._folder.mkdir(parents=True, exist_ok=True)
        with path.open("ab+") as file:
            _cut_torn_line(file)
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
        if new:
            handle = os.open(self._folder, os.O_RDONLY)
            os.fsync(handle)
            os.close(handle)


class Run:
    """One life of a job, from START to COMPLETE or FAIL."""

    def __init__(
        self,
        lineage: Lineage,
        identity: str,
        job: str,
        inputs: tuple[Dataset, ...],
        outputs: tuple[Dataset, ...],
        kind: Kind,
        parent: "Run | None",
    ) -> None:
        self.id, self.job, self.namespace = identity, job, lineage.namespace
        self._lineage, self._inputs, self._outputs = lineage, inputs, outputs
        self._kind, self._parent = kind, parent

    def running(self, written: Mapping[str, Written] | None = None) -> None:
        """Say what was read and written so far, by dataset name; each event replaces the one before."""
        self.tell("RUNNING", written or {}, {})

    def complete(self, written: Mapping[str, Written] | None = None) -> None:
        """End the run well."""
        self.tell("COMPLETE", written or {}, {})

    def fail(self, error: BaseException | str, written: Mapping[str, Written] | None = None) -> None:
        """End the run with what went wrong."""
        message = _facet("errorMessage", message=str(error), programmingLanguage="PYTHON")
        self.tell("FAIL", written or {}, {"errorMessage": message})

    def tell(self, kind: str, written: Mapping[str, Written], facets: Json) -> None:
        """Write one event of this run."""
        engine = _facet("processing_engine", version=__version__, name="boucle")
        run_facets = {"processing_engine": engine, **facets}
        if self._parent is not None:
            job = {"namespace": self._parent.namespace, "name": self._parent.job}
            run_facets["parent"] = _facet("parent", run={"runId": self._parent.id}, job=job)
        whole = kind != "RUNNING"
        job_type = _facet("jobType", processingType=self._kind, integration="BOUCLE", jobType="LOOP")
        body = {
            "run": {"runId": self.id, "facets": run_facets},
            "job": {"namespace": self.namespace, "name": self.job, "facets": {"jobType": job_type}},
            "inputs": [_dataset(one, written.get(one.name), "input", whole) for one in self._inputs],
            "outputs": [_dataset(one, written.get(one.name), "output", whole) for one in self._outputs],
        }
        self._lineage.write(kind, body)


def events(folder: str | Path) -> Iterator[Json]:
    """Every event of a lineage folder, oldest first; a last line torn by a power cut is left out."""
    for path in sorted(Path(folder).glob("*.ndjson")):
        with path.open("rb") as file:
            for line in file:
                if line.endswith(b"\n"):
                    yield json.loads(line)


def _cut_torn_line(file: Any) -> None:
    end = file.seek(0, os.SEEK_END)
    if end == 0:
        return
    file.seek(end - 1)
    if file.read(1) == b"\n":
        return
    file.seek(0)
    file.truncate(file.read().rfind(b"\n") + 1)


def _facet(facet: str, **body: Any) -> Json:
    name = FACETS[facet].partition("/")[2]
    url = f"https://openlineage.io/spec/facets/{FACETS[facet]}.json#/$defs/{name}"
    return {"_producer": PRODUCER, "_schemaURL": url, **body}


def _dataset(one: Dataset, written: Written | None, side: Literal["input", "output"], whole: bool) -> Json:
    facets: Json = {"dataSource": _facet("dataSource", name=one.namespace, uri=one.namespace)}
    if one.schema is not None and whole:
        facets["schema"] = _facet("schema", fields=_fields(one.schema))
    if (one.made_from or one.rows_from) and whole:
        columns = {
            name: {"inputFields": [_input_field(source) for source in sources]}
            for name, sources in one.made_from.items()
        }
        rows = {"dataset": [_input_field(source) for source in one.rows_from]} if one.rows_from else {}
        facets["columnLineage"] = _facet("columnLineage", fields=columns, **rows)
    if written is not None and written.version is not None:
        facets["version"] = _facet("version", datasetVersion=str(written.version))
    said: Json = {"namespace": one.namespace, "name": one.name, "facets": facets}
    if written is not None:
        counts = {"rowCount": written.rows, "size": written.bytes, "fileCount": written.files}
        known = {name: count for name, count in counts.items() if count is not None}
        said[f"{side}Facets"] = {f"{side}Statistics": _facet(f"{side}Statistics", **known)}
    return said


def _fields(schema: "pa.Schema") -> list[Json]:
    return [
        {"name": column.name, "type": str(column.type), "ordinal_position": index}
        for index, column in enumerate(schema, start=1)
    ]


def _input_field(source: Column) -> Json:
    told: Json = {"type": "DIRECT" if source.how in _DIRECT else "INDIRECT"}
    if source.how == "UNKNOWN":
        # The standard has no word for it; without a subtype a reader takes it for any change.
        told["description"] = f"unknown: {source.says or 'nobody declared which columns are used'}"
    else:
        told |= {"subtype": source.how, "description": source.says, "masking": False}
    return {
        "namespace": source.dataset.namespace,
        "name": source.dataset.name,
        "field": source.name,
        "transformations": [told],
    }
