"""The settings of one session: what clients may set, and what each then means."""

import re
import shlex
from collections.abc import Mapping, Sequence

from boucle.outlet.catalogue import SERVER_VERSION
from boucle.outlet.refused import Refused

__all__ = ["DEFAULTS", "REPORTED", "SessionSettings", "startup_settings"]

DEFAULTS: dict[str, str] = {
    "application_name": "",
    "bytea_output": "hex",
    "client_encoding": "UTF8",
    "client_min_messages": "notice",
    "DateStyle": "ISO, MDY",
    "default_table_access_method": "heap",
    "default_transaction_isolation": "repeatable read",
    "default_transaction_read_only": "on",
    "extra_float_digits": "1",
    "idle_in_transaction_session_timeout": "0",
    "integer_datetimes": "on",
    "IntervalStyle": "postgres",
    "is_superuser": "off",
    "jit": "off",
    "lc_collate": "C",
    "lock_timeout": "0",
    "max_identifier_length": "63",
    "max_index_keys": "32",
    "row_security": "off",
    "search_path": "gold, silver, raw",
    "server_encoding": "UTF8",
    "server_version": SERVER_VERSION,
    "server_version_num": "140000",
    "session_authorization": "",
    "standard_conforming_strings": "on",
    "statement_timeout": "0",
    "TimeZone": "UTC",
    "transaction_isolation": "repeatable read",
    "transaction_read_only": "on",
    "xmloption": "content",
}
REPORTED = (
    "application_name",
    "client_encoding",
    "DateStyle",
    "default_transaction_read_only",
    "integer_datetimes",
    "IntervalStyle",
    "is_superuser",
    "server_encoding",
    "server_version",
    "session_authorization",
    "standard_conforming_strings",
    "TimeZone",
)
"""Those the protocol tells clients at once."""

_FIXED = {
    "bytea_output": {"hex"},
    "client_encoding": {"utf8", "unicode", "sqlascii"},
    "intervalstyle": {"postgres"},
    "standard_conforming_strings": {"on", "true", "1"},
}
_READ_ONLY = {
    "integer_datetimes", "is_superuser", "lc_collate", "max_identifier_length", "server_encoding", "server_version",
    "server_version_num", "session_authorization",
}  # fmt: skip
_UNITS = {"": 0.001, "us": 1e-6, "ms": 0.001, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86_400.0}
_NAMES = {name.lower(): name for name in DEFAULTS}


class SessionSettings:
    """The values of one session. `timeout` is how long a statement may take, in seconds (0: as the server says)."""

    def __init__(self, user: str) -> None:
        self.values = {**DEFAULTS, "session_authorization": user}
        self.timeout = 0.0
        self._first = dict(self.values)

    def name(self, said: str) -> str:
        """A setting's proper spelling; 42704 when there is none such. A dotted name is the client's own affair."""
        found = _NAMES.get(said.lower(), said if "." in said else "")
        if not found:
            raise Refused(
                "B835", f'there is no setting "{said}"', sqlstate="42704", fix="SHOW ALL lists them"
            )
        return found

    def get(self, said: str) -> str:
        """The value of a setting."""
        return self.values.get(self.name(said), "")

    def set(self, said: str, values: Sequence[str]) -> str:
        """Set one, or put its first value back (DEFAULT); gives its proper name."""
        name = self.name(said)
        lower = name.lower()
        if list(map(str.lower, values)) == ["default"]:
            values = (self._first.get(name, ""),)
        value = ", ".join(values)
        if lower in _READ_ONLY:
            raise Refused("B835", f'"{name}" cannot be changed', sqlstate="55P02")
        if lower == "client_encoding":
            value = value.strip("'").replace("-", "").replace("_", "")
        plain = value.lower()
        if lower in _FIXED and plain not in _FIXED[lower]:
            known = ", ".join(sorted(_FIXED[lower]))
            raise Refused(
                "B835", f'"{name}" cannot be {value!r} here', sqlstate="0A000", fix=f"one of {known}"
            )
        if lower == "datestyle" and not value.lower().startswith("iso"):
            raise Refused("B835", f"dates are written in ISO style, not {value!r}", sqlstate="0A000")
        if lower == "client_encoding":
            value = "UTF8"
        if lower == "statement_timeout":
            self.timeout = _seconds(value)
        self.values[name] = value
        return name

    def reset(self) -> None:
        """Every value as it was when the session began."""
        self.values, self.timeout = dict(self._first), 0.0

    def begun(self) -> None:
        """What is set by now is what RESET goes back to."""
        self._first = dict(self.values)


def startup_settings(parameters: Mapping[str, str]) -> list[tuple[str, str]]:
    """The settings a first message brings, those of `options` (`-c name=value`) too."""
    told = [(name, value) for name, value in parameters.items() if name.lower() in _NAMES]
    try:
        words = shlex.split(parameters.get("options", ""))
    except ValueError:
        words = []
    for index, word in enumerate(words):
        said = words[index + 1] if word == "-c" and index + 1 < len(words) else ""
        said = said or (word[2:] if word.startswith(("-c", "--")) and len(word) > 2 else "")
        name, sign, value = said.partition("=")
        if sign:
            told.append((name.replace("-", "_"), value))
    return told


def _seconds(value: str) -> float:
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(us|ms|s|min|h|d|)\s*", value)
    if found is None:
        raise Refused("B835", f"{value!r} is no duration", sqlstate="22023", fix="500ms, 30s, 5min")
    return float(found[1]) * _UNITS[found[2]]
