"""Use the library inside web frameworks. Each module loads its framework, and this one none.

============== ===========================================================================
flask          for Flask: the extension ``Metered``
django         for Django: an application for ``INSTALLED_APPS``
============== ===========================================================================

What both have in common:

============== ===========================================================================
settings       read the settings, the environment behind them, and say what is wrong
resources      the connections, the tokens and the gate that the settings make
process_client one connected client for each process, opened when it is first needed
event_stream   messages of a channel as server-sent events, for WSGI servers
============== ===========================================================================
"""
