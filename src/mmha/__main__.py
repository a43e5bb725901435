"""`python -m mmha` is `mmha`."""

from mmha.cli.app import main

main()
