"""Older versions of a promise, out of git: `v1.2.0:products/orders/product.yaml`."""

import subprocess
from pathlib import Path

from boucle.errors import BoucleError, DeclarationError
from boucle.product.promise import Promise, promise_files, read_promise, read_promise_text

__all__ = ["promises_at", "promises_of", "tags_with"]

_PATIENCE = 60.0


def promises_of(text: str) -> dict[str, Promise]:
    """The promises of a file, of a folder (of one product or many), or of `REF:PATH`, by their ids."""
    path = Path(text)
    if path.exists():
        return _of_path(path)
    ref, colon, within = text.partition(":")
    if not colon:
        raise BoucleError(
            "B251", f"there is no {text}", fix="give a file, a folder, or a version in git as REF:PATH"
        )
    return promises_at(ref, within)


def promises_at(ref: str, path: str, folder: Path | None = None) -> dict[str, Promise]:
    """The promises that a version in git holds at a path, relative to the repository or to `folder`."""
    here = folder or Path()
    if ref.startswith("-") or not ref:
        raise BoucleError("B251", f"{ref!r} is no version", fix="give a tag, a branch or a commit")
    for within in (path, f"./{path}" if path else "./"):
        kind = _git(here, "cat-file", "-t", f"{ref}:{within}")
        if kind == b"blob\n":
            return _known([_at(here, ref, within, path)])
        if kind == b"tree\n":
            names = (
                _git(here, "ls-tree", "--full-tree", "-r", "--name-only", "-z", f"{ref}:{within}") or b""
            ).split(b"\0")
            files = [name for name in map(bytes.decode, names) if _promises_something(name)]
            base = within.rstrip("/")
            return _known([_at(here, ref, f"{base}/{name}" if base else name, name) for name in files])
    known = _git(here, "rev-parse", "--verify", "--quiet", f"{ref}^{{commit}}")
    if known is None:
        why = (
            "git knows no such version"
            if _git(here, "rev-parse", "--git-dir")
            else "this is no git repository"
        )
        fix = "`git tag` lists the versions that have a name; a shallow clone has few: git fetch --tags --unshallow"
        raise BoucleError("B251", f"{ref}:{path} cannot be read", why=why, fix=fix)
    raise BoucleError(
        "B251",
        f"{ref} holds no {path}",
        fix=f"`git ls-tree -r --name-only {ref}` lists what it holds; paths start at the repository",
    )


def tags_with(path: Path) -> list[str]:
    """The tags that a checkout's HEAD came from and that hold a path, oldest first."""
    folder = path if path.is_dir() else path.parent
    listed = _git(folder, "tag", "--merged", "HEAD", "--sort=creatordate")
    if listed is None:
        raise BoucleError(
            "B251",
            "the older versions cannot be listed",
            where=str(path),
            why="this is no git repository, or it has no commit",
            fix="name the older versions one by one: boucle diff OLD OLDER … NEW",
        )
    within = "./" if path.is_dir() else f"./{path.name}"
    tags = listed.decode().split()
    return [tag for tag in tags if _git(folder, "cat-file", "-e", f"{tag}:{within}") is not None]


def _of_path(path: Path) -> dict[str, Promise]:
    single = path.is_file() or (path / "product.yaml").exists()
    files = [path] if single else list(promise_files(path))
    if not files:
        raise BoucleError(
            "B251", f"{path} holds no product.yaml", fix="name a product's folder, or a contract's file"
        )
    read = []
    for file in files:
        promise, problems = read_promise(file, str(file))
        if problems:
            raise DeclarationError(problems)
        read.append(promise)
    return _known(read)


def _at(folder: Path, ref: str, within: str, shown: str) -> Promise:
    content = _git(folder, "cat-file", "blob", f"{ref}:{within}")
    promise, problems = read_promise_text(content or b"", f"{ref}:{shown}")
    if problems:
        raise DeclarationError(problems)
    return promise


def _promises_something(name: str) -> bool:
    return Path(name).name == "product.yaml" or name.endswith((".odcs.yaml", ".odps.yaml"))


def _known(promises: list[Promise]) -> dict[str, Promise]:
    if len(promises) == 1:
        # Two files given by name are meant to be compared, whatever they call themselves.
        return {"": promises[0]}
    return {promise.id: promise for promise in promises}


def _git(folder: Path, *words: str) -> bytes | None:
    """What git says; None where it refuses."""
    try:
        done = subprocess.run(  # noqa: S603 - git, and paths that are no options
            ["git", "-C", str(folder), *words],  # noqa: S607 - git as found on the PATH
            capture_output=True,
            timeout=_PATIENCE,
            check=False,
        )
    except FileNotFoundError:
        raise BoucleError("B251", "git is not installed", fix="apt-get install git") from None
    return done.stdout if done.returncode == 0 else None
