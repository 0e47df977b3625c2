"""The study's file: how it is read, which arms it has, and what each arm changes. Which settings exist is up to its task."""
