from wordstats.cli import main

main()
