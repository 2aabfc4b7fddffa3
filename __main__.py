"""`python -m cogguided` is the command `cogguided`."""

from ._cli.app import main

if __name__ == "__main__":
    main()
