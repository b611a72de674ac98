"""What is told of finished runs: pages, tables, figures, statistics."""
