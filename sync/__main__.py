"""`python -m sync` is `convsync`."""

from sync.cli import main

if __name__ == "__main__":
    main()
