"""The laboratory: optimizers compared and tuned, and the article's claims put to the test.

Its doors import their rooms when called, so that importing this package costs nothing.
"""
