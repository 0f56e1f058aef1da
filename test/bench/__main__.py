"""make bench: Postern beside nginx and HAProxy on the same machine, the same upstream, the same load, alternating.

Prints a table for each case with its bars, and writes build/bench.json. CPU is user and system time of all
processes between client and upstream, from the scheduler's own account, divided by the answers.
Exit code: 0, 1 when a case has no figures. A missed bar is no error: it is in the table.
"""

import argparse
import os
import signal
import sys
import time
from dataclasses import replace

from trial import ROOT

from bench import cases, report
from bench.lab import Lab
from bench.process import allow_descriptors


def arguments():
    ap = argparse.ArgumentParser(prog="make bench", description=__doc__,
                                 formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--quick", action="store_true", help="every case, but small: under two minutes")
    ap.add_argument("--case", action="append", choices=list(cases.CASES), help="only this one; may be repeated")
    ap.add_argument("--rounds", type=int)
    ap.add_argument("--seconds", type=int, help="of each load in a round")
    ap.add_argument("--connections", type=int)
    ap.add_argument("--keep", action="store_true", help="leave the folder of the run")
    return ap.parse_args()


def main():
    args = arguments()
    given = {k: v for k, v in vars(args).items() if k in ("rounds", "seconds", "connections") and v is not None}
    plan = replace(cases.QUICK if args.quick else cases.Plan(), **given)
    allowed = allow_descriptors(2 * plan.idle + 1024)
    if allowed < plan.idle + 1024:
        sys.exit(f"bench: {plan.idle} connections need as many open files, but only {allowed} are allowed: ulimit -n")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # by way of every finally: nothing stays behind
    began, results = time.monotonic(), []
    lab = Lab(plan.bulk_bytes)
    bench = cases.Bench(lab, plan)
    try:
        for name in args.case or cases.CASES:
            results.append(cases.run(name, bench))
            print(results[-1].text(), flush=True)
    finally:
        bench.close()
        lab.close(args.keep)
    print(report.summary(results))
    print(f"{time.monotonic() - began:.0f} s" + (f", kept: {lab.folder}" if args.keep else ""))
    os.makedirs(os.path.join(ROOT, "build"), exist_ok=True)
    report.write(os.path.join(ROOT, "build", "bench.json"), results)
    return 1 if any(result.error for result in results) else 0


if __name__ == "__main__":
    sys.exit(main())
