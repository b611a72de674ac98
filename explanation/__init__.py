"""What explains a slide's prediction: scores, maps, tables, pages."""
