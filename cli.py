"""The command line from a checkout: `python cli.py train …` is `edgeemo train …`."""

from edgeemo.cli import main

main()
