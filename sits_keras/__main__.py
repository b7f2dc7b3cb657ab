"""`python -m sits_keras`: the command line, where `sits-keras` is not on the path."""

from sits_keras.cli import main

main()
