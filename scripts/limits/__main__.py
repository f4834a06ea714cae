"""`python -m scripts.limits`."""

from scripts.limits.command import main

if __name__ == "__main__":
    main()
