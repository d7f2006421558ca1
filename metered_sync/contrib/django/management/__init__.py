"""Commands of ``manage.py``, found by Django through the names of their modules: ``commands``."""
