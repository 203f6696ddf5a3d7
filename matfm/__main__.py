"""`python -m matfm`."""

from matfm.cli import main

main()
