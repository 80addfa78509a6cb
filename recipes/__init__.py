"""Recipes, one file per paper: which model, guide, data, optimiser, schedule, metrics and figures."""
