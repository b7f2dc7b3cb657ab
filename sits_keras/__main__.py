"""Command line as `python -m sits_keras`, for environments without `sits-keras` on the path."""

from sits_keras.cli import main

main()
