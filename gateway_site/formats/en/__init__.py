"""The one language that the pages speak."""
