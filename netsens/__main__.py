"""`python -m netsens`."""

from netsens.cli.main import main

if __name__ == "__main__":
    main()
