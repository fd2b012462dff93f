"""A page to try a model in the browser, here or as a Space of the Hub (extra `demo`)."""
