"""Which columns may tell of persons: by their name and by what stands in them. A guess, for a person to judge."""

import ipaddress
import re
import unicodedata
from collections.abc import Callable, Sequence
from typing import Any

from msgspec import Struct

__all__ = ["Personal", "luhn", "personal"]


class Personal(Struct, frozen=True):
    """A guess that a column holds personal data."""

    kind: str
    """email, phone, iban, card, name, ip, national-id, birth-date, address …"""
    why: str


_ENOUGH = 0.8
"""Share of the sample that must look so."""
_NAMES: dict[str, str] = {
    "email": r"e?_?mails?|courriel|mel",
    "phone": r"phone|tel|telephone|mobile|portable|fax|gsm|cell",
    "iban": r"iban|bic|rib|bank_?account|compte_?bancaire",
    "card": r"card_?(?:no|number|num)|credit_?card|pan|carte_?bancaire|numero_?carte",
    "national-id": r"ssn|nir|nss|insee|social_?security|securite_?sociale|national_?id(?:entity)?(?:_?number)?"
    r"|nationalidnumber|passport|passeport|tax_?id|cni|dni|nin",
    "ip": r"ip|ip_?addr(?:ess)?|adresse_?ip|client_?ip|remote_?addr",
    "name": r"(?:first|last|full|sur|given|family|middle|maiden|customer|client|contact|person|employee)_?name|nom"
    r"|prenom|nom_?de_?famille|nom_?complet|surname|firstname|lastname|loginid|username|user_?name",
    "birth-date": r"birth_?(?:date|day)|date_?of_?birth|dob|date_?(?:de_?)?naissance|naissance",
    "address": r"address|adresse|street|rue|address_?line_?\d?|zip(?:_?code)?|postal_?code|postcode|code_?postal",
    "gender": r"gender|sexe?|civilite",
    "location": r"lat(?:itude)?|lon(?:gitude)?|lng|geo_?loc(?:ation)?",
}
_BY_NAME = {kind: re.compile(rf"(?:.*_)?(?:{pattern})(?:_.*)?") for kind, pattern in _NAMES.items()}
_WEAK = {"location", "ip", "card"}
"""Names that mean other things as often: believed only where the content agrees, or by their full name."""

_EMAIL = re.compile(r"[^@\s]{1,64}@[A-Za-z0-9.-]+\.[A-Za-z]{2,}")
_PHONE = re.compile(r"(?:\+|00)\d[\d .()/-]{6,17}\d|0\d(?:[ .-]?\d{2}){4}|\(?\d{3}\)?[ .-]\d{3}[ .-]\d{4}")
_IBAN = re.compile(r"[A-Z]{2}\d{2}[A-Z0-9]{11,30}")
_CARD = re.compile(r"\d{13,19}")
_NIR = re.compile(r"[12]\d{2}(?:0[1-9]|1[0-2]|[2-9]\d)(?:\d{2}|2[AB])\d{6}\d{2}")
_SSN = re.compile(r"(?!000|666|9\d\d)\d{3}-(?!00)\d{2}-(?!0000)\d{4}")


def personal(name: str, sample: Sequence[Any]) -> Personal | None:
    """What a column may tell of persons, by its name and up to some thousand of its values."""
    values = [str(value).strip() for value in sample if value is not None and str(value).strip()]
    for kind, fits in _CONTENT.items():
        if values:
            share = sum(map(fits, values)) / len(values)
            if share >= _ENOUGH:
                return Personal(kind, f"{share:.0%} of {len(values)} values look like it")
    plain = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
    plain = re.sub(r"[^a-z0-9]+", "_", _unaccented(plain)).strip("_")
    for kind, pattern in _BY_NAME.items():
        if pattern.fullmatch(plain) and not (kind in _WEAK and _numbers(values) and kind != "location"):
            return Personal(kind, f"the column is called {name}")
    return None


def _unaccented(text: str) -> str:
    return "".join(one for one in unicodedata.normalize("NFD", text) if not unicodedata.combining(one))


def _numbers(values: Sequence[str]) -> bool:
    return all(re.fullmatch(r"-?\d{1,6}(?:\.\d+)?", value) for value in values)


def luhn(digits: str) -> bool:
    """Whether a card number's check digit is right.

    >>> luhn("4111111111111111"), luhn("4111111111111112")
    (True, False)
    """
    total = 0
    for place, digit in enumerate(reversed(digits)):
        value = int(digit) * (1 + place % 2)
        total += value - 9 if value > 9 else value
    return total % 10 == 0


def _iban(value: str) -> bool:
    plain = value.replace(" ", "").upper()
    if not _IBAN.fullmatch(plain):
        return False
    return int("".join(str(int(letter, 36)) for letter in plain[4:] + plain[:4])) % 97 == 1


def _card(value: str) -> bool:
    plain = value.replace(" ", "").replace("-", "")
    # Not every run of digits with a right check digit is a card: the first digit names the network.
    return bool(_CARD.fullmatch(plain)) and plain[0] in "23456" and len(set(plain)) > 1 and luhn(plain)


def _ip(value: str) -> bool:
    try:
        ipaddress.ip_address(value)
    except ValueError:
        return False
    return True


def _national(value: str) -> bool:
    plain = value.replace(" ", "")
    if _SSN.fullmatch(plain):
        return True
    if not _NIR.fullmatch(plain):
        return False
    body = plain[:13].replace("2A", "19").replace("2B", "18")
    return 97 - int(body) % 97 == int(plain[13:])


_CONTENT: dict[str, Callable[[str], bool]] = {
    "email": lambda value: bool(_EMAIL.fullmatch(value)),
    "iban": _iban,
    "national-id": _national,
    "card": _card,
    "ip": _ip,
    "phone": lambda value: bool(_PHONE.fullmatch(value)),
}
