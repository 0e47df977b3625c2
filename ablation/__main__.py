"""`python -m ablation`: the command line without installing it."""

import sys

# Python puts the current folder first, and a file in it that is called random.py or yaml.py before the library of that name.
if __name__ == "__main__" and not sys.flags.safe_path:
    sys.path.append(sys.path.pop(0))

from ablation.cli import main

if __name__ == "__main__":
    main()
