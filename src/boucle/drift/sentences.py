"""Verdicts as sentences a fitter reads once: what happened, why we think so, what it is not.

English and French; numbers with a decimal comma in French.
"""

import math
import re
from collections.abc import Mapping, Sequence

__all__ = ["name_machine", "say"]

_NOUNS = {
    "press": "presse",
    "pump": "pompe",
    "motor": "moteur",
    "fan": "ventilateur",
    "compressor": "compresseur",
    "machine": "machine",
}

_SAYS = {
    "learning": (
        "{who}: learning what is normal.",
        "{who} : apprentissage de l'état normal.",
    ),
    "none": ("{who}: nothing abnormal.", "{who} : rien d'anormal."),
    "unknown": (
        "{who}: something changed that fits no known cause; a person should look.",
        "{who} : un changement ne correspond à aucune cause connue ; une vérification s'impose.",
    ),
    "unknown_alone": (
        "{who}: {alone} changed by itself; without a second witness it may be the sensor or the machine.",
        "{who} : {alone} a changé sans autre témoin ; ce peut être le capteur ou la machine.",
    ),
    "new_regime": (
        (
            "{who}: it runs at an operating point never seen before; it is not judged by its levels until this new "
            "normal is known."
        ),
        (
            "{who} : point de fonctionnement jamais vu ; les niveaux ne sont pas jugés avant que ce nouvel état normal "
            "soit connu."
        ),
    ),
    "known_point": (
        "{who}: it moves to an operating point whose normal is known; it is judged again in a few seconds.",
        (
            "{who} : passage à un point de fonctionnement dont l'état normal est connu ; le jugement reprend dans "
            "quelques secondes."
        ),
    ),
    "calibrated": (
        "{who}: a sensor was calibrated; what is normal is learned again.",
        "{who} : un capteur a été étalonné ; l'état normal est réappris.",
    ),
    "common": (
        "{who}: the same moved on the other machines as well; it comes from outside, not from this machine.",
        "{who} : la même variation se voit sur les autres machines ; elle vient de l'extérieur, pas de cette machine.",
    ),
    "hall": (
        "{who}: the hall got warmer or colder; both temperatures follow it, and nothing else moved.",
        "{who} : l'atelier s'est réchauffé ou refroidi ; les deux températures le suivent, et rien d'autre n'a bougé.",
    ),
    "slow_offset": (
        (
            "{who}: the reading is off by {size} {unit} at every level, and {witness} contradict it. It is the zero of "
            "the instrument, not the machine."
        ),
        (
            "{who} : la mesure est décalée de {size} {unit} à tous les niveaux, ce que {witness} contredisent. "
            "C'est le zéro de l'instrument, pas la machine."
        ),
    ),
    "slow_gain_lost": (
        (
            "{who}: the reading is {size} % too low at every level, and {witness} contradict it. It is the gain of "
            "the instrument, not the machine."
        ),
        (
            "{who} : la mesure est {size} % trop basse à tous les niveaux, ce que {witness} contredisent. C'est "
            "le gain de l'instrument, pas la machine."
        ),
    ),
    "slow_gain_won": (
        (
            "{who}: the reading is {size} % too high at every level, and {witness} contradict it. It is the gain of "
            "the instrument, not the machine."
        ),
        (
            "{who} : la mesure est {size} % trop haute à tous les niveaux, ce que {witness} contredisent. C'est "
            "le gain de l'instrument, pas la machine."
        ),
    ),
    "slow_drift": (
        (
            "{who}: the reading moved by {size} {unit}, and {witness} contradict it. It is the instrument (its zero or "
            "its gain), not the machine."
        ),
        (
            "{who} : la mesure s'est déplacée de {size} {unit}, ce que {witness} contredisent. C'est l'instrument (son "
            "zéro ou son gain), pas la machine."
        ),
    ),
    "slow_stuck": (
        "{who}: the reading no longer moves at all, not even by its noise; the sensor no longer measures.",
        "{who} : la mesure ne bouge plus, pas même de son bruit ; le capteur ne mesure plus.",
    ),
    "slow_noise": (
        "{who}: the reading has become {size} times as noisy. It is the sensor or its cable, not the machine.",
        "{who} : la mesure est devenue {size} fois plus bruitée. C'est le capteur ou son câble, pas la machine.",
    ),
    "slow_dropout": (
        "{who}: {size} % of the readings are missing. It is the sensor or its cable, not the machine.",
        "{who} : {size} % des mesures manquent. C'est le capteur ou son câble, pas la machine.",
    ),
    "outer_race": (
        (
            "{who}: the outer race of the bearing is wearing; its line stands {size} times above the noise on "
            "several axes at once. It is the machine, not a sensor."
        ),
        (
            "{who} : la bague extérieure du roulement s'use ; sa raie dépasse {size} fois le bruit sur plusieurs "
            "axes à la fois. C'est la machine, pas un capteur."
        ),
    ),
    "inner_race": (
        (
            "{who}: the inner race of the bearing is wearing; its line stands {size} times above the noise on "
            "several axes at once. It is the machine, not a sensor."
        ),
        (
            "{who} : la bague intérieure du roulement s'use ; sa raie dépasse {size} fois le bruit sur plusieurs "
            "axes à la fois. C'est la machine, pas un capteur."
        ),
    ),
    "imbalance": (
        (
            "{who}: the shaft is out of balance; vibration at shaft speed grew {size} times on all axes while "
            "the gear and the bearing did not move."
        ),
        (
            "{who} : l'arbre est déséquilibré ; la vibration à la fréquence de rotation a été multipliée par "
            "{size} sur tous les axes, alors que l'engrenage et le roulement n'ont pas bougé."
        ),
    ),
    "lubrication": (
        (
            "{who}: the bearing lacks lubrication; high-frequency noise grew {size} times on all axes, and "
            "friction shows in the current or the temperature."
        ),
        (
            "{who} : le roulement manque de lubrification ; le bruit à haute fréquence a été multiplié par "
            "{size} sur tous les axes, et le frottement se voit dans le courant ou la température."
        ),
    ),
    "gain_lost": (
        (
            "{who}: the sensor lost {size} % of its gain; all bands fell together while {still} did not move. "
            "It is the instrument, not the machine."
        ),
        (
            "{who} : le capteur a perdu {size} % de son gain ; toutes les bandes ont baissé ensemble alors que "
            "{still} n'ont pas bougé. C'est l'instrument, pas la machine."
        ),
    ),
    "gain_won": (
        (
            "{who}: the sensor reads {size} % too much; all bands rose together while {still} did not move. "
            "It is the instrument, not the machine."
        ),
        (
            "{who} : le capteur indique {size} % de trop ; toutes les bandes ont monté ensemble alors que "
            "{still} n'ont pas bougé. C'est l'instrument, pas la machine."
        ),
    ),
    "offset": (
        (
            "{who}: the sensor's zero moved by {size} g while the vibration stayed as it was. It is the "
            "instrument, not the machine."
        ),
        (
            "{who} : le zéro du capteur s'est déplacé de {size} g alors que la vibration n'a pas changé. C'est "
            "l'instrument, pas la machine."
        ),
    ),
    "stuck": (
        "{who}: the sensor repeats the same value; it no longer measures.",
        "{who} : le capteur répète la même valeur ; il ne mesure plus.",
    ),
    "noise": (
        (
            "{who}: the sensor has become noisy; only its quiet bands rose ({size} times) while {still} did not "
            "move. It is the instrument, not the machine."
        ),
        (
            "{who} : le capteur est devenu bruité ; seules ses bandes calmes ont monté ({size} fois) alors que "
            "{still} n'ont pas bougé. C'est l'instrument, pas la machine."
        ),
    ),
    "dropout": (
        "{who}: {size} % of the samples are missing. It is the sensor or its cable, not the machine.",
        "{who} : {size} % des échantillons manquent. C'est le capteur ou son câble, pas la machine.",
    ),
    "loose": (
        (
            "{who}: the sensor seems loosely mounted; its high frequencies fell or rattle while {still} did not "
            "move. It is the mounting, not the machine."
        ),
        (
            "{who} : le capteur semble mal fixé ; ses hautes fréquences ont baissé ou vibrent alors que {still} "
            "n'ont pas bougé. C'est la fixation, pas la machine."
        ),
    ),
    "clock": (
        "{who}: the clock of the acquisition is off by {size} ppm; values are right, their times are not.",
        "{who} : l'horloge de l'acquisition dérive de {size} ppm ; les valeurs sont justes, pas leurs heures.",
    ),
}

