"""`python -m lob_book`."""

from lob_book.cli import main

main()
