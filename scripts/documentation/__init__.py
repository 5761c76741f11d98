"""Parts of the documentation that follow from the code: tables, command lines, diagrams."""
