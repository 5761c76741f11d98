"""Parts of the documentation that are generated from the code: tables, command lines, diagrams."""
