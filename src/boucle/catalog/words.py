"""Words as a search sees them: without accents, case and endings, in English and in French; and what means the same.

The stemmer takes common endings off and no more (after Savoy's light French stemmer, JASIS 1999, and Harman's
s-stemmer, 1991): both languages stand in one index, so a word must come out the same whichever it is of.
`RINGS` are words of plants, banks and offices that mean the same in either language; a search for one finds the others.
"""

import re
import unicodedata
from collections.abc import Iterable
from functools import lru_cache

__all__ = ["RINGS", "STOP", "concepts_of", "distance", "grams", "plain", "split", "stem", "stems"]

STOP = frozenset({
    "a", "an", "and", "are", "as", "at", "avec", "by", "d", "dans", "de", "des", "du", "en", "et", "for", "from", "il",
    "in", "is", "it", "l", "la", "le", "les", "n", "of", "on", "or", "ou", "par", "per", "pour", "qu", "que", "qui",
    "s", "sur", "the", "to", "un", "une", "with",
})  # fmt: skip
"""Words that say nothing of what is looked for."""
_PART = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_ENDINGS = (
    "issements", "issement", "ements", "ement", "ateurs", "ateur", "atrices", "atrice", "ations", "ation",
    "ances", "ance", "ences", "ence", "ities", "ites", "ings", "ives", "ing", "ive", "ees", "eurs", "eur", "ers",
    "ates", "ated", "ate", "aux", "er", "ed", "es", "ee", "e", "s", "x",
)  # fmt: skip
_LEAST = 4
"""Letters that are left of a word at least."""

RINGS: tuple[tuple[str, ...], ...] = (
    ("machine", "equipment", "asset", "equipement", "press", "presse"),
    ("sensor", "capteur", "probe", "sonde", "transducer", "accelerometer", "accelerometre"),
    ("temperature", "thermal", "thermique", "heat", "chaleur", "thermocouple"),
    ("vibration", "acceleration", "shock", "choc", "oscillation"),
    ("pressure", "pression"),
    ("speed", "vitesse", "velocity", "rpm"),
    ("setpoint", "consigne", "target", "cible"),
    ("current", "courant", "amperage", "intensite"),
    ("voltage", "tension"),
    ("energy", "energie", "power", "puissance", "consumption", "consommation"),
    ("flow", "debit", "throughput"),
    ("maintenance", "entretien", "repair", "reparation", "service"),
    ("wear", "usure", "degradation", "fatigue", "ageing", "vieillissement"),
    ("failure", "panne", "fault", "defaut", "breakdown", "defaillance", "outage"),
    ("health", "sante", "condition"),
    ("rul", "remaining", "restante", "lifetime", "life", "vie"),
    ("quality", "qualite"),
    ("alarm", "alarme", "alert", "alerte", "warning", "avertissement", "anomaly", "anomalie"),
    ("drift", "derive", "deviation"),
    ("production", "output", "manufacturing", "fabrication"),
    ("plant", "usine", "factory", "site"),
    ("batch", "lot"),
    ("stock", "inventory", "inventaire", "warehouse", "entrepot"),
    ("supplier", "fournisseur", "vendor"),
    ("delivery", "livraison", "shipment", "expedition", "shipping"),
    ("vehicle", "vehicule", "truck", "camion", "fleet", "flotte"),
    ("customer", "client", "buyer", "acheteur", "holder", "titulaire"),
    ("payment", "paiement", "transaction", "purchase", "achat"),
    ("card", "carte"),
    ("fraud", "fraude", "scam"),
    ("amount", "montant", "price", "prix", "cost", "cout", "value", "valeur"),
    ("invoice", "facture", "billing", "facturation"),
    ("order", "commande"),
    ("revenue", "sales", "ventes", "turnover", "recette"),
    ("budget", "expense", "depense", "spending"),
    ("salary", "salaire", "wage", "pay", "paie", "payroll", "remuneration"),
    ("employee", "salarie", "employe", "staff", "personnel", "worker"),
    ("name", "nom", "surname", "firstname", "prenom"),
    ("address", "adresse", "street", "rue"),
    ("email", "mail", "courriel"),
    ("phone", "telephone", "mobile"),
    ("birth", "naissance", "birthday", "age"),
    ("country", "pays", "region"),
    ("date", "day", "jour", "time", "heure", "timestamp", "moment"),
    ("score", "note", "rating", "evaluation"),
    ("forecast", "prevision", "prediction"),
    ("weather", "meteo", "climate", "climat"),
    ("contract", "contrat", "agreement"),
    ("complaint", "reclamation", "claim"),
    ("risk", "risque"),
    ("loan", "pret", "credit", "mortgage"),
    ("account", "compte"),
    ("water", "eau"),
    ("oil", "huile"),
    ("mean", "moyenne", "average", "moyen", "avg"),
    ("total", "sum", "somme"),
    ("count", "nombre", "number", "quantity", "quantite"),
    ("rate", "taux", "frequency", "frequence"),
    ("hour", "horaire", "hourly"),
    ("hydraulic", "hydraulique"),
    ("bearing", "palier", "roulement"),
    ("noise", "bruit"),
    ("axis", "axe"),
    ("owner", "proprietaire", "responsable"),
    ("waste", "scrap", "rebut", "dechet"),
)
"""Without accents; written as they are looked up."""


def plain(text: str) -> str:
    """Lower case, accents taken off."""
    decomposed = unicodedata.normalize("NFKD", text)
    return "".join(one for one in decomposed if not unicodedata.combining(one)).lower()


def split(text: str) -> list[str]:
    """The words of a text or a name: `Accelerometer1RMS`, `oil_temperature`, « température d'huile ».

    >>> split("oilTemperature_°C")
    ['oil', 'temperature', 'c']
    """
    decomposed = unicodedata.normalize("NFKD", text)
    bare = "".join(one for one in decomposed if not unicodedata.combining(one))
    return [word.lower() for word in _PART.findall(bare)]


@lru_cache(maxsize=65_536)
def stem(word: str) -> str:
    """A word without its ending.

    >>> stem("vibrations"), stem("vibration"), stem("machines")
    ('vibr', 'vibr', 'machin')
    """
    for ending in _ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= _LEAST:
            return word[: -len(ending)]
    return word


def stems(text: str) -> list[str]:
    """The words of a text that say something, without their endings."""
    return [stem(word) for word in split(text) if word not in STOP]


_CONCEPT = {stem(word): f"ring{place}" for place, ring in enumerate(RINGS) for word in ring}


def concepts_of(words: Iterable[str]) -> list[str]:
    """The rings that some stems stand in."""
    return list(dict.fromkeys(_CONCEPT[word] for word in words if word in _CONCEPT))


def grams(word: str) -> list[str]:
    """The groups of three letters of a word, its ends marked."""
    marked = f"^{word}$"
    return [marked[place : place + 3] for place in range(len(marked) - 2)]


def distance(one: str, other: str, most: int) -> int:
    """Letters to change, add, leave out or swap (optimal string alignment); `most` + 1 when it is more than that."""
    if abs(len(one) - len(other)) > most:
        return most + 1
    before: list[int] = []
    row = list(range(len(other) + 1))
    for place, letter in enumerate(one, 1):
        before, last, row = row, before, [place]
        for at, wanted in enumerate(other, 1):
            cost = min(before[at] + 1, row[at - 1] + 1, before[at - 1] + (letter != wanted))
            swapped = place > 1 and at > 1 and letter == other[at - 2] and one[place - 2] == wanted
            row.append(min(cost, last[at - 2] + 1) if swapped else cost)
        if min(row) > most:
            return most + 1
    return min(row[-1], most + 1)
