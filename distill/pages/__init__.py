"""What every page of this project is made of: markup, plots and one style."""
