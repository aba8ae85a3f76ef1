"""Prints every place of the contracts that breaks a rule of their style; exits with 1 if one does.

    python tools/check_contract_style.py

Responsible for the command alone: the rules stand in `contracts.style`.
"""

from __future__ import annotations

import sys
from pathlib import Path

from contracts.model import read_contract
from contracts.style import findings


def main() -> int:
    """Prints the findings.

    Returns:
        1 when there is one, else 0.
    """
    told = findings(read_contract(Path(__file__).resolve().parent.parent))
    print("\n".join(told) or "the contracts keep to their style")
    return 1 if told else 0


if __name__ == "__main__":
    sys.exit(main())
