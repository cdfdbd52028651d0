"""`python -m fusedmix demo`."""

import argparse
import sys


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="fusedmix", description="Batch augmentation for PyTorch in one launch.")
    commands = parser.add_subparsers(dest="command", required=True)
    demo = commands.add_parser("demo", help="write a contact sheet of mixed photographs, then train on digits")
    demo.add_argument("--images", metavar="DIR", help="folder of photographs (default: scikit-learn's two samples)")
    demo.add_argument("--out", metavar="FILE", default="fusedmix-demo.png", help="contact sheet (default: %(default)s)")
    options = parser.parse_args(arguments)

    from .demo import DemoError, run

    try:
        run(options.images, options.out)
    except DemoError as error:
        print(f"fusedmix demo: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
