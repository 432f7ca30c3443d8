"""Command line: `scorer run`, `scorer selftest`, `scorer version`."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from . import VERSION
from .engines import NAMES
from .failure import EXIT, Failure

# Before any library is imported: nothing may ask the network, and workers of OpenMP must not spin
# on shared cores.
for _name, _value in {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "OMP_WAIT_POLICY": "passive", "CUBLAS_WORKSPACE_CONFIG": ":4096:8"}.items():
    os.environ.setdefault(_name, _value)


def main() -> int:
    """Runs the chosen command; the exit code is the protocol's, 64 for a wrong command line."""
    parser = argparse.ArgumentParser(prog="scorer", exit_on_error=True)
    parser.add_argument("--engine", choices=NAMES, default=os.environ.get("ASSAY_ENGINE", "vllm"), help="also ASSAY_ENGINE")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("run", help="do DIR/job with DIR/model, write DIR/out").add_argument("--root", type=Path, default=Path("/"))
    commands.add_parser("selftest", help="compute a known model and compare").add_argument("--no-gpu", action="store_true")
    commands.add_parser("version")
    try:
        args = parser.parse_args()
    except SystemExit as ended:
        return 64 if ended.code else 0
    if args.command == "version":
        print(f"assay-scorer {VERSION} engine {args.engine}")
        return 0
    if args.command == "run":
        from .run import run

        return run(args.root, args.engine)
    from .selftest import selftest

    try:
        selftest(args.engine, gpu=not args.no_gpu)
    except Failure as failure:
        print(failure, file=sys.stderr)
        return EXIT[failure.exit_class]
    print("self-test passed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
