"""`make demo`: one real job on real data, through every room of the house, on this machine.

Starts an embedded server on free ports with a data directory of its own, puts two measured series
into its store, submits one task, shows what happens, reads the results back and checks them. Every
step is a command that a user could type; it is printed before it is run. Ends with 0 only when the
results were read back and are right. `KEEP=1` leaves the server up and says how to talk to it.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from series import fetch

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
DEMO = ROOT / ".demo"
DATA = DEMO / "data"
RESULTS = DEMO / "results"
BIN = Path(sys.executable).parent
START_TIMEOUT_S = 60.0

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


@contextmanager
def server() -> Iterator[dict[str, Any]]:
    """An embedded server on free ports, stopped in the end unless KEEP is set."""
    ready = DEMO / "ready.json"
    ready.unlink(missing_ok=True)
    log = (DEMO / "server.log").open("w")
    command = [str(BIN / "gridlane-server"), "all", "--data-dir", str(DATA), "--port", "0"]
    options = ["--health-port", "0", "--ready-file", str(ready)]
    process = subprocess.Popen([*command, *options], stdout=log, stderr=log, start_new_session=True)
    try:
        yield _wait_until_ready(process, ready)
    finally:
        if not os.environ.get("KEEP"):
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=30)


def _wait_until_ready(process: subprocess.Popen[bytes], ready: Path) -> dict[str, Any]:
    begun = time.monotonic()
    while not ready.exists():
        if process.poll() is not None or time.monotonic() - begun > START_TIMEOUT_S:
            sys.exit(f"the server did not start:\n{(DEMO / 'server.log').read_text()}")
        time.sleep(0.05)
    found: dict[str, Any] = json.loads(ready.read_text())
    print(f"serving on {found['address']} after {time.monotonic() - begun:.1f} s; data in {DATA}")
    return found


def put_inputs() -> None:
    """Puts the series and the program into the store; both get a checksum and a replica."""
    for path in [*fetch(DEMO / "series"), HERE / "analysis.py"]:
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


def read_back() -> dict[str, float]:
    """Reads the results from the store."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    for name in ("numbers.json", "figure.png"):
        gridlane("get", f"{STORE}/results/{name}", str(RESULTS / name))
    numbers: dict[str, float] = json.loads((RESULTS / "numbers.json").read_text())
    return numbers


def check(numbers: dict[str, float]) -> list[str]:
    """What is wrong with the results; nothing when they are right."""
    wrong = [
        f"{name} is {numbers.get(name)}, expected {value} ± {tolerance}"
        for name, (value, tolerance) in EXPECTED.items()
        if name not in numbers or abs(numbers[name] - value) > tolerance
    ]
    if not (RESULTS / "figure.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n"):
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


def main() -> int:
    """Runs the demo.

    Returns:
        0 when the results were read back and are right, else 1.
    """
    shutil.rmtree(DATA, ignore_errors=True)
    shutil.rmtree(RESULTS, ignore_errors=True)
    DEMO.mkdir(exist_ok=True)
    title("Starting an embedded server")
    with server() as ready:
        os.environ["GRIDLANE_ADDRESS"] = ready["address"]
        os.environ["BEARER_TOKEN_FILE"] = ready["token_file"]
        os.environ.pop("BEARER_TOKEN", None)
        title("Two measured series and the analysis go into the store")
        put_inputs()
        title("One task: bring the files, run the analysis, move the results out")
        run_task()
        title("The results, read back from the store")
        numbers = read_back()
        for name, value in numbers.items():
            print(f"  {name:28} {value}")
        title("Where the files are")
        gridlane("replica", "list", f"{STORE}/")
        (job,) = [job["name"] for job in answer("job", "list")]
        title("What was accounted")
        gridlane("report", job)
        title("The story of the job")
        gridlane("trace", job)
        wrong = check(numbers) + check_story(job)
    if wrong:
        print("\n".join(["", "NOT right:", *(f"  {line}" for line in wrong)]))
        return 1
    title(f"All right. The figure: {RESULTS / 'figure.png'}")
    if os.environ.get("KEEP"):
        print(f"The server is still up (process {ready['pid']}). To talk to it:")
        print(f"  export GRIDLANE_ADDRESS={ready['address']}")
        print(f"  export BEARER_TOKEN_FILE={ready['token_file']}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
