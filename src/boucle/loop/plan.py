"""Turns a product's declaration into the steps that will run; finds what only running could show.

An operator is `module:Class`, built as `Class(stream=<step id>, **with)`; one that takes `folder`
is also given the product's folder. The module is looked up beside product.yaml first.
"""

import difflib
import hashlib
import importlib
import importlib.util
import inspect
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
from msgspec import Struct

from boucle.act.guard import Limits, read_limits
from boucle.act.policy import Policy, Rule, read_rules
from boucle.errors import BoucleError, DeclarationError, Problem
from boucle.loop.path import Step
from boucle.loop.shards import Sharded
from boucle.ports import Operator
from boucle.product.document import StepSpec
from boucle.product.lines import Path_
from boucle.product.project import Project
from boucle.product.transforms import UpkeepSpec

__all__ = ["Plan", "build_operator", "build_plan", "find_operator"]


class Plan(Struct, frozen=True):
    """A product ready to run."""

    project: Project
    steps: tuple[Step, ...]
    rules: tuple[Rule, ...]
    limits: dict[str, Limits]
    """`actuator/signal` → its envelope."""
    fingerprint: str
    """Changes whenever a step or its settings change; checkpoints are tied to it."""

    @property
    def declared(self) -> dict[str, dict[str, Any]]:
        """The steps as product.yaml declares them, by id."""
        steps = msgspec.to_builtins(self.project.loop.steps)
        return {step["id"]: {name: one for name, one in step.items() if name != "title"} for step in steps}

    def policy(self) -> Policy:
        """A fresh policy over the declared rules."""
        return Policy(self.rules, product=self.project.id)


def build_plan(project: Project) -> Plan:
    """Import and build every operator, compile limits and rules; DeclarationError lists all problems."""
    problems: list[Problem] = []
    steps = []
    for index, spec in enumerate(project.loop.steps):
        step = _step(project, spec, ("steps", index), problems)
        if step is not None:
            steps.append(step)
    problems += _timeless(project) + _unexecutable(project)
    problems += _refining(project)
    limits = _limits(project, problems)
    rules = _rules(project, limits, problems)
    if problems:
        raise DeclarationError(problems)
    return Plan(project, tuple(steps), rules, limits, _fingerprint(project))


def _refining(project: Project) -> list[Problem]:
    """What is wrong with tables made from tables, and with the lake's upkeep."""
    if project.loop.transforms or project.loop.lake != UpkeepSpec():
        from boucle.refine.transform import check_transforms

        return check_transforms(project)
    return []


def _timeless(project: Project) -> list[Problem]:
    """The sources whose rows have no event time."""
    return [
        _problem(
            project,
            ("sources", name, "schema"),
            f"{spec.schema} has no timestamp column",
            fix="give its event time a logicalType: timestamp",
            code="B210",
        )
        for name, spec in project.loop.sources.items()
        if spec.schema in project.contracts and not project.contracts[spec.schema].time
    ]


def _unexecutable(project: Project) -> list[Problem]:
    """The quality rules of the contract that would fail whatever the data."""
    from boucle.quality.promises import unexecutable

    return [
        Problem(error.code, error.what, project.contract.file, rule.line, error.why, error.fix)
        for contract in project.contracts.values()
        for rule, error in unexecutable(contract, lambda use: find_operator(use, project.folder))
    ]


def _fingerprint(project: Project) -> str:
    told = json.dumps(msgspec.to_builtins(project.loop.steps), sort_keys=True)
    return hashlib.sha256(told.encode()).hexdigest()[:16]


def _problem(
    project: Project, path: Path_, what: str, why: str = "", fix: str = "", code: str = "B213"
) -> Problem:
    document = project.loop_document
    return Problem(code, what, document.file, document.line(path), why, fix)


