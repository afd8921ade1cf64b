"""`boucle serve`: the interfaces of a product, for as long as it runs."""

import argparse
import getpass
import json
import sys
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from boucle.cli.model_server import model_arguments, serve_models
from boucle.errors import BoucleError

if TYPE_CHECKING:
    from boucle.outlet.notes import TableNote
    from boucle.outlet.ports import OutputPort

__all__ = ["arguments", "run"]

_PASSWORD = "BOUCLE_PASSWORD"  # noqa: S105 - a variable's name


def arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `boucle serve`."""
    parser.add_argument(
        "folder", nargs="?", default=".", type=Path, help="the product's folder (default: here)"
    )
    parser.add_argument("--run", type=Path, help="a run's folder, when it is not `run.folder` of boucle.toml")
    parser.add_argument("--env", help="an environment of boucle.toml")
    parser.add_argument("--sql", metavar="HOST:PORT", help="SQL on PostgreSQL's protocol (psql, BI tools)")
    parser.add_argument("--flight", metavar="HOST:PORT", help="Arrow Flight SQL (ADBC drivers)")
    parser.add_argument("--http", metavar="HOST:PORT", help="REST and events, with an OpenAPI document")
    parser.add_argument(
        "--users", type=Path, metavar="FILE", help="who may ask; without it anybody on this machine"
    )
    parser.add_argument(
        "--add-user", metavar="NAME", help=f"add a user to --users and end (password: asked, or ${_PASSWORD})"
    )
    parser.add_argument("--certificate", type=Path, metavar="PEM", help="speak TLS with this certificate")
    parser.add_argument("--key", type=Path, metavar="PEM", help="the certificate's key")
    parser.add_argument(
        "--tls",
        choices=["required", "allowed"],
        default="required",
        help="with a certificate (default: required)",
    )
    parser.add_argument("--memory", default="2GB", help="what all questions together may hold (default 2GB)")
    parser.add_argument(
        "--timeout",
        type=float,
        default=300.0,
        metavar="SECONDS",
        help="of a statement (default 300; 0: none)",
    )
    parser.add_argument("--connections", type=int, default=100, help="SQL clients at once (default 100)")
    parser.add_argument("--json", action="store_true", help="one JSON object with the addresses, then serve")
    model_arguments(parser)
    parser.epilog = (
        "examples:\n"
        "  boucle serve examples/press                        SQL on 127.0.0.1:5433\n"
        "  psql -h 127.0.0.1 -p 5433 boucle\n"
        "  boucle serve --add-user ana --users users\n"
        "  boucle serve --run run/press --sql 0.0.0.0:5433 --flight 0.0.0.0:5434 --http 0.0.0.0:8088 \\\n"
        "      --users users --certificate server.pem --key server.key\n"
        "  boucle serve --models examples/press/model --predictions run/predictions      REST on 8000, gRPC on 8001"
    )


def run(options: argparse.Namespace) -> int:
    """Serve until Ctrl-C."""
    from boucle.catalog.usage import Usage
    from boucle.cli.session import interruptible
    from boucle.lake.sql import Sql
    from boucle.outlet.users import Users
    from boucle.outlet.uses import Uses

    if options.add_user:
        return _add_user(options)
    if options.models:
        return serve_models(options)
    product, about, ports, lake, run_folder = _product(options)
    if (options.certificate is None) != (options.key is None):
        raise BoucleError(
            "B843",
            "a certificate needs its key, and a key its certificate",
            fix="--certificate PEM --key PEM",
        )
    users = Users(options.users) if options.users else None
    sql = Sql(lake, options.memory, postgres=True)
    with interruptible() as stop, ExitStack() as stack:
        stack.callback(sql.close)
        _check_tables(sql, about)
        usage = stack.enter_context(closing(Usage(run_folder / "usage.sqlite")))
        uses = Uses(usage, str(product["id"]), sql)
        told = _serve(options, stack, sql, product, about, ports, users, uses)
        _say(told, options.json)
        stop.wait()
    return 0


def _add_user(options: argparse.Namespace) -> int:
    import os

    from boucle.outlet.users import add_user

    if options.users is None:
        raise BoucleError("B840", "nothing says which file of users", fix="--users FILE")
    if password := os.environ.get(_PASSWORD, ""):
        pass
    elif sys.stdin.isatty():
        password = getpass.getpass(f"Password for {options.add_user}: ")
    else:
        password = sys.stdin.readline().rstrip("\n")
    add_user(options.users, options.add_user, password)
    print(f"{options.add_user} may ask: {options.users}", file=sys.stderr)
    return 0


def _product(
    options: argparse.Namespace,
) -> tuple[dict[str, Any], "dict[str, TableNote]", "list[OutputPort]", str, Path]:
    """The ODPS document, what the contract says of tables, the declared ports, the lake, and the run's folder."""
    from boucle.errors import DeclarationError
    from boucle.outlet.notes import notes
    from boucle.outlet.ports import output_ports, port_problems
    from boucle.product.project import load_project

    if not (options.folder / "product.yaml").exists():
        if options.run is None:
            raise BoucleError(
                "B810", f"there is no product in {options.folder}", fix="name its folder, or a run with --run"
            )
        return {"id": options.run.resolve().name}, {}, [], _lake(options.run), options.run
    project = load_project(options.folder, options.env)
    about = notes(project.contract.value)
    if problems := list(port_problems(project.product, about)):
        raise DeclarationError(problems)
    ports = output_ports(project.product.value)
    run = options.run or project.path("run.folder")
    elsewhere = "" if options.run else str(project.settings.get("run.lake").value)
    return dict(project.product.value), about, ports, _lake(run, elsewhere), run