_STILL = {
    False: ("the other axes, current and temperature", "les autres axes, le courant et la température"),
    True: ("current and temperature", "le courant et la température"),
}

_UNITS = {
    "bearing_temperature": "°C",
    "oil_temperature": "°C",
    "hydraulic_pressure": "bar",
    "motor_current": "A",
}

_WITNESS = {
    "bearing_temperature": ("oil temperature and current", "la température de l'huile et le courant"),
    "oil_temperature": ("bearing temperature and current", "la température du palier et le courant"),
    "hydraulic_pressure": ("current and gear mesh", "le courant et l'engrènement"),
    "motor_current": ("pressure and gear mesh", "la pression et l'engrènement"),
}

_OR_ELSE = (
    " Or it is {others}: the witnesses cannot tell.",
    " Ou bien c'est {others} : rien ne permet de trancher.",
)

_SLOW = {
    "bearing_temperature": ("the bearing temperature", "la température du roulement"),
    "oil_temperature": ("the oil temperature", "la température de l'huile"),
    "hydraulic_pressure": ("the hydraulic pressure", "la pression hydraulique"),
    "motor_current": ("the motor current", "le courant du moteur"),
}


def name_machine(machine: str) -> tuple[str, str]:
    """The machine as people say it, English and French; an id that is no noun and number stays as it is.

    >>> name_machine("press-3")
    ('Press 3', 'Presse 3')
    >>> name_machine("GX_07")
    ('GX_07', 'GX_07')
    """
    match = re.fullmatch(r"([a-z]+)[-_](\d+)", machine)
    if match is None or match[1] not in _NOUNS:
        return machine, machine
    return f"{match[1].capitalize()} {match[2]}", f"{_NOUNS[match[1]].capitalize()} {match[2]}"