def _step(project: Project, spec: StepSpec, path: Path_, problems: list[Problem]) -> Step | None:
    try:
        factory = find_operator(spec.use, project.folder)
    except (ImportError, AttributeError, ValueError) as error:
        fix = "write module:Class of a module beside product.yaml or of an installed package"
        problems.append(_problem(project, (*path, "use"), f"{spec.use} cannot be imported", str(error), fix))
        return None
    taken = inspect.signature(factory).parameters
    wrong = [name for name in spec.with_ if name not in taken]
    if wrong and not any(p.kind is inspect.Parameter.VAR_KEYWORD for p in taken.values()):
        known = [name for name in taken if name not in {"stream", "folder"}]
        for name in wrong:
            near = difflib.get_close_matches(name, known, n=1)
            fix = f'did you mean "{near[0]}"?' if near else f"it takes: {', '.join(known)}"
            what = f"{spec.use} takes no setting {name!r}"
            problems.append(_problem(project, (*path, "with", name), what, fix=fix))
        return None
    try:
        operator = build_operator(spec, project.folder, int(project.settings.get("run.workers").value))
    except BoucleError as error:
        problems.append(_problem(project, path, f"{spec.id}: {error.what}", error.why, error.fix, error.code))
        return None
    except (TypeError, ValueError) as error:
        problems.append(
            _problem(project, (*path, "with"), f"{spec.use} does not take these settings", str(error))
        )
        return None
    return Step(spec.id, spec.use, tuple(spec.from_), operator, spec.title)


def build_operator(spec: StepSpec, folder: Path, workers: int = 1) -> Operator:
    """The operator of a step as it is declared; raises what its class raises."""
    factory = find_operator(spec.use, folder)
    takes = inspect.signature(factory).parameters
    given = {**spec.with_, **({"folder": folder} if "folder" in takes else {})}
    operator: Operator = factory(stream=spec.id, **given)
    if not spec.by:
        return operator
    make = _Make(folder, spec.use, spec.id, given)
    return Sharded(spec.id, make, by=spec.by, groups=spec.groups, workers=min(workers, spec.groups))


class _Make(Struct, frozen=True):
    """Builds a declared operator, here or in another process."""

    folder: Path
    use: str
    id: str
    given: dict[str, Any]

    def __call__(self) -> Operator:
        made: Operator = find_operator(self.use, self.folder)(stream=self.id, **self.given)
        return made


def find_operator(use: str, folder: Path | None = None) -> Callable[..., Any]:
    """The class that `module:Class` names; a module in `folder` goes before an installed one."""
    module_name, _, name = use.partition(":")
    if not module_name or not name:
        raise ValueError("there is no `:` between module and class")
    beside = None if folder is None else folder / (module_name.replace(".", "/") + ".py")
    if beside is not None and beside.exists():
        module = _beside(beside, module_name)
    else:
        module = importlib.import_module(module_name)
    found: Callable[..., Any] = getattr(module, name)
    return found


def _beside(file: Path, name: str) -> ModuleType:
    # Two products may each have an operators.py: the module's name carries the folder.
    unique = f"boucle_product_{hashlib.sha256(str(file.resolve()).encode()).hexdigest()[:8]}_{name}"
    if unique in sys.modules:
        return sys.modules[unique]
    spec = importlib.util.spec_from_file_location(unique, file)
    if spec is None or spec.loader is None:
        raise ImportError(f"{file} is no Python module")
    module = importlib.util.module_from_spec(spec)
    sys.modules[unique] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[unique]
        raise
    return module


def _limits(project: Project, problems: list[Problem]) -> dict[str, Limits]:
    limits = {}
    for name, actuator in project.loop.actuators.items():
        for signal, declared in actuator.limits.items():
            path: Path_ = ("actuators", name, "limits", signal)
            try:
                limits[f"{name}/{signal}"] = read_limits(declared)
            except BoucleError as error:
                problems.append(
                    _problem(project, path, f"{signal}: {error.what}", error.why, error.fix, error.code)
                )
    return limits


def _rules(project: Project, limits: dict[str, Limits], problems: list[Problem]) -> tuple[Rule, ...]:
    streams = {*project.loop.sources, *(step.id for step in project.loop.steps)}
    rules, found = read_rules(project.loop.rules, streams=streams, limits=limits)
    for index, what, fix in found:
        problems.append(_problem(project, ("rules", index), what, fix=fix, code="B214"))
    return tuple(rules)
