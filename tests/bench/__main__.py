"""`python -m tests.bench [name ...] [--quick]`: tables on stdout, JSON in bench-results/."""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import platform
from collections.abc import Callable
from typing import Any

from tests.bench import (
    batch,
    bill,
    gmail_quota,
    landing,
    merge,
    merge_cost,
    monitoring,
    naive,
    nothing_new,
    stripe_listing,
)
from tests.bench.harness import RESULTS

BENCHES: dict[str, Callable[..., Any]] = {
    "landing": landing.run,
    "merge": merge.run,
    "merge-cost": merge_cost.run,
    "bill": bill.run,
    "nothing-new": nothing_new.run,
    "naive": naive.run,
    "gmail-quota": gmail_quota.run,
    "stripe": stripe_listing.run,
    "batch": batch.run,
    "monitoring": monitoring.run,
}


def main() -> None:
    """Run the named benchmarks, or all, and keep their figures."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="name", help=", ".join(BENCHES))
    parser.add_argument("--quick", action="store_true", help="smaller sizes, fewer repeats")
    parser.add_argument("--charges", type=int, metavar="N", help="of stripe's account")
    options = parser.parse_args()
    unknown = set(options.names) - set(BENCHES)
    if unknown:
        parser.error(f"no benchmark {', '.join(sorted(unknown))}; there are {', '.join(BENCHES)}")
    RESULTS.mkdir(exist_ok=True)
    for name in options.names or BENCHES:
        more = {"charges": options.charges} if name == "stripe" else {}
        now = dt.datetime.now(dt.UTC)
        figures = {
            "benchmark": name,
            "at": now.isoformat(timespec="seconds"),
            "quick": options.quick,
            "cores": os.cpu_count(),
            "python": platform.python_version(),
            "figures": BENCHES[name](options.quick, **more),
        }
        path = RESULTS / f"{name}-{now:%Y%m%d%H%M%S}.json"
        path.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
