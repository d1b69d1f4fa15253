"""lob-publish: from the book ring to everybody who wants to know."""
