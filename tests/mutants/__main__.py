"""make mutants."""

from .score import main

if __name__ == "__main__":
    main()
