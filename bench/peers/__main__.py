"""Make the environment of every peer under run/peers; those that can not be made say why."""

import sys

from bench.peers import NAMES, Unusable, environment


def main() -> int:
    failed = 0
    for name in NAMES:
        try:
            environment(name, make=True)
            print(f"{name}: ready")
        except Unusable as reason:
            failed += 1
            print(f"{name}: {reason}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
