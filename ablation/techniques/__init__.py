"""The families of interchangeable techniques, one file each."""
