"""`python -m lob_parse`."""

from lob_parse.cli import main

main()
