"""Tags for templates, found by Django through the name of their module.

======= ====================================================================
metered ``{% load metered %}``: ``{% metered_token %}``, ``{% metered_config %}``
======= ====================================================================
"""
