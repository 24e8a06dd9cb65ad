"""python -m lakewarden: the same command."""

from lakewarden.cli import main

if __name__ == "__main__":
    main()