def _lake(run: Path, elsewhere: str = "") -> str:
    if elsewhere:
        run.mkdir(parents=True, exist_ok=True)  # who asks what is counted there
        return elsewhere
    if not (run / "lake").is_dir():
        raise BoucleError(
            "B810", f"there is no lake in {run}", fix="--run of a run; `boucle demo press` makes one"
        )
    return str(run / "lake")


def _check_tables(sql: Any, about: "dict[str, TableNote]") -> None:
    """Nothing is served that is not what its contract promises."""
    from boucle.outlet.ports import check_contract

    for table in sql.tables():
        if table.name in about:
            check_contract(table.name, table.schema, about[table.name])


def _serve(
    options: argparse.Namespace, stack: ExitStack, sql: Any, product: dict[str, Any], about: "dict[str, TableNote]",
    ports: "list[OutputPort]", users: Any, uses: Any,
) -> dict[str, str]:  # fmt: skip
    from boucle.outlet.endpoint import SqlEndpoint, check_exposed, tls_context
    from boucle.outlet.session import Limits

    pair = (options.certificate, options.key) if options.certificate else None
    context = tls_context(*pair) if pair else None
    told: dict[str, str] = {}
    if options.sql or not (options.flight or options.http):
        host, port = _address(options.sql or "127.0.0.1:5433")
        limits = Limits(connections=options.connections, statement=options.timeout)
        endpoint = SqlEndpoint(
            sql,
            host=host,
            port=port,
            users=users,
            certificate=context,
            tls=options.tls,
            about=about,
            limits=limits,
            uses=uses,
        )
        endpoint.start()
        stack.callback(endpoint.stop)
        told["sql"] = f"postgresql://{host}:{endpoint.port}/boucle"
    if options.flight:
        from boucle.outlet.flight import FlightEndpoint

        host, port = _address(options.flight)
        flight = FlightEndpoint(
            sql, host=host, port=port, users=users, certificate=pair, about=about, uses=uses
        )
        stack.callback(flight.stop)
        told["flight"] = flight.uri
    if options.http:
        from boucle.outlet.rest import create_rest
        from boucle.web.server import serve

        host, port = _address(options.http)
        check_exposed(host, users, encrypted=pair is not None)
        shown = [one.table for one in ports if one.kind in {"rest", "events"}]
        app = create_rest(
            sql, str(product["id"]), title=str(product.get("name", "")), version=str(product.get("version", "")),
            about=about, shown=shown, users=users, uses=uses,
        )  # fmt: skip
        told["http"] = stack.enter_context(serve(app, host, port, pair)).url
    return told


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not port.isdigit() or int(port) > 65_535:
        raise BoucleError("B842", f"{text!r} is no HOST:PORT", fix="127.0.0.1:5433")
    return host.strip("[]") or "127.0.0.1", int(port)


def _say(told: dict[str, str], as_json: bool) -> None:
    if as_json:
        print(json.dumps(told), flush=True)
        return
    for name, address in told.items():
        print(f"{name:<7} {address}", file=sys.stderr)
    print("Ctrl-C ends it.", file=sys.stderr, flush=True)
