"""The demo's payload: how atmospheric CO₂ follows the seasons, the years and El Niño.

Reads two measured series, fits the seasonal cycle and the trend of CO₂ by least squares, and looks
for the lag at which the growth of CO₂ follows the sea surface temperature of the eastern Pacific.
It knows nothing of Gridlane: it reads files in its working directory and writes files there.

Method: CO₂(t) = quadratic polynomial + harmonics of 1 and 2 a year, after Thoning et al. (1989),
"Atmospheric carbon dioxide at Mauna Loa Observatory 2", J. Geophys. Res. 94, 8549; the lag after
Keeling and Revelle (1985), "Effects of El Niño/Southern Oscillation on the atmospheric content of
carbon dioxide".
"""

from __future__ import annotations

import argparse
import csv
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Series = NDArray[np.float64]

MONTHS_PER_YEAR = 12
LONGEST_LAG_MONTHS = 18
TREND_TERMS = 3


@dataclass(frozen=True)
class SeasonalFit:
    """CO₂ as a trend and a seasonal cycle.

    Attributes:
        trend_ppm_per_year: slope of the polynomial at the reference year.
        amplitude_ppm: amplitude of the harmonic of one year, half of its peak to peak.
        seasonal: seasonal part at each month, in ppm.
        trend: polynomial part at each month, in ppm.
    """

    trend_ppm_per_year: float
    amplitude_ppm: float
    seasonal: Series
    trend: Series


@dataclass(frozen=True)
class Result:
    """The numbers that the analysis is after."""

    months: int
    trend_ppm_per_year_1980: float
    seasonal_amplitude_ppm: float
    lag_months: int
    correlation: float


def read_co2(path: Path) -> tuple[Series, Series]:
    """Monthly means of the weekly CO₂ record.

    Args:
        path: CSV with the columns ``date`` (YYYYMMDD) and ``co2`` (ppm, empty when missing).

    Returns:
        Month numbers since year 0 (12 · year + month − 1), mean CO₂ in ppm; gaps filled linearly.
    """
    sums: dict[int, list[float]] = {}
    with path.open(newline="") as stream:
        for row in csv.DictReader(stream):
            if row["co2"]:
                month = int(row["date"][:4]) * MONTHS_PER_YEAR + int(row["date"][4:6]) - 1
                sums.setdefault(month, []).append(float(row["co2"]))
    known = np.array(sorted(sums), dtype=np.float64)
    means = np.array([np.mean(sums[int(month)]) for month in known])
    months = np.arange(known[0], known[-1] + 1)
    return months, np.interp(months, known, means)


def read_sea_temperature(path: Path) -> tuple[Series, Series]:
    """Anomalies of the monthly sea surface temperature.

    Args:
        path: CSV with the column ``YEAR`` and twelve columns of degrees Celsius.

    Returns:
        Month numbers since year 0 and the deviation from each calendar month's mean, in °C.
    """
    with path.open(newline="") as stream:
        rows = list(csv.reader(stream))[1:]
    table = np.array([[float(value) for value in row[1:]] for row in rows])
    months = np.concatenate(
        [np.arange(MONTHS_PER_YEAR) + int(row[0]) * MONTHS_PER_YEAR for row in rows]
    ).astype(np.float64)
    return months, (table - table.mean(axis=0)).ravel()


def fit_seasons(months: Series, co2: Series, reference_year: float = 1980.0) -> SeasonalFit:
    """Fits a quadratic trend and two harmonics by least squares."""
    years = (months + 0.5) / MONTHS_PER_YEAR - reference_year
    polynomial = np.stack([years**power for power in range(TREND_TERMS)], axis=1)
    phase = 2 * np.pi * years
    harmonics = np.stack(
        [np.cos(phase), np.sin(phase), np.cos(2 * phase), np.sin(2 * phase)], axis=1
    )
    design = np.concatenate([polynomial, harmonics], axis=1)
    coefficients, *_ = np.linalg.lstsq(design, co2, rcond=None)
    return SeasonalFit(
        trend_ppm_per_year=float(coefficients[1]),
        amplitude_ppm=float(np.hypot(coefficients[TREND_TERMS], coefficients[TREND_TERMS + 1])),
        seasonal=harmonics @ coefficients[TREND_TERMS:],
        trend=polynomial @ coefficients[:TREND_TERMS],
    )


