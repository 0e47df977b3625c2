"""The families of interchangeable techniques, one file each, and their contracts. Which of them an arm takes, the study says."""
