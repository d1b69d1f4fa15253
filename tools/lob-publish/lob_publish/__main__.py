from lob_publish.cli import main

main()
