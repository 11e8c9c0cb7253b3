"""`python -m marketflow` is the same as `marketflow`."""

from marketflow.cli import main

main()