def growth_anomaly(fit: SeasonalFit, co2: Series) -> Series:
    """Growth of the seasonless CO₂ beyond the trend, in ppm a year; NaN at both ends."""
    half = MONTHS_PER_YEAR // 2
    residual = co2 - fit.seasonal - fit.trend
    growth = np.full_like(co2, np.nan)
    growth[half:-half] = residual[MONTHS_PER_YEAR:] - residual[:-MONTHS_PER_YEAR]
    return growth


def correlations_by_lag(
    months: Series, growth: Series, sea_months: Series, sea: Series
) -> list[float]:
    """Pearson's r of the growth at month m with the sea temperature at m − lag, for each lag."""
    temperature = dict(zip(sea_months.astype(int), sea, strict=True))
    correlations = []
    for lag in range(LONGEST_LAG_MONTHS + 1):
        pairs = [
            (value, temperature[int(month) - lag])
            for month, value in zip(months, growth, strict=True)
            if not np.isnan(value) and int(month) - lag in temperature
        ]
        both = np.array(pairs)
        correlations.append(float(np.corrcoef(both[:, 0], both[:, 1])[0, 1]))
    return correlations


def draw(
    path: Path, months: Series, co2: Series, fit: SeasonalFit, lags: list[float], result: Result
) -> None:
    """Draws the record with its fit, the mean seasonal cycle, and the correlation by lag."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    years = (months + 0.5) / MONTHS_PER_YEAR
    figure, (record, cycle, lagged) = plt.subplots(
        1, 3, figsize=(13, 4), width_ratios=[2, 1, 1], constrained_layout=True
    )
    record.plot(years, co2, color="0.6", linewidth=0.8, label="monthly mean")
    record.plot(years, fit.trend, color="C3", label="trend")
    record.set(title="CO₂ at Mauna Loa", xlabel="year", ylabel="ppm")
    record.legend(frameon=False)
    cycle.plot(range(1, 13), fit.seasonal[-12 - int(months[-1] + 1) % 12 :][:12], marker="o")
    cycle.set(title="seasonal cycle", xlabel="month", ylabel="ppm")
    lagged.bar(range(len(lags)), lags, color="C0")
    lagged.bar([result.lag_months], [result.correlation], color="C3")
    lagged.set(title="CO₂ growth after El Niño", xlabel="lag / months", ylabel="r")
    figure.savefig(path, dpi=120)


def analyse(co2_path: Path, sea_path: Path, figure_path: Path) -> Result:
    """The whole analysis: numbers returned, figure written."""
    months, co2 = read_co2(co2_path)
    fit = fit_seasons(months, co2)
    lags = correlations_by_lag(months, growth_anomaly(fit, co2), *read_sea_temperature(sea_path))
    lag = int(np.argmax(lags))
    result = Result(
        months=len(months),
        trend_ppm_per_year_1980=round(fit.trend_ppm_per_year, 3),
        seasonal_amplitude_ppm=round(fit.amplitude_ppm, 3),
        lag_months=lag,
        correlation=round(lags[lag], 3),
    )
    draw(figure_path, months, co2, fit, lags, result)
    return result


def main() -> None:
    """Command line: two CSV files in, a JSON file and a figure out, a few lines printed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("co2", type=Path)
    parser.add_argument("sea_temperature", type=Path)
    parser.add_argument("--numbers", type=Path, default=Path("numbers.json"))
    parser.add_argument("--figure", type=Path, default=Path("figure.png"))
    arguments = parser.parse_args()
    result = analyse(arguments.co2, arguments.sea_temperature, arguments.figure)
    arguments.numbers.write_text(json.dumps(asdict(result), indent=2) + "\n")
    print(f"months of CO₂            {result.months}")
    print(f"trend at 1980            {result.trend_ppm_per_year_1980:.2f} ppm a year")
    print(f"seasonal amplitude       {result.seasonal_amplitude_ppm:.2f} ppm")
    print(f"lag behind El Niño       {result.lag_months} months")
    print(f"correlation at that lag  {result.correlation:.2f}")


if __name__ == "__main__":
    main()
