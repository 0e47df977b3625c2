"""`python -m ablation`: the command line without installing it."""

from ablation.cli import main

if __name__ == "__main__":
    main()
