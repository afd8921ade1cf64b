"""Make the environment of every peer, or of those named, under run/peers; those that can not be made say why."""

import sys

from bench.peers import NAMES, Unusable, environment


def main() -> int:
    failed = 0
    for name in sys.argv[1:] or NAMES:
        try:
            environment(name, make=True)
            print(f"{name}: ready")
        except Unusable as reason:
            failed += 1
            print(f"{name}: {reason}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
