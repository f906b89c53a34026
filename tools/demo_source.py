"""Print the source of the demo model if the catalogue in force lists it: demo_source.py [--config F]."""

import argparse
import os
import sys
from pathlib import Path

from helexa.config.command import print_mistakes
from helexa.config.read import read_all
from helexa.errors import ConfigError
from helexa.fleet.catalogue import DEMO_MODEL


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--config", type=Path)
    try:
        _, catalogue = read_all(arguments.parse_args().config, os.environ)
    except ConfigError as error:
        print_mistakes(error)
        return 2
    if any(model.source == DEMO_MODEL.source for model in catalogue.models):
        print(DEMO_MODEL.source)
    return 0


if __name__ == "__main__":
    sys.exit(main())
