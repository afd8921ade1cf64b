"""EPA co-location: low-cost air sensors calibrated against a reference station, on days and units never seen.

    python -m bench.public_epa --data DIR      # DIR holds sensors.parquet and reference.parquet

Hourly means (at least 45 minutes) of each unit beside the reference of the same hour. The model is linear in the raw
signal, temperature and humidity, for particles also in signal times humidity, as water makes them grow (terms of the
kind Barkjohn et al. 2021 use for their US-wide correction). Two questions, each with its own error:

- later: fitted on the first half of the hours of a unit, judged on the second half of the same unit;
- new unit: fitted on the first half of the other units, judged on the second half of this one.

RMSE against the reference, raw and calibrated. "mean" always says the mean reference of the training hours: a sensor
that does not beat it tells nothing about this place.
"""

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from bench.figures import Figure, figure, publish
from bench.judged.data import beside, options

POLLUTANTS = ("PM2.5", "O3", "NO2")
_FEW_MINUTES = 45
_LEAST_HOURS = 48
_OFFSET_H = 5
"""The sensors' clock is UTC-05:00."""

Wide = NDArray[np.float64]


def hours(folder: Path) -> dict[tuple[str, str], Wide]:
    """(unit, pollutant) → rows of hour (UTC, since 1970), raw, temperature, humidity, reference."""
    sensors = pq.read_table(folder / "sensors.parquet")
    reference = pq.read_table(folder / "reference.parquet")
    names = {name.split(" (")[0]: name for name in sensors.schema.names}
    at = sensors[names["Time"]]
    at = pc.cast(pc.cast(at, pa.timestamp("s")), pa.int64()).to_numpy() // 3600 + _OFFSET_H
    units = np.array(sensors["unit"].to_pylist())
    truth = _truth(reference)
    found = {}
    for unit in dict.fromkeys(units.tolist()):
        for pollutant in POLLUTANTS:
            if pollutant not in names or pollutant not in truth:
                continue
            columns = [sensors[names[one]].to_numpy().astype(np.float64) for one in (pollutant, "TEMP", "RH")]
            known = (units == unit) & np.isfinite(columns).all(axis=0)
            places, count = np.unique(at[known], return_counts=True)
            index = np.searchsorted(places, at[known])
            means = [np.bincount(index, one[known]) / count for one in columns]
            rows = [
                (hour, *(mean[place] for mean in means), truth[pollutant][hour])
                for place, hour in enumerate(places.tolist())
                if count[place] >= _FEW_MINUTES and hour in truth[pollutant]
            ]
            if len(rows) >= _LEAST_HOURS:
                found[unit, pollutant] = np.array(rows, np.float64)
    return found


def _truth(reference: pa.Table) -> dict[str, dict[int, float]]:
    """Pollutant → hour (UTC) → value, those the station itself calls valid (QC 0)."""
    found: dict[str, dict[int, float]] = {}
    for row in reference.to_pylist():
        name = row["Param"].removesuffix("-88101")  # the code of the method
        if name in POLLUTANTS and row["Value"] is not None and row["QC Code"] == 0:
            month, day, year = (int(part) for part in row["Date (UTC)"].split("/"))
            at = datetime(year, month, day, int(row["Time (UTC)"].partition(":")[0]), tzinfo=UTC)
            found.setdefault(name, {})[int(at.timestamp()) // 3600] = row["Value"]
    return found


def terms(rows: Wide, pollutant: str) -> Wide:
    """What the model is linear in."""
    raw, temperature, humidity = rows[:, 1], rows[:, 2], rows[:, 3]
    plain = [np.ones(len(rows)), raw, temperature, humidity]
    if pollutant == "PM2.5":
        plain.append(raw * humidity / 100)
    return np.column_stack(plain)


def fit(rows: Wide, pollutant: str) -> Wide:
    """Coefficients by ridge regression of the standardised terms, so that terms that move as one stay small."""
    wide = terms(rows, pollutant)
    mean, deviation = wide.mean(axis=0), wide.std(axis=0)
    mean[0], deviation[0] = 0.0, 1.0
    deviation[deviation == 0] = 1.0
    scaled = (wide - mean) / deviation
    penalty = np.eye(scaled.shape[1]) * 0.01 * len(rows)
    penalty[0, 0] = 0.0
    found = np.linalg.solve(scaled.T @ scaled + penalty, scaled.T @ rows[:, 4]) / deviation
    found[0] -= float(found[1:] @ mean[1:])
    coefficients: Wide = found
    return coefficients


def rmse(said: Wide, truth: Wide) -> float:
    """Root mean square error, in the unit of the reference."""
    return float(np.sqrt(np.mean((said - truth) ** 2)))


def halves(rows: Wide) -> tuple[Wide, Wide]:
    """Earlier and later half, in time."""
    ordered = rows[np.argsort(rows[:, 0])]
    return ordered[: len(ordered) // 2], ordered[len(ordered) // 2 :]


def main() -> None:
    folder, asked = options(__doc__, "epa_colocation")
    data = hours(folder)
    table: dict[str, tuple[float | str, ...]] = {}
    figures: list[Figure] = []
    for pollutant in POLLUTANTS:
        units = [unit for unit, name in data if name == pollutant]
        errors = []
        for unit in units:
            early, late = halves(data[unit, pollutant])
            others = [halves(data[other, pollutant])[0] for other in units if other != unit]
            later = rmse(terms(late, pollutant) @ fit(early, pollutant), late[:, 4])
            new = float("nan")
            if others:
                new = rmse(terms(late, pollutant) @ fit(np.vstack(others), pollutant), late[:, 4])
            constant = rmse(np.full(len(late), early[:, 4].mean()), late[:, 4])
            errors.append((rmse(late[:, 1], late[:, 4]), later, new, constant))
            table[f"{pollutant}, {unit}, {len(late)} h"] = errors[-1]
        if errors:
            raw, later, new, constant = np.array(errors).mean(axis=0)
            short = pollutant.replace(".", "").lower()
            figures += [
                figure(f"epa_{short}_rmse_later", later, "", peer="raw sensor", peer_value=raw),
                figure(f"epa_{short}_rmse_mean", constant, ""),
            ]
            if np.isfinite(new):
                figures.append(
                    figure(f"epa_{short}_rmse_new_unit", new, "", peer="raw sensor", peer_value=raw)
                )
    if not asked.json:
        columns = ("raw", "calibrated, later", "calibrated on other units", "mean of the training hours")
        print(beside("EPA co-location, RMSE (ug/m3, ppb)", "none on this set", columns, table))
    publish(figures, asked)


if __name__ == "__main__":
    main()
