"""`python -m ablation`: the command without installing it."""

from ablation.cli import main

if __name__ == "__main__":
    main()
