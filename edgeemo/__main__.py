"""python -m edgeemo: the same as the command edgeemo."""

from edgeemo.cli import main

main()
