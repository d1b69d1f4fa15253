from lob_trace.cli import main

main()
