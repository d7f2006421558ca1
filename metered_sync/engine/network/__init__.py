"""The network between this machine and a service, in one place for messaging and REST.

============ ===========================================================================
route        the way to a service, out of the two below
proxies      the proxy that leads to a service, and its refusals
certificates the authorities that are trusted, and the reasons why TLS fails
retry_after  how long an answer asks to wait
============ ===========================================================================
"""