def say(
    kind: str,
    machine: str,
    *,
    sensor: str = "",
    size: float = math.nan,
    alone: str = "",
    every: bool = False,
    others: Sequence[str] = (),
    either: bool = False,
) -> dict[str, str]:
    """The sentence of a verdict; `every` when the fault is on all axes of the accelerometer.

    `others`: sensors that may as well be the one at fault. `either`: it may as well be the gain as the zero.
    """
    if kind == "gain":
        kind, size = ("gain_lost", 100 * (1 - size)) if size < 1 else ("gain_won", 100 * (size - 1))
    elif kind == "dropout":
        size *= 100
    if sensor in _SLOW:
        kind = "slow_drift" if either else f"slow_{kind}"
    sentences = _SAYS["unknown_alone" if kind == "unknown" and alone else kind]
    of = name_machine(machine)
    axes = ("all axes", "tous les axes") if every else _SLOW.get(sensor, (sensor, sensor))
    spoken = []
    for index, sentence in enumerate(sentences):
        told: Mapping[str, str] = {
            "who": f"{of[index]}, {axes[index]}" if sensor or every else of[index],
            "size": _number(size, french=index == 1),
            "unit": _UNITS.get(sensor, ""),
            "witness": _WITNESS.get(sensor, ("", ""))[index],
            "alone": _SLOW.get(alone, (alone, alone))[index],
            "still": _STILL[every][index],
        }
        rest = ", ".join(_SLOW.get(other, (other, other))[index] for other in others)
        spoken.append(sentence.format_map(told) + (_OR_ELSE[index].format(others=rest) if others else ""))
    return {"en": spoken[0], "fr": spoken[1]}


def _number(value: float, *, french: bool) -> str:
    digits = 0 if abs(value) >= 10 else 1 if abs(value) >= 1 else 2
    text = f"{value:.{digits}f}"
    return text.replace(".", ",").replace("-", "−") if french else text
