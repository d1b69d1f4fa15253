from lob_connect.cli import main

main()
