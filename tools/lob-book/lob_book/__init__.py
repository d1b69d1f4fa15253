"""lob-book: keeps one exact L2 book an instrument."""
