"""The checkpoint that ships with the package: data only. README.md beside it is its model card."""
