"""What the scripts on public data sets share: where the data lie, and our figure inside the published table."""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from bench.figures import Options, publish

__all__ = ["beside", "options"]

ORIGINS = {
    "epa_colocation": "github.com/USEPA/sensortoolkit, example_datasets",
    "femto_features": "github.com/wkzs111/phm-ieee-2012-data-challenge-dataset, statistics of each snapshot",
    "fraud_handbook": "github.com/Fraud-Detection-Handbook/simulated-data-raw, its daily files",
    "mfpt_bearing": "github.com/mathworks/RollingElementBearingFaultDiagnosis-Data, train_data",
    "nab": "github.com/numenta/NAB, data and labels",
    "skab": "github.com/waico/SKAB, data",
    "tennessee_eastman": "github.com/camaramm/tennessee-eastman-profBraatz",
}
"""Where the files come from; each script's `--help` tells what it reads of them."""
SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"


def options(description: str | None, name: str) -> tuple[Path, Options]:
    """The folder of the data set and how to print; ends the program with a clear word when it is not there."""
    head, _, _ = (description or "").strip().partition("\n")
    parser = argparse.ArgumentParser(
        description=head, epilog=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data", type=Path, default=SHARED / name, help=f"folder of {name} (README.md tells its files)"
    )
    parser.add_argument("--quick", action="store_true", help="accepted for all benchmarks; this one is short")
    parser.add_argument("--json", action="store_true", help="print one JSON object on standard output")
    given = parser.parse_args()
    if not any(given.data.glob("*.parquet")):
        origin = f"stacked as Parquet from {ORIGINS[name]}"
        sys.stderr.write(f"skipped: {name} ({origin}) is not in {given.data}; give its folder with --data\n")
        if given.json:
            publish([], Options(quick=given.quick, json=True))
        raise SystemExit(0)
    return given.data, Options(quick=given.quick, json=given.json)


def beside(
    title: str,
    source: str,
    columns: Sequence[str],
    rows: Mapping[str, Sequence[float] | Sequence[float | str]],
) -> str:
    """A Markdown table of published figures and ours."""
    lines = [
        f"\n{title} (published: {source})\n",
        f"| | {' | '.join(columns)} |",
        "|---" * (len(columns) + 1) + "|",
    ]
    for name, values in rows.items():
        shown = [value if isinstance(value, str) else f"{value:.4g}" for value in values]
        lines.append(f"| {name} | {' | '.join(shown)} |")
    return "\n".join(lines)
