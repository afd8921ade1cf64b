"""What a word of YAML means: text, number, truth or nothing, by the core schema of YAML 1.2.

YAML 1.1, which most libraries still read, turns `no` into false, `12:30` into 750 and `1_000` into a
thousand. Here those are text. A number that starts with a zero (`007`) is text too: it is a label, and
reading it as 7 would lose what was written.
"""

import math
import re

__all__ = ["Scalar", "canonical", "plain_value"]

Scalar = str | int | float | bool | None

_WORDS: dict[str, Scalar] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys((".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF"), math.inf),
    **dict.fromkeys(("-.inf", "-.Inf", "-.INF"), -math.inf),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), math.nan),
}
_INTEGER = re.compile(r"[-+]?(?:0|[1-9][0-9]*)")
_OTHER_BASE = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|(?:0|[1-9][0-9]*)(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_MOST_DIGITS = 4000
"""Python refuses to read longer integers; they stay text."""


def plain_value(text: str) -> Scalar:
    """The value of a word written without quotes.

    >>> [plain_value(word) for word in ("no", "1.10", "007", "~", "0x1F", "2026-11-21")]
    ['no', 1.1, '007', None, 31, '2026-11-21']
    """
    if text in _WORDS:
        return _WORDS[text]
    if text[0] not in "+-.0123456789" or len(text) > _MOST_DIGITS:
        return text
    if _INTEGER.fullmatch(text):
        return int(text)
    if _OTHER_BASE.fullmatch(text):
        return int(text, 0)
    return float(text) if _FLOAT.fullmatch(text) else text


def canonical(value: Scalar) -> str:
    """How a number, truth or nothing is written when nobody says otherwise."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        if math.isnan(value):
            return ".nan"
        if math.isinf(value):
            return ".inf" if value > 0 else "-.inf"
        # YAML 1.1 reads a power of ten as a number only after a point and with its sign.
        digits, power, exponent = repr(value).partition("e")
        return f"{digits if '.' in digits or not power else digits + '.0'}{power}{exponent}"
    return str(value)
