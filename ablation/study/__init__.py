"""The study's file: how it is read, the arms that it writes or implies, what each changes. Which settings there are, its task says."""
