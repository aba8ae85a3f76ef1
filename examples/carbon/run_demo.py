"""`make demo`: one real job on real data, through every room of the house, on this machine.

    python run_demo.py [all|split]

Starts Gridlane on free ports with a data directory of its own, in one process (`all`) or in one
process a service (`split`: `make demo-split`); puts two measured series into its store, submits one
task, shows what happens, reads the results back and checks them. Every step is a command that a
user could type; it is printed before it is run. Ends with 0 only when the results were read back
and are right. `KEEP=1` leaves everything up and says how to talk to it.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from series import fetch
from shapes import BIN, SHAPES, kept

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
FOLDERS = {"all": ROOT / ".demo", "split": ROOT / ".demo-split"}
TITLES = {
    "all": "Starting an embedded server",
    "split": "Starting five processes on PostgreSQL, with TLS between them",
}

# What the literature and the data say, with the tolerance that the method has.
EXPECTED = {
    "trend_ppm_per_year_1980": (1.34, 0.05),
    "seasonal_amplitude_ppm": (2.8, 0.1),
    "lag_months": (5, 2),
    "correlation": (0.5, 0.05),
}
STORE = "LFN:/local/demo"


def title(text: str) -> None:
    """Prints a heading."""
    print(f"\n\033[1m==> {text}\033[0m" if sys.stdout.isatty() else f"\n==> {text}", flush=True)


def gridlane(*arguments: str, capture: bool = False) -> str:
    """Runs the `gridlane` command and shows it.

    Args:
        arguments: the command's arguments.
        capture: whether its output is returned and neither command nor output is shown.

    Raises:
        SystemExit: it failed; with its exit code.
    """
    if not capture:
        print(f"$ gridlane {shlex.join(arguments)}", flush=True)
    done = subprocess.run(
        [str(BIN / "gridlane"), *arguments], stdout=subprocess.PIPE if capture else None, text=True
    )
    if done.returncode:
        sys.exit(done.returncode)
    return done.stdout or ""


def answer(*arguments: str) -> Any:
    """What a command answers as JSON."""
    return json.loads(gridlane(*arguments, "--output", "json", capture=True))


def put_inputs() -> None:
    """Puts the series and the program into the store; both get a checksum and a replica."""
    for path in [*fetch(FOLDERS["all"] / "series"), HERE / "analysis.py"]:
        gridlane("put", str(path), f"{STORE}/{path.name}")


def run_task() -> None:
    """Submits the one task and waits for it."""
    inputs = [
        part
        for name in ("co2.csv", "elnino.csv", "analysis.py")
        for part in ("--input", f"{STORE}/{name}")
    ]
    outputs = [
        part
        for name in ("numbers.json", "figure.png")
        for part in ("--output", f"{name}={STORE}/results/{name}")
    ]
    command = [sys.executable, "analysis.py", "co2.csv", "elnino.csv"]
    gridlane("run", "--lines", "--name", "carbon", *inputs, *outputs, "--", *command)


def read_back(results: Path) -> dict[str, float]:
    """Reads the results from the store into a folder."""
    results.mkdir(parents=True, exist_ok=True)
    for name in ("numbers.json", "figure.png"):
        gridlane("get", f"{STORE}/results/{name}", str(results / name))
    numbers: dict[str, float] = json.loads((results / "numbers.json").read_text())
    return numbers


def check(numbers: dict[str, float], figure: Path) -> list[str]:
    """What is wrong with the results; nothing when they are right."""
    wrong = [
        f"{name} is {numbers.get(name)}, expected {value} ± {tolerance}"
        for name, (value, tolerance) in EXPECTED.items()
        if name not in numbers or abs(numbers[name] - value) > tolerance
    ]
    if not figure.read_bytes().startswith(b"\x89PNG\r\n\x1a\n"):
        wrong.append("figure.png is not a PNG file")
    return wrong


def check_story(job: str) -> list[str]:
    """What is missing of the job's accounting and of its story."""
    records = answer("report", job)
    jobs = sum("job_usage" in record for record in records)
    moves = sum("data_operation" in record for record in records)
    spans = [span["name"] for span in answer("trace", job)["spans"]]
    wrong = []
    if (jobs, moves) != (1, 5):
        wrong.append(f"{jobs} job and {moves} transfer records, expected 1 and 5")
    if "payload" not in spans:
        wrong.append("the payload's own span is not in the story")
    return wrong


def main(shape: str) -> int:
    """Runs the demo.

    Args:
        shape: "all" or "split".

    Returns:
        0 when the results were read back and are right, else 1.
    """
    folder = FOLDERS[shape]
    results = folder / "results"
    shutil.rmtree(folder / "data", ignore_errors=True)
    shutil.rmtree(results, ignore_errors=True)
    folder.mkdir(exist_ok=True)
    title(TITLES[shape])
    with SHAPES[shape](folder) as environment:
        os.environ.update(environment)
        os.environ.pop("BEARER_TOKEN", None)
        title("Two measured series and the analysis go into the store")
        put_inputs()
        title("One task: bring the files, run the analysis, move the results out")
        run_task()
        title("The results, read back from the store")
        numbers = read_back(results)
        for name, value in numbers.items():
            print(f"  {name:28} {value}")
        title("Where the files are")
        gridlane("replica", "list", f"{STORE}/")
        (job,) = [job["name"] for job in answer("job", "list")]
        title("What was accounted")
        gridlane("report", job)
        title("The story of the job")
        gridlane("trace", job)
        figure = results / "figure.png"
        wrong = check(numbers, figure) + check_story(job)
    if wrong:
        print("\n".join(["", "NOT right:", *(f"  {line}" for line in wrong)]))
        return 1
    title(f"All right. The figure: {figure}")
    if kept():
        print("To talk to what is still up:")
        for name, text in environment.items():
            print(f"  export {name}={shlex.quote(text)}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else "all"))
